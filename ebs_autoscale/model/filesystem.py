"""A look at the filesystem: its devices, its space."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from ebs_autoscale.model.sizes import MIB

# mkfs.btrfs and a resize leave less than a sector group; a volume is enlarged by GiB.
SLACK_BYTES = 64 * MIB


class FilesystemKind(StrEnum):
    """The kinds of filesystems that can be grown while mounted, as mount(8) names them."""

    BTRFS = "btrfs"
    XFS = "xfs"
    EXT4 = "ext4"

    @property
    def takes_devices(self) -> bool:
        """Whether devices can be added; else it grows with the one that it has."""
        return self is FilesystemKind.BTRFS


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the filesystem, as the kernel sees it now.

    `name` is the kernel's name of the whole block device (`nvme1n1`), empty when it is not known,
    `partition` that of the partition which holds the filesystem, empty when the whole device does.
    `size_bytes` counts from the start of the block device to the end of the filesystem on it.
    `missing` is whether the kernel has no such block device any more, `writable` whether it
    allocates chunks on it: not on a seed device. `errors` counts failed writes, reads and flushes,
    corrupted blocks, and blocks of another generation, in this order. `capacity_bytes` is the size
    of the block device, 0 when it is not known.
    """

    devid: int
    name: str
    size_bytes: int
    unallocated_bytes: int
    missing: bool = False
    writable: bool = True
    errors: tuple[int, ...] = ()
    capacity_bytes: int = 0
    partition: str = ""

    @property
    def label(self) -> str:
        """The kernel's name, or the devid if there is none."""
        return self.name or f"devid {self.devid}"

    @property
    def unused_bytes(self) -> int:
        """How much of its block device, which became larger, the filesystem does not use."""
        left = 0 if self.missing else self.capacity_bytes - self.size_bytes
        return left if left >= SLACK_BYTES else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit of a quota group (`0/256`) of BTRFS; programs get EDQUOT when nothing is left."""

    qgroup: str
    limit_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inodes:
    """How many inodes a filesystem can have at its size, and how many are left."""

    total: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the filesystem; valid for the moment it was taken.

    `available_bytes` is what programs can still write: free space in allocated
    data chunks, minus what is reserved or dirty, plus what can still be allocated.
    `used_bytes` is what they have written or reserved, dirty bytes included; a growth
    does not change it.
    `dirty_bytes` of these wait in the page cache; it takes up to `cache_bytes` of all filesystems
    before it makes writers wait for the devices.
    `statvfs_available_bytes` is the figure `df` shows, up to 38 s late under buffered writes.
    `metadata_headroom_bytes` is what metadata can still take; ENOSPC comes near 4 MiB. It is None,
    and `metadata_profile` empty, where metadata takes the space that data does.
    `reserve_bytes` is the data held for emergencies: it counts as used, never as available.
    `inodes` is None where they cannot run out before space does.
    `quota` is the limit, other than space, that is nearest; None without one.
    `reserve_fault` is why the file of the reserve's name holds none, empty when there is no file.
    """

    filesystem: str
    mountpoint: str
    taken_at_seconds: float
    size_bytes: int
    available_bytes: int
    used_bytes: int
    statvfs_available_bytes: int
    metadata_headroom_bytes: int | None
    metadata_profile: str
    devices: tuple[Device, ...]
    kind: FilesystemKind = FilesystemKind.BTRFS
    inodes: Inodes | None = None
    dirty_bytes: int = 0
    cache_bytes: int = 0
    reserve_bytes: int = 0
    quota: Quota | None = None
    reserve_fault: str = ""

    @property
    def available_percent(self) -> float:
        """Share of the filesystem's size that is available, 0 to 100."""
        return 100 * self.available_bytes / self.size_bytes if self.size_bytes else 0.0

    @property
    def metadata_room_bytes(self) -> float:
        """What metadata can still take; infinite where it takes the space that data does."""
        headroom_bytes = self.metadata_headroom_bytes
        return inf if headroom_bytes is None else headroom_bytes

    @property
    def unallocated_bytes(self) -> int | None:
        """What is in no chunk yet, on the devices that are present; None where there are none."""
        if not self.kind.takes_devices:
            return None
        return sum(each.unallocated_bytes for each in self.devices if not each.missing)

    def has_device(self, name: str) -> bool:
        """Whether the block device with this kernel name is in the filesystem now."""
        return any(device.name == name and not device.missing for device in self.devices)


class Rebalance(StrEnum):
    """What to balance after an add: the least that protects metadata, all metadata, or nothing."""

    BOUNDED = "bounded"
    FULL = "full"
    OFF = "off"
