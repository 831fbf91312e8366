"""Partitions as the kernel has them now, whatever the table on the block device says."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.model import SYSFS_SECTOR_BYTES

_SYSFS = Path("/sys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition in use; `disk` is the kernel's name of its block device, `name` its own."""

    disk: str
    name: str
    number: int
    start_bytes: int
    size_bytes: int


def partition_of(name: str) -> Partition | None:
    """The partition with this kernel name; None if there is none, or it is a whole device."""
    folder = Path(os.path.realpath(_SYSFS / "class/block" / name))
    try:
        number, start, sectors = (_number(folder / each) for each in ("partition", "start", "size"))
    except (OSError, ValueError):
        return None
    return Partition(
        disk=folder.parent.name,
        name=folder.name,
        number=number,
        start_bytes=start * SYSFS_SECTOR_BYTES,
        size_bytes=sectors * SYSFS_SECTOR_BYTES,
    )


def partitions_of(disk: str) -> Mapping[int, Partition]:
    """All partitions of the block device, by number."""
    names = (path.parent.name for path in (_SYSFS / "block" / disk).glob("*/partition"))
    found = (partition_of(name) for name in names)
    return {each.number: each for each in found if each}


def attribute(name: str, path: str) -> str:
    """The sysfs attribute of a block device or partition; empty when there is none."""
    with suppress(OSError):
        return (_SYSFS / "class/block" / name / path).read_text("utf-8", "replace").strip()
    return ""


def users_of(name: str) -> list[str]:
    """What of device-mapper, md or bcache is on this block device or partition."""
    return _names_in(_SYSFS / "class/block" / name / "holders")


def parts_of(name: str) -> list[str]:
    """The block devices that this one consists of, as an array or a mapped device does."""
    return _names_in(_SYSFS / "class/block" / name / "slaves")


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def _number(path: Path) -> int:
    return int(path.read_text("ascii"))
