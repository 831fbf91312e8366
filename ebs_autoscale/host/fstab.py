"""fstab(5): what is mounted where at boot; one line for ours, every other byte as it was. Pure."""

import posixpath
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit

FSTAB = Path("/etc/fstab")

# A boot goes on without the filesystem, after having waited so long for its devices. What comes
# later the daemon mounts.
_OPTIONS = ("nofail", "x-systemd.device-timeout=120s")

_ESCAPE = re.compile(r"\\([0-7]{3})")
# What separates fields or begins an escape: space, tab, newline, backslash.
_ESCAPED = {character: f"\\{ord(character):03o}" for character in " \t\n\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FstabLine:
    """One line that mounts something; `source` is as it is written, `UUID=…` or a path.

    `number` counts the lines of the table from 0.
    """

    number: int
    source: str
    mountpoint: str
    kind: str
    options: tuple[str, ...]

    @property
    def uuid(self) -> str:
        """The filesystem's UUID in lower case, where it is named by that; else empty."""
        tag, _, value = self.source.partition("=")
        if tag == "UUID":
            return value.strip('"').lower()
        prefix = "/dev/disk/by-uuid/"
        return self.source.removeprefix(prefix) if self.source.startswith(prefix) else ""

    @property
    def is_by_device(self) -> bool:
        """Whether it names one device, which another may be after the next boot."""
        return self.source.startswith("/dev/") and not self.source.startswith(
            ("/dev/disk/by-uuid/", "/dev/disk/by-label/", "/dev/mapper/")
        )

    @property
    def is_by_init(self) -> bool:
        """Whether it has all that `init` gives to each line that it writes."""
        return set(_OPTIONS) <= set(self.options)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The options that somebody chose for the mount itself, such as `subvol=...`."""
        return tuple(
            option
            for option in self.options
            if option not in {"defaults", "nofail"} and not option.startswith("x-systemd.")
        )


def parse(table: str) -> tuple[FstabLine, ...]:
    """The lines that mean something; those with too few fields are skipped, as mount(8) does."""
    rows = ((number, line.split()) for number, line in enumerate(table.split("\n")))
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
    """The UUID of the BTRFS filesystem that the table mounts here; empty when it names none."""
    found = [line.uuid for line in lines_at(table, mountpoint) if line.kind == "btrfs"]
    return found[-1] if found else ""


def line_for(uuid: str, mountpoint: str, options: tuple[str, ...] = ("defaults",)) -> str:
    """The line that brings a filesystem of several volumes back after a boot.

    By UUID, since names of NVMe devices change; `nofail`, since a volume that is late must not end
    in emergency mode; no `degraded`, since data on one volume alone is lost without it.
    """
    point = "".join(_ESCAPED.get(character, character) for character in mountpoint)
    names = {option.partition("=")[0] for option in options}
    added = (option for option in _OPTIONS if option.partition("=")[0] not in names)
    return f"UUID={uuid} {point} btrfs {','.join((*options, *added))} 0 0"


def with_line(table: str, *, uuid: str, mountpoint: str, is_same: Callable[[str], bool]) -> str:
    """The table with exactly one line that mounts this filesystem here, by its UUID.

    `is_same` says whether another source (`/dev/sdf`, `LABEL=x`) is this filesystem. A line
    by device name gives way to one by UUID with its options and ours; one by label or the
    like stays. Raises Unfit when a line for this mountpoint means something else.
    """
    rows = table.split("\n")
    options: tuple[str, ...] = ("defaults",)
    place, kept = None, False
    for line in reversed(lines_at(table, mountpoint)):
        if line.uuid != uuid and not is_same(line.source):
            raise _conflict(line, rows[line.number])
        if kept or line.is_by_device:
            options, place = line.options, line.number
            del rows[line.number]
        else:
            kept = True
    if kept:
        return "\n".join(rows)
    ours = line_for(uuid, mountpoint, options)
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
    """The lines that mount something here, first to last."""
    return tuple(line for line in parse(table) if line.mountpoint == mountpoint)


def _conflict(line: FstabLine, written: str) -> Unfit:
    return Unfit(
        f"{FSTAB} mounts {line.source} on {line.mountpoint}: `{written.strip()}`",
        hint="if that is the filesystem meant, mount it first; else remove the line, "
        "or choose another mountpoint",
        cause=Cause.FSTAB,
    )


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
