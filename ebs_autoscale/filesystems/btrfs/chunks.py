"""What BTRFS can still take: the arithmetic of chunks, profiles and reservations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1024**2
GIB = 1024**3

# The kernel never allocates the first MiB of a device.
_DEVICE_RESERVED_BYTES = MIB
# Chunk sizes of the kernel's regular allocation policy (fs/btrfs/volumes.c,
# init_alloc_chunk_ctl_policy_regular and decide_stripe_size_regular).
_SMALL_FILESYSTEM_BYTES = 50 * GIB
_LARGEST_SHARE_OF_FILESYSTEM = 10
_CHUNK_ROUNDING_BYTES = 16 * MIB
DATA_CHUNK_BYTES = GIB
# A metadata chunk is added once 80 % of the present ones, less 2 MiB, are used
# (fs/btrfs/block-group.c, should_alloc_chunk).
_METADATA_FULL_SHARE = 0.8
_METADATA_FULL_SLACK_BYTES = 2 * MIB
# Ordinary writers get ENOSPC with so much metadata free (measured: 3.73 MiB in each case).
_METADATA_LOST_BYTES = 4 * MIB
# Small-file writers burn 30 MB of metadata a second (measured): half a second, of which
# an add needs a tenth. Small reserves have a quarter of their data: on 1 GiB that is still
# what mkfs made for metadata, so that taking it has the kernel make the first real chunk.
_RESERVE_METADATA_MOST_BYTES = 16 * MIB
_RESERVE_METADATA_SHARE = 4
# `mkfs.btrfs -m single` begins with one metadata chunk of 8 MiB. When a fast buffered writer
# has data chunks take all that is unallocated before metadata gets its next one, ENOSPC
# comes with up to 2.5 data chunks free (measured on 6.18, 5 layouts); under fsync it mostly
# does not. Which it will be nobody can tell, so the worse is read, until the emergency
# reserve has made that chunk.
_FIRST_METADATA_CHUNK_BYTES = 16 * MIB
_DATA_CHUNKS_AHEAD = 3
# Metadata that new file content brings with it: 4 bytes of crc32c for each 4 KiB,
# and half as much again for half-filled leaves and extent items.
_METADATA_PER_DATA = 1.5 * 4 / 4096


@dataclass(frozen=True, slots=True)
class Profile:
    """How chunks of this kind lie on devices: `copies` of each byte, on `parity` devices more.

    With `spread`, the copies must lie on different devices.
    """

    copies: int = 1
    spread: bool = False
    parity: int = 0

    @property
    def least_devices(self) -> int:
        """How many devices need room for one more chunk; raid10 and raid0 as of Linux 5.15."""
        return self.parity + 1 if self.parity else self.copies if self.spread else 1

    def allocatable_bytes(self, unallocated_bytes: Sequence[int]) -> int:
        """How much content fits in new chunks, given each device's unallocated bytes."""
        by_size = sorted(unallocated_bytes, reverse=True)
        if self.parity:
            # Exact for devices of one size, else on the safe side.
            return sum(by_size[self.parity :])
        if not self.spread:
            return sum(by_size) // self.copies
        # Whatever the k largest devices have beyond the rest is of no use to c - k copies.
        return min(sum(by_size[k:]) // (self.copies - k) for k in range(self.copies))


# In the order in which the kernel chooses when, after an interrupted convert, there are
# several (fs/btrfs/block-group.c, btrfs_reduce_alloc_profile).
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

    `global_reserve_bytes` is what of the metadata only the kernel itself may use.
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
    """What new chunks can take of one device; its size is 0 while it is being removed."""
    return max(0, size_bytes - allocated_bytes - _DEVICE_RESERVED_BYTES)


def metadata_chunk_bytes(filesystem_bytes: int) -> int:
    """The size of the next metadata chunk, one copy of it, in a filesystem of this raw size."""
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
) -> int:
    """What programs can still write, never negative.

    Free space in data chunks, less what is reserved or dirty, plus what can become data
    chunks: that is everything unallocated but the metadata chunks that so much content makes
    necessary; and no more than metadata can keep book of.
    """
    kept = data.used_bytes + data.reserved_bytes + data.may_use_bytes + data.readonly_bytes
    profile = PROFILES[data.profile]
    available = data.total_bytes - kept + profile.allocatable_bytes(unallocated)
    if data is metadata:
        return max(0, available)
    to_come = _metadata_to_come_bytes(metadata, available, filesystem_bytes)
    unusable = min(profile.allocatable_bytes(unallocated), to_come // profile.copies)
    if to_come and metadata.total_bytes < _FIRST_METADATA_CHUNK_BYTES:
        unusable = max(unusable, _DATA_CHUNKS_AHEAD * data_chunk_bytes(filesystem_bytes))
    available -= unusable
    # Without `pinned` and `reserved`: they swing with each transaction and come back.
    room = metadata.total_bytes - metadata.used_bytes - metadata.global_reserve_bytes
    room += PROFILES[metadata.profile].allocatable_bytes(unallocated) - _METADATA_LOST_BYTES
    return max(0, min(available, int(room / _METADATA_PER_DATA)))


def metadata_headroom_bytes(metadata: Allocated, unallocated: Sequence[int]) -> int:
    """What metadata can still take, never negative; ENOSPC comes at 3.7 MiB (measured)."""
    kept = metadata.used_bytes + metadata.reserved_bytes + metadata.pinned_bytes
    kept += metadata.readonly_bytes + metadata.global_reserve_bytes
    allocatable = PROFILES[metadata.profile].allocatable_bytes(unallocated)
    return max(0, metadata.total_bytes - kept + allocatable)


def reserve_metadata_bytes(data_bytes: int) -> int:
    """What an emergency reserve of this much data holds of metadata besides, one copy of it."""
    return min(_RESERVE_METADATA_MOST_BYTES, data_bytes // _RESERVE_METADATA_SHARE)


def _metadata_to_come_bytes(metadata: Allocated, content_bytes: int, filesystem_bytes: int) -> int:
    """Raw bytes of the metadata chunks that this much new content will need."""
    used = metadata.used_bytes + _METADATA_PER_DATA * content_bytes
    enough = max(
        (used + _METADATA_FULL_SLACK_BYTES) / _METADATA_FULL_SHARE,
        used + metadata.global_reserve_bytes + _METADATA_LOST_BYTES,
    )
    chunk = metadata_chunk_bytes(filesystem_bytes)
    chunks = max(0, math.ceil((enough - metadata.total_bytes) / chunk))
    return chunks * chunk * PROFILES[metadata.profile].copies


def _tenth(filesystem_bytes: int) -> int:
    tenth = filesystem_bytes // _LARGEST_SHARE_OF_FILESYSTEM
    return -(-tenth // _CHUNK_ROUNDING_BYTES) * _CHUNK_ROUNDING_BYTES
