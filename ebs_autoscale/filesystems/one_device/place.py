"""Where a filesystem lies: its block device, and the disk of which that may be a partition."""

import os
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.mounted import shown
from ebs_autoscale.host.mountinfo import Mount
from ebs_autoscale.host.partitions import Partition, partition_of
from ebs_autoscale.model import SYSFS_SECTOR_BYTES

_NUMBERS = "/sys/dev/block"
# The beginning of dm/uuid says who made a mapping.
_MAPPERS = {"LVM-": "an LVM volume", "CRYPT-": "encrypted by dm-crypt", "mpath-": "multipath"}
_ENLARGE_YOURSELF = (
    "only a filesystem directly on an EBS volume, or on a partition of one, can be grown: "
    "enlarge this one with the tools of its layers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The block device of a mount, by kernel names; without a partition it is the whole disk."""

    disk: str
    partition: Partition | None
    folder: str

    @property
    def name(self) -> str:
        """The block device that the filesystem is on."""
        return self.partition.name if self.partition else self.disk

    @property
    def start_bytes(self) -> int:
        """Where on the disk it begins."""
        return self.partition.start_bytes if self.partition else 0

    @property
    def disk_bytes(self) -> int:
        """The size of the whole disk now; 0 once it is gone."""
        return _size_in(os.path.dirname(self.folder) if self.partition else self.folder)  # noqa: PTH120 -- runs each tick

    @property
    def bytes(self) -> int:
        """The size of the block device of the filesystem now; 0 once it is gone."""
        return _size_in(self.folder)


def place_of(mount: Mount) -> Place:
    """Where this mount's filesystem lies; raises Unfit where nothing could be grown."""
    folder = os.path.realpath(f"{_NUMBERS}/{mount.device}")
    partition = partition_of(Path(folder).name)
    disk = Path(folder).parent if partition else Path(folder)
    if not Path(folder, "size").exists():
        raise Unfit(
            f"the device of {shown(mount.point)} ({mount.source}) is gone",
            hint="unmount the filesystem, attach the volume again, and mount it",
            cause=Cause.MISSING_DEVICE,
        )
    if layer := layer_of(disk):
        raise Unfit(
            f"{shown(mount.point)} is on {disk.name}, which is {layer}",
            hint=_ENLARGE_YOURSELF,
            cause=Cause.NOT_GROWABLE,
        )
    return Place(
        disk=disk.name,
        partition=partition,
        folder=folder,
    )


def layer_of(disk: Path) -> str:
    """What lies between this block device and the disk; empty where nothing does."""
    beneath = sorted(path.name for path in disk.glob("slaves/*"))
    on = f" on {', '.join(beneath)}" if beneath else ""
    if (disk / "dm").is_dir():
        uuid = (disk / "dm/uuid").read_text("utf-8", "replace")
        made = (what for start, what in _MAPPERS.items() if uuid.startswith(start))
        return next(made, "a mapping of the device mapper") + on
    if (disk / "md").is_dir():
        return f"an array of md{on}"
    return f"a layer{on}" if on else ""


def _size_in(folder: str) -> int:
    return int(text_of(f"{folder}/size") or 0) * SYSFS_SECTOR_BYTES


def text_of(path: str) -> bytes:
    """What a small file of the kernel says; empty when there is none. Runs each tick."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, 4096, 0)
        finally:
            os.close(fd)
    except OSError:
        return b""
