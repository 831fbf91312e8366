"""A scrub by ioctl: `btrfs scrub` would leave its records in /var/lib/btrfs."""

import fcntl
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What a scrub read, and what of it was wrong."""

    size_bytes: int
    errors: int


def scrub(mountpoint: Path, devids: Iterable[int]) -> Scrubbed:
    """Read all data and metadata of these members and compare them with BTRFS's checksums."""
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
