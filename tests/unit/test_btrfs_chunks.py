"""The arithmetic of chunks and profiles, without a kernel."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.filesystems.btrfs.chunks import (
    PROFILES,
    Allocated,
    available_bytes,
    data_chunk_bytes,
    metadata_chunk_bytes,
    metadata_headroom_bytes,
    unallocated_bytes,
)

MIB = 1024**2
GIB = 1024**3
EMPTY = Allocated(
    profile="single",
    total_bytes=0,
    used_bytes=0,
    pinned_bytes=0,
    reserved_bytes=0,
    may_use_bytes=0,
    readonly_bytes=0,
)
DATA = replace(EMPTY, total_bytes=10 * GIB, used_bytes=4 * GIB)
METADATA = replace(EMPTY, profile="dup", total_bytes=GIB, used_bytes=100 * MIB)
UNALLOCATED = st.lists(st.integers(0, 100 * GIB), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("profile", "unallocated", "expected"),
    [
        ("single", [3, 5], 8),
        ("raid0", [3, 5], 8),
        ("dup", [3, 5], 4),
        ("raid1", [8, 0], 0),
        ("raid1", [8, 3], 3),
        ("raid1", [4, 3, 3], 5),
        ("raid1c3", [9, 9, 2], 2),
        ("raid1c3", [3, 3, 3], 3),
        ("raid5", [4, 4, 4], 8),
        ("raid6", [4, 4, 4], 4),
    ],
)
def test_what_fits_in_new_chunks(profile: str, unallocated: list[int], expected: int) -> None:
    """Copies on different devices are limited by the smaller devices."""
    assert PROFILES[profile].allocatable_bytes(unallocated) == expected


@given(UNALLOCATED, st.sampled_from(sorted(PROFILES)))
def test_never_more_than_there_is(unallocated: list[int], profile: str) -> None:
    """No profile fits more content than there is space, and another device never fits less."""
    fits = PROFILES[profile].allocatable_bytes(unallocated)
    assert 0 <= fits * PROFILES[profile].copies <= sum(unallocated)
    assert PROFILES[profile].allocatable_bytes([*unallocated, GIB]) >= fits


def test_available_is_free_and_unallocated() -> None:
    """Free space in data chunks and unallocated space are available."""
    assert available_bytes(DATA, METADATA, [5 * GIB], filesystem_bytes=40 * GIB) == 11 * GIB


@pytest.mark.parametrize(
    "data",
    [
        replace(DATA, reserved_bytes=GIB),
        replace(DATA, may_use_bytes=GIB),
        replace(DATA, readonly_bytes=GIB),
    ],
)
def test_what_is_promised_is_not_available(data: Allocated) -> None:
    """Dirty, reserved and read-only bytes are not available."""
    assert available_bytes(data, METADATA, [5 * GIB], filesystem_bytes=40 * GIB) == 10 * GIB


def test_metadata_to_come_is_not_available() -> None:
    """Unallocated space that metadata will need, twice for dup, is not available."""
    metadata = replace(METADATA, used_bytes=900 * MIB)
    available = available_bytes(DATA, metadata, [100 * GIB], filesystem_bytes=200 * GIB)
    assert available == 106 * GIB - 2 * GIB


@pytest.mark.parametrize(("metadata_mib", "kept_mib"), [(8, 3 * 112), (32, 0)])
def test_a_first_metadata_chunk_may_be_the_last(metadata_mib: int, kept_mib: int) -> None:
    """While metadata is what `mkfs -m single` allocated, three data chunks do not count."""
    metadata = replace(
        EMPTY, total_bytes=metadata_mib * MIB, global_reserve_bytes=5 * MIB, used_bytes=MIB
    )
    data = replace(EMPTY, total_bytes=8 * MIB)
    available = available_bytes(data, metadata, [1000 * MIB], filesystem_bytes=GIB)
    assert available == (1008 - kept_mib) * MIB


@pytest.mark.parametrize(("room_mib", "expected"), [(-2, 0), (3, 2 * GIB), (100, 6 * GIB)])
def test_metadata_limits_the_available_space(room_mib: int, expected: int) -> None:
    """Without unallocated space, metadata limits the available space."""
    used_bytes = GIB - (room_mib + 10) * MIB  # 6 MiB are the kernel's, 4 MiB unusable
    metadata = replace(METADATA, used_bytes=used_bytes, global_reserve_bytes=6 * MIB)
    assert available_bytes(DATA, metadata, [0], filesystem_bytes=20 * GIB) == expected


@given(UNALLOCATED, st.integers(0, 20 * GIB), st.integers(0, 2 * GIB))
def test_neither_figure_is_ever_negative(unallocated: list[int], used: int, may_use: int) -> None:
    """An overcommitted filesystem has 0 bytes available."""
    data = replace(DATA, used_bytes=used, may_use_bytes=may_use)
    metadata = replace(METADATA, used_bytes=GIB, global_reserve_bytes=may_use)
    assert available_bytes(data, metadata, unallocated, filesystem_bytes=40 * GIB) >= 0
    assert metadata_headroom_bytes(metadata, [0]) >= 0


def test_headroom_leaves_the_kernel_its_reserve() -> None:
    """Headroom excludes the global reserve, pinned and reserved bytes; dup takes twice."""
    metadata = replace(
        METADATA, global_reserve_bytes=512 * MIB, pinned_bytes=MIB, reserved_bytes=MIB
    )
    headroom = metadata_headroom_bytes(metadata, [2 * GIB])
    assert headroom == GIB - 100 * MIB - 514 * MIB + GIB


def test_devices_keep_their_first_mebibyte() -> None:
    """The kernel allocates all but 1 MiB, and nothing on a device that is being removed."""
    assert unallocated_bytes(size_bytes=GIB, allocated_bytes=MIB) == 1022 * MIB
    assert unallocated_bytes(size_bytes=0, allocated_bytes=GIB) == 0


def test_chunks_grow_with_the_filesystem() -> None:
    """Chunks are a tenth of a small filesystem and have a fixed size in a large one."""
    assert metadata_chunk_bytes(GIB) == data_chunk_bytes(GIB) == 112 * MIB
    assert metadata_chunk_bytes(20 * GIB) == 256 * MIB
    assert metadata_chunk_bytes(51 * GIB) == data_chunk_bytes(51 * GIB) == GIB
