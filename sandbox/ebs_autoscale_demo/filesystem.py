"""The filesystem of the demo, measured by statvfs, `btrfs` and a scrub."""

import fcntl
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale_demo.command import run

_DEVICE = re.compile(r"^\s*devid\s+(\d+)\s+size\s+(\d+)\s+used\s+\d+\s+path\s+(\S+)", re.MULTILINE)

# linux/btrfs.h
_SCRUB = 0xC400941B
_ARGUMENTS = struct.Struct("=4Q 15Q 872x")  # devid, start, end, flags; btrfs_scrub_progress
_TO_THE_END = 2**64 - 1
_PROGRESS_AT = 4
_BYTES = ("data_bytes", "tree_bytes")
_ERRORS = ("read", "csum", "verify", "super", "uncorrectable", "unverified")
_PLACES = {
    "data_bytes": 2,
    "tree_bytes": 3,
    "read": 4,
    "csum": 5,
    "verify": 6,
    "super": 9,
    "uncorrectable": 11,
    "unverified": 14,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the filesystem; `name` is its kernel name."""

    devid: int
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The space and the devices of the filesystem at one moment."""

    size_bytes: int
    available_bytes: int
    devices: tuple[Device, ...]

    @property
    def used_bytes(self) -> int:
        """Everything that is not available."""
        return self.size_bytes - self.available_bytes

    @property
    def available_percent(self) -> float:
        """The available share of the size."""
        return 100 * self.available_bytes / self.size_bytes


class Filesystem:
    """A mounted BTRFS filesystem, as any program on the host sees it."""

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint
        self._devices: tuple[Device, ...] = ()
        self._listed_at_bytes = 0

    def measure(self) -> Space:
        """Measure it now; raises ToolFailed."""
        found = os.statvfs(self._mountpoint)
        size_bytes = found.f_blocks * found.f_frsize
        # statvfs costs microseconds and `btrfs` a process: list devices only after a change.
        if size_bytes != self._listed_at_bytes:
            self._devices = _devices(self._mountpoint)
            self._listed_at_bytes = size_bytes
        return Space(
            size_bytes=size_bytes,
            available_bytes=found.f_bavail * found.f_frsize,
            devices=self._devices,
        )


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """How much a scrub read, and the number of errors it found."""

    size_bytes: int
    errors: int


def scrub(mountpoint: Path, devids: Iterable[int]) -> Scrubbed:
    """Read all data and metadata of these devices and verify the checksums of BTRFS.

    By ioctl, because `btrfs scrub` would leave its records in /var/lib/btrfs.
    """
    size_bytes = errors = 0
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for devid in devids:
            arguments = bytearray(_ARGUMENTS.pack(devid, 0, _TO_THE_END, 0, *[0] * 15))
            fcntl.ioctl(fd, _SCRUB, arguments)
            progress = _ARGUMENTS.unpack(arguments)[_PROGRESS_AT:]
            size_bytes += sum(progress[_PLACES[name]] for name in _BYTES)
            errors += sum(progress[_PLACES[name]] for name in _ERRORS)
    finally:
        os.close(fd)
    return Scrubbed(size_bytes, errors)


def _devices(mountpoint: Path) -> tuple[Device, ...]:
    listing = run(["btrfs", "filesystem", "show", "--raw", str(mountpoint)])
    return tuple(
        # The kernel keeps the path by which a device was added, which may be a link.
        Device(devid=int(devid), name=Path(path).resolve().name, size_bytes=int(size))
        for devid, size, path in _DEVICE.findall(listing)
    )
