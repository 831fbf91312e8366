"""Parse and edit the text of fstab(5), keeping all other lines as they are. Pure."""

import os
import posixpath
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import FilesystemKind

FSTAB = Path("/etc/fstab")

_KINDS = set(FilesystemKind)

# The boot continues without the filesystem after waiting this long for its devices. When they
# appear later, the daemon mounts it.
_OPTIONS = ("nofail", "x-systemd.device-timeout=120s")

# Only ext4 is checked at boot: fsck.xfs and fsck.btrfs do nothing, while e2fsck repairs what the
# kernel has marked, and is done at once with what was unmounted or only needs its journal.
_FSCK_PASS: dict[str, int] = {FilesystemKind.EXT4: 2}

_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
# What separates fields. Other white space, such as the no-break space, belongs to a name.
_BLANKS = re.compile("[ \t]+")
# Characters that separate fields or begin an escape.
_ESCAPED = {character: f"\\{ord(character):03o}" for character in " \t\n\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FstabLine:
    """A line that mounts something; `source` is as written, such as `UUID=…` or a path.

    `number` is its index among the lines of the table; `kind` the type of the filesystem.
    """

    number: int
    source: str
    mountpoint: str
    kind: str
    options: tuple[str, ...]

    @property
    def uuid(self) -> str:
        """The UUID in lower case when the line names the filesystem by it, else empty."""
        tag, _, value = self.source.partition("=")
        if tag == "UUID":
            return value.strip('"').lower()
        prefix = "/dev/disk/by-uuid/"
        return self.source.removeprefix(prefix) if self.source.startswith(prefix) else ""

    @property
    def is_by_device(self) -> bool:
        """Whether it uses a device name, which may be another device after the next boot."""
        return self.source.startswith("/dev/") and not self.source.startswith(
            ("/dev/disk/by-uuid/", "/dev/disk/by-label/", "/dev/mapper/")
        )

    @property
    def is_by_init(self) -> bool:
        """Whether it has the options that `init` adds to each line it writes."""
        return set(_OPTIONS) <= set(self.options)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The options of the mount itself that are not defaults, such as `subvol=...`."""
        return tuple(
            option
            for option in self.options
            if option not in {"defaults", "nofail"} and not option.startswith("x-systemd.")
        )


def parse(table: str) -> tuple[FstabLine, ...]:
    """The lines that mount something; those with too few fields are skipped, as by mount(8)."""
    lines = enumerate(table.split("\n"))
    rows = ((number, _BLANKS.split(line.strip(" \t\r"))) for number, line in lines)
    return tuple(
        FstabLine(
            number=number,
            source=_unescape(row[0]),
            mountpoint=posixpath.normpath(_unescape(row[1])),
            kind=row[2],
            options=tuple(row[3].split(",")) if len(row) > 3 else ("defaults",),
        )
        for number, row in rows
        if len(row) > 2 and not row[0].startswith("#")
    )


def uuid_at(table: str, mountpoint: str) -> str:
    """The UUID of the filesystem that the table mounts here; empty when there is none."""
    line = line_at(table, mountpoint)
    return line.uuid if line else ""


def line_at(table: str, mountpoint: str) -> FstabLine | None:
    """The line that mounts a filesystem here that can grow; None without one."""
    found = [line for line in lines_at(table, mountpoint) if line.kind in _KINDS]
    return found[-1] if found else None


def line_for(
    uuid: str, mountpoint: str, options: tuple[str, ...] = ("defaults",), *, kind: str = "btrfs"
) -> str:
    """The line that mounts a filesystem at boot, also one of several volumes.

    By UUID, since the names of NVMe devices change; with `nofail`, so that a volume that appears
    late does not end the boot in emergency mode; without `degraded`, since data has no copies.
    """
    point = "".join(_ESCAPED.get(character, character) for character in mountpoint)
    names = {option.partition("=")[0] for option in options}
    added = (option for option in _OPTIONS if option.partition("=")[0] not in names)
    checked = _FSCK_PASS.get(kind, 0)
    return f"UUID={uuid} {point} {kind} {','.join((*options, *added))} 0 {checked}"


def with_line(
    table: str,
    *,
    uuid: str,
    mountpoint: str,
    is_same: Callable[[str], bool],
    is_mounted: bool = False,
    kind: FilesystemKind = FilesystemKind.BTRFS,
) -> str:
    """The table with exactly one line that mounts this filesystem here.

    `is_same` says whether another source (`/dev/sdf`, `LABEL=x`) is this filesystem. A line with a
    device name is replaced by one with the UUID, its options and ours; one with a label is kept.
    Raises Unfit when a line for this mountpoint mounts something else, with advice for a
    filesystem that `is_mounted` there or not.
    """
    rows = table.split("\n")
    options: tuple[str, ...] = ("defaults",)
    place, kept = None, False
    for line in reversed(lines_at(table, mountpoint)):
        if line.uuid != uuid and not is_same(line.source):
            wanted = line_for(uuid, mountpoint, line.options, kind=kind) if is_mounted else ""
            raise _conflict(line, rows[line.number], wanted)
        if kept or line.is_by_device:
            options, place = line.options, line.number
            del rows[line.number]
        else:
            kept = True
    if kept:
        return "\n".join(rows)
    ours = line_for(uuid, mountpoint, options, kind=kind)
    if place is not None:
        rows.insert(place, ours)
    elif rows[-1]:
        rows += [ours, ""]
    else:
        rows.insert(-1, ours)
    return "\n".join(rows)


def without(table: str, lines: Collection[FstabLine]) -> str:
    """The table without these lines of it."""
    gone = {line.number for line in lines}
    return "\n".join(row for number, row in enumerate(table.split("\n")) if number not in gone)


def lines_at(table: str, mountpoint: str) -> tuple[FstabLine, ...]:
    """The lines for this mountpoint, in the order of the table."""
    return tuple(line for line in parse(table) if line.mountpoint == mountpoint)


def _conflict(line: FstabLine, written: str, wanted: str) -> Unfit:
    """`wanted` is the line for the filesystem that is mounted there; empty if none is."""
    hint = (
        "if this is the right filesystem, mount it first; otherwise remove the line or choose "
        "another mountpoint"
    )
    if wanted:
        hint = (
            f"if the filesystem that is mounted there now is the right one, change the line to "
            f"`{wanted}`; otherwise unmount it; then run `init` again"
        )
    return Unfit(
        f"{FSTAB} mounts {line.source} on {line.mountpoint}: `{written.strip()}`",
        hint=hint,
        cause=Cause.FSTAB,
    )


def _unescape(field: str) -> str:
    r"""Undo the escapes, which stand for bytes: `\303\274` is one letter."""
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)
