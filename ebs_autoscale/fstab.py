"""fstab(5): what is mounted where at boot. Pure."""

import posixpath
import re
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\([0-7]{3})")

# What separates fields or begins an escape: space, tab, newline, backslash.
_ESCAPED = {character: f"\\{ord(character):03o}" for character in " \t\n\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FstabLine:
    """One line of the table; `source` is as it is written, `UUID=…` or a path."""

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


def parse(text: str) -> tuple[FstabLine, ...]:
    """The lines that mean something; those with too few fields are skipped, as mount(8) does."""
    rows = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    return tuple(
        FstabLine(
            source=_unescape(row[0]),
            mountpoint=posixpath.normpath(_unescape(row[1])),
            kind=row[2],
            options=tuple(row[3].split(",")) if len(row) > 3 else ("defaults",),
        )
        for row in rows
        if len(row) > 2
    )


def line_for(uuid: str, mountpoint: str) -> str:
    """The line that brings a filesystem of several volumes back after a boot.

    By UUID, since names of NVMe devices change; `nofail`, since a volume that is late must not end
    in emergency mode; no `degraded`, since data on one volume alone is lost without it.
    """
    point = "".join(_ESCAPED.get(character, character) for character in mountpoint)
    return f"UUID={uuid} {point} btrfs defaults,nofail,x-systemd.device-timeout=300s 0 0"


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
