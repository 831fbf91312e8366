"""How much BTRFS can still store: the arithmetic of chunks, profiles and reservations. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ebs_autoscale.model import GIB, MIB

# The kernel never allocates the first MiB of a device.
_DEVICE_RESERVED_BYTES = MIB
# Chunk sizes of the kernel's regular allocation policy: fs/btrfs/volumes.c,
# init_alloc_chunk_ctl_policy_regular and decide_stripe_size_regular.
_SMALL_FILESYSTEM_BYTES = 50 * GIB
_LARGEST_SHARE_OF_FILESYSTEM = 10
_CHUNK_ROUNDING_BYTES = 16 * MIB
DATA_CHUNK_BYTES = GIB
# A metadata chunk is allocated once 80 % of the existing ones, less 2 MiB, are used:
# fs/btrfs/block-group.c, should_alloc_chunk.
_METADATA_FULL_SHARE = 0.8
_METADATA_FULL_SLACK_BYTES = 2 * MIB
# Programs get ENOSPC while this much metadata is still free (measured: 3.73 MiB in every case).
_METADATA_UNUSABLE_BYTES = 4 * MIB
# Lasts for half a second at 30 MB/s, the highest measured rate of writers of small files; an add
# takes a tenth of that. A small reserve holds a quarter of its data, which on 1 GiB still exceeds
# the metadata that mkfs allocated, so that the kernel has to allocate a regular chunk.
_RESERVE_METADATA_MOST_BYTES = 16 * MIB
_RESERVE_METADATA_SHARE = 4
# `mkfs.btrfs -m single` allocates one metadata chunk of 8 MiB. When a fast buffered writer makes
# data chunks take all unallocated space before metadata gets its next chunk, ENOSPC comes with up
# to 2.5 data chunks free (measured on 6.18, 5 layouts); with fsync it rarely does. This cannot be
# predicted, so the worse case is assumed until the emergency reserve has caused that chunk.
_FIRST_METADATA_CHUNK_BYTES = 16 * MIB
_DATA_CHUNKS_AHEAD = 3
# Metadata of new file content: 4 bytes of crc32c for each 4 KiB, and half as much again for
# half-filled leaves and extent items.
_METADATA_PER_DATA = 1.5 * 4 / 4096


@dataclass(frozen=True, slots=True)
class Profile:
    """How a chunk is laid out: `copies` of each byte, plus the space of `parity` devices.

    With `spread`, the copies are on different devices.
    """

    copies: int = 1
    spread: bool = False
    parity: int = 0

    @property
    def least_devices(self) -> int:
        """How many devices have to have room for another chunk (raid10 and raid0: Linux 5.15)."""
        return self.parity + 1 if self.parity else self.copies if self.spread else 1

    def allocatable_bytes(self, unallocated_bytes: Sequence[int]) -> int:
        """How much content fits in new chunks, given the unallocated bytes of each device."""
        by_size = sorted(unallocated_bytes, reverse=True)
        if self.parity:
            # Exact for devices of equal size, otherwise too low.
            return sum(by_size[self.parity :])
        if not self.spread:
            return sum(by_size) // self.copies
        # Of c copies, k can be on the k largest devices; the others have to fit on the rest.
        return min(sum(by_size[k:]) // (self.copies - k) for k in range(self.copies))


# In the order in which the kernel chooses among several, which an interrupted convert leaves:
# fs/btrfs/block-group.c, btrfs_reduce_alloc_profile.
PROFILES = {
    "raid1c4": Profile(copies=4, spread=True),
    "raid6": Profile(parity=2),
    "raid1c3": Profile(copies=3, spread=True),
    "raid5": Profile(parity=1),
    "raid10": Profile(copies=2, spread=True),
    "raid1": Profile(copies=2, spread=True),
    "dup": Profile(copies=2),
    "raid0": Profile(),
    "single": Profile(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocated:
    """The chunks of one kind (data, metadata or mixed), as the kernel's space_info counts them.

    `global_reserve_bytes` is metadata that only the kernel itself may use.
    """

    profile: str
    total_bytes: int
    used_bytes: int
    pinned_bytes: int
    reserved_bytes: int
    may_use_bytes: int
    readonly_bytes: int
    global_reserve_bytes: int = 0


def unallocated_bytes(*, size_bytes: int, allocated_bytes: int) -> int:
    """What new chunks can use of a device, whose size is 0 while it is being removed."""
    return max(0, size_bytes - allocated_bytes - _DEVICE_RESERVED_BYTES)


def metadata_chunk_bytes(filesystem_bytes: int) -> int:
    """The size of one copy of the next metadata chunk in a filesystem of this raw size."""
    chunk = 256 * MIB if filesystem_bytes <= _SMALL_FILESYSTEM_BYTES else GIB
    return min(chunk, _tenth(filesystem_bytes))


def data_chunk_bytes(filesystem_bytes: int) -> int:
    """The size of the next data chunk in a filesystem of this raw size."""
    return min(DATA_CHUNK_BYTES, _tenth(filesystem_bytes))


def available_bytes(
    data: Allocated,
    metadata: Allocated,
    unallocated: Sequence[int],
    *,
    filesystem_bytes: int,
    lost_bytes: int = 0,
) -> int:
    """What programs can still write, never negative.

    Free space in data chunks, minus reserved and dirty bytes, plus unallocated space, minus the
    metadata chunks that so much content will need; at most what metadata can account for.
    `lost_bytes` is allocated on devices that were torn off; it is assumed to be all free data.
    """
    kept = data.used_bytes + data.reserved_bytes + data.may_use_bytes + data.readonly_bytes
    free = data.total_bytes - kept
    profile = PROFILES[data.profile]
    available = free - min(lost_bytes, max(0, free)) + profile.allocatable_bytes(unallocated)
    if data is metadata:
        return max(0, available)
    to_come = _metadata_to_come_bytes(metadata, available, filesystem_bytes)
    unusable = min(profile.allocatable_bytes(unallocated), to_come // profile.copies)
    if to_come and metadata.total_bytes < _FIRST_METADATA_CHUNK_BYTES:
        unusable = max(unusable, _DATA_CHUNKS_AHEAD * data_chunk_bytes(filesystem_bytes))
    available -= unusable
    # Without `pinned` and `reserved`, which every transaction takes and returns.
    room = metadata.total_bytes - metadata.used_bytes - metadata.global_reserve_bytes
    room += PROFILES[metadata.profile].allocatable_bytes(unallocated) - _METADATA_UNUSABLE_BYTES
    return max(0, min(available, int(room / _METADATA_PER_DATA)))


def metadata_headroom_bytes(metadata: Allocated, unallocated: Sequence[int]) -> int:
    """What metadata can still take, never negative; ENOSPC comes at 3.7 MiB (measured)."""
    kept = metadata.used_bytes + metadata.reserved_bytes + metadata.pinned_bytes
    kept += metadata.readonly_bytes + metadata.global_reserve_bytes
    allocatable = PROFILES[metadata.profile].allocatable_bytes(unallocated)
    return max(0, metadata.total_bytes - kept + allocatable)


def reserve_metadata_bytes(data_bytes: int) -> int:
    """How much metadata an emergency reserve of this much data holds, counting one copy."""
    return min(_RESERVE_METADATA_MOST_BYTES, data_bytes // _RESERVE_METADATA_SHARE)


def _metadata_to_come_bytes(metadata: Allocated, content_bytes: int, filesystem_bytes: int) -> int:
    """Raw bytes of the metadata chunks that this much new content will need."""
    used = metadata.used_bytes + _METADATA_PER_DATA * content_bytes
    enough = max(
        (used + _METADATA_FULL_SLACK_BYTES) / _METADATA_FULL_SHARE,
        used + metadata.global_reserve_bytes + _METADATA_UNUSABLE_BYTES,
    )
    chunk = metadata_chunk_bytes(filesystem_bytes)
    chunks = max(0, math.ceil((enough - metadata.total_bytes) / chunk))
    return chunks * chunk * PROFILES[metadata.profile].copies


def _tenth(filesystem_bytes: int) -> int:
    # Without a device that can be written there is no next chunk, and no size of 0 to divide by.
    tenth = max(1, filesystem_bytes // _LARGEST_SHARE_OF_FILESYSTEM)
    return -(-tenth // _CHUNK_ROUNDING_BYTES) * _CHUNK_ROUNDING_BYTES
