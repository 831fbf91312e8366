"""A partition table, read strictly: GPT, or the MBR of a PC with primary partitions only.

Sources: UEFI specification, chapter 5; for the MBR, its sections 5.2.1 and 5.2.2.
"""

import os
import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

SECTOR_BYTES = 512

_MBR_ENTRY = struct.Struct("<B3sB3sII")
_MBR_SECTORS_MAX = 2**32
_PROTECTIVE = 0xEE
# Linux finds further partitions in each of these (block/partitions/msdos.c and ldm.c).
_NESTING = {
    **dict.fromkeys((0x05, 0x0F, 0x85), "an extended partition"),
    **dict.fromkeys((0xA5, 0xA6, 0xA9), "a partition with a BSD disklabel"),
    0x42: "a dynamic disk of Windows",
    0x63: "a partition of UnixWare",
    0x81: "a partition of Minix",
    0xBF: "a partition of Solaris",
}

_GPT_HEADER = struct.Struct("<8s4sII4xQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQ8s72s")
# What every tool writes. A larger table may be longer than the space that is kept for it.
_GPT_ENTRIES, _GPT_ENTRIES_AT = 128, 2
_GPT_TABLE_SECTORS = 1 + _GPT_ENTRIES * _GPT_ENTRY.size // SECTOR_BYTES


class IrregularTable(Exception):
    """There is no table, or one that is more, less or other than it has to be."""


class Entry(NamedTuple):
    """A partition in the table, in sectors; `rest` is all else that the table says of it."""

    number: int
    start: int
    sectors: int
    kind: str
    rest: bytes

    @property
    def end(self) -> int:
        """The first sector behind it."""
        return self.start + self.sectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a table says.

    `label` is `gpt` or `dos`, as sfdisk and blkid call them; `identity` is what tells this table
    from others, boot code included; `sectors` is the size of the block device for which it was
    written, None in an MBR, which does not say that. `is_unfinished` is whether a change of a GPT
    was interrupted when all was written but the primary header: these are the new entries.
    """

    label: str
    identity: bytes
    entries: tuple[Entry, ...]
    sectors: int | None = None
    is_unfinished: bool = False

    def entry(self, number: int) -> Entry | None:
        """The partition with this number."""
        return next((each for each in self.entries if each.number == number), None)

    def extended(self, number: int, *, end: int, sectors: int) -> "Table":
        """The same table, whole, for so many sectors, and with this partition up to `end`."""
        entries = tuple(
            each._replace(sectors=end - each.start) if each.number == number else each
            for each in self.entries
        )
        sectors_told = self.sectors and sectors
        return replace(self, entries=entries, sectors=sectors_told, is_unfinished=False)


def sectors_max(label: str) -> int | None:
    """The most sectors that such a table can describe; None if no volume has as many."""
    return _MBR_SECTORS_MAX if label == "dos" else None


def read(fd: int, sectors: int) -> Table:
    """The table on this block device, or image, of so many sectors.

    Raises IrregularTable for whatever is not a plain one, OSError if it cannot be read.
    """
    first = _sectors(fd, 0)
    if first[510:] != b"\x55\xaa":
        raise IrregularTable("it has neither GPT nor MBR")
    used = [entry for at in range(446, 510, 16) if any(entry := first[at : at + 16])]
    protective = [entry for entry in used if entry[4] == _PROTECTIVE]
    if protective and (len(used) > 1 or used[0][8:12] != b"\1\0\0\0"):
        raise IrregularTable("it has a hybrid MBR: its GPT and its MBR both have partitions")
    table = _gpt(fd, sectors, first[:446]) if protective else _mbr(first)
    if not protective and _sectors(fd, 1).startswith(b"EFI PART"):
        raise IrregularTable("it has a GPT, but an MBR that does not say so")
    _require_apart(table, sectors)
    return table


def _mbr(sector: bytes) -> Table:
    entries = []
    for number in range(1, 5):
        packed = sector[430 + 16 * number : 446 + 16 * number]
        status, _, kind, _, start, sectors = _MBR_ENTRY.unpack(packed)
        if not any(packed):
            continue
        if status not in (0, 0x80) or not kind or not start or not sectors:
            raise IrregularTable(f"entry {number} of its MBR is not that of a partition")
        if kind in _NESTING:
            raise IrregularTable(f"it has {_NESTING[kind]}")
        entries.append(Entry(number, start, sectors, f"{kind:02x}", packed[:1]))
    return Table(label="dos", identity=sector[:446], entries=tuple(entries))


class _Header(NamedTuple):
    """One of the two headers of a GPT; all places are sectors."""

    signature: bytes
    revision: bytes
    size: int
    crc: int
    here: int
    other: int
    first: int
    last: int
    disk: bytes
    entries_at: int
    entries: int
    entry_size: int
    entries_crc: int

    def mirrored(self, *, crc: int) -> "_Header":
        """The other header, which differs in nothing but its place and that of its entries."""
        first_is_here = self.here == 1
        entries_at = self.other - _GPT_TABLE_SECTORS + 1 if first_is_here else _GPT_ENTRIES_AT
        return self._replace(crc=crc, here=self.other, other=self.here, entries_at=entries_at)


def _gpt(fd: int, sectors: int, boot_code: bytes) -> Table:
    primary = _header(fd, 1)
    if primary is None:
        raise IrregularTable("the primary header of its GPT is damaged")
    _require_usual(primary)
    if primary.other >= sectors:
        raise IrregularTable(
            f"it has {sectors} sectors, but its GPT was written for {primary.other + 1}"
        )
    backup = _header(fd, primary.other)
    if backup is None:
        raise IrregularTable("the backup header of its GPT is damaged")
    if backup != primary.mirrored(crc=backup.crc):
        raise IrregularTable("the two headers of its GPT differ")
    packed = _sectors(fd, primary.entries_at, _GPT_TABLE_SECTORS - 1)
    is_unfinished = crc32(packed) != primary.entries_crc
    if is_unfinished:
        # sfdisk writes the backup at the end of the device, then the entries, then this header.
        latest = _header(fd, sectors - 1)
        if latest is None or latest.disk != primary.disk or crc32(packed) != latest.entries_crc:
            raise IrregularTable("the primary entries of its GPT are damaged")
        primary = latest.mirrored(crc=latest.crc)
        backup = latest
    if _sectors(fd, backup.entries_at, _GPT_TABLE_SECTORS - 1) != packed:
        raise IrregularTable("the backup entries of its GPT are damaged")
    return Table(
        label="gpt",
        identity=boot_code + primary.disk,
        entries=tuple(_gpt_entries(packed, primary)),
        sectors=primary.other + 1,
        is_unfinished=is_unfinished,
    )


def _require_usual(header: _Header) -> None:
    if (
        (header.entries, header.entry_size) != (_GPT_ENTRIES, _GPT_ENTRY.size)
        or (header.size, header.entries_at) != (_GPT_HEADER.size, _GPT_ENTRIES_AT)
        or not _GPT_TABLE_SECTORS < header.first <= header.last <= header.other - _GPT_TABLE_SECTORS
    ):
        raise IrregularTable(f"its GPT is not the usual one with {_GPT_ENTRIES} entries")


def _header(fd: int, at: int) -> _Header | None:
    packed = _sectors(fd, at)
    header = _Header._make(_GPT_HEADER.unpack_from(packed))
    blanked = packed[:16] + bytes(4) + packed[20 : _GPT_HEADER.size]
    is_sound = (
        header.signature == b"EFI PART" and header.here == at and header.crc == crc32(blanked)
    )
    return header if is_sound else None


def _gpt_entries(packed: bytes, header: _Header) -> list[Entry]:
    found = []
    for number, fields in enumerate(_GPT_ENTRY.iter_unpack(packed), start=1):
        kind, unique, first, last, flags, name = fields
        if not any(kind):
            continue
        if not header.first <= first <= last <= header.last:
            raise IrregularTable(f"partition {number} is outside of what its GPT may use")
        rest = unique + flags + name
        found.append(Entry(number, first, last - first + 1, str(UUID(bytes_le=kind)), rest))
    return found


def _require_apart(table: Table, sectors: int) -> None:
    in_order = sorted(table.entries, key=lambda entry: entry.start)
    for before, behind in pairwise(in_order):
        if before.end > behind.start:
            raise IrregularTable(f"partitions {before.number} and {behind.number} overlap")
    if in_order and in_order[-1].end > sectors:
        raise IrregularTable(f"partition {in_order[-1].number} ends behind its last sector")


def _sectors(fd: int, at: int, count: int = 1) -> bytes:
    content = os.pread(fd, count * SECTOR_BYTES, at * SECTOR_BYTES)
    if len(content) != count * SECTOR_BYTES:
        raise IrregularTable(f"sector {at} is behind its end")
    return content
