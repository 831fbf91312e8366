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


def partition_of(name: str, *, sysfs: Path = _SYSFS) -> Partition | None:
    """The partition with this kernel name; None if there is none, or it is a whole device."""
    folder = Path(os.path.realpath(sysfs / "class/block" / name))
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


def partitions_of(disk: str, *, sysfs: Path = _SYSFS) -> Mapping[int, Partition]:
    """All partitions of the block device, by number."""
    names = (path.parent.name for path in (sysfs / "block" / disk).glob("*/partition"))
    found = (partition_of(name, sysfs=sysfs) for name in names)
    return {each.number: each for each in found if each}


def attribute(name: str, path: str, *, sysfs: Path = _SYSFS) -> str:
    """The sysfs attribute of a block device or partition; empty when there is none."""
    with suppress(OSError):
        return (sysfs / "class/block" / name / path).read_text("utf-8", "replace").strip()
    return ""


def holders_of(name: str, *, sysfs: Path = _SYSFS) -> list[str]:
    """What of device-mapper, md or bcache uses the block device or partition."""
    return sorted(path.name for path in (sysfs / "class/block" / name / "holders").glob("*"))


def _number(path: Path) -> int:
    return int(path.read_text("ascii"))
