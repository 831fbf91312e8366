"""Whether metadata has room, and where it would go, follows from a reading alone."""

import pytest

from ebs_autoscale.filesystems.btrfs.metadata import (
    data_can_make_room,
    device_to_free,
    has_room,
    takes_next_chunk,
)
from ebs_autoscale.model import GIB, MIB, Device, Reading


def reading(*unallocated_mib: int, profile: str = "raid1", missing: bool = False) -> Reading:
    """Devices of 10 GiB each, named from `nvme1n1` on, the last one missing if asked for."""
    last = len(unallocated_mib)
    return Reading(
        filesystem="6a92",
        mountpoint="/scratch",
        taken_at_seconds=0,
        size_bytes=last * 10 * GIB,
        available_bytes=GIB,
        used_bytes=GIB,
        statvfs_available_bytes=GIB,
        metadata_headroom_bytes=GIB,
        metadata_profile=profile,
        devices=tuple(
            Device(
                devid=number,
                name=f"nvme{number}n1",
                size_bytes=10 * GIB,
                unallocated_bytes=mib * MIB,
                missing=missing and number == last,
            )
            for number, mib in enumerate(unallocated_mib, start=1)
        ),
    )


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (reading(0, 0, 9000), True),
        (reading(0, 255, 9000), True),
        (reading(0, 256, 9000), False),
        (reading(0, 0, 1000), False),
        (reading(0, 0, 0), False),
        (reading(0, 0, 9000, profile="dup"), False),
        (reading(0, 0, 9000, profile="single"), False),
        (reading(0, 9000, 9000, profile="raid1c3"), True),
        (reading(0, 9000, 9000, profile="raid1", missing=True), True),
    ],
)
def test_data_is_moved_for_mirrored_metadata(seen: Reading, *, expected: bool) -> None:
    """Data is moved when too few devices have room for mirrored metadata, and that would help."""
    assert data_can_make_room(seen, data_profile="single") is expected


def test_mirrored_data_cannot_make_room_by_itself() -> None:
    """Mirrored data cannot be moved to a single device with room."""
    assert not data_can_make_room(reading(0, 0, 9000), data_profile="raid1")


def test_frees_the_device_that_lacks_least() -> None:
    """Room is made on the device that lacks the least of it, and never on a missing one."""
    assert device_to_free(reading(10, 200, 9000)).name == "nvme2n1"
    assert device_to_free(reading(10, 9000, 200, missing=True)).name == "nvme1n1"


@pytest.mark.parametrize(
    ("profile", "expected"), [("single", True), ("dup", True), ("raid1", True), ("raid1c3", False)]
)
def test_room_is_needed_on_as_many_devices_as_copies(profile: str, *, expected: bool) -> None:
    """Metadata has room when as many devices have some as its profile needs."""
    assert has_room(reading(10, 300, 9000, profile=profile)) is expected


@pytest.mark.parametrize(
    ("seen", "takes"),
    [
        (reading(100, 9000, profile="dup"), True),
        (reading(9500, 9000, profile="dup"), False),
        (reading(9000, 9000, profile="dup"), False),
        (reading(0, 200, profile="dup"), False),
        (reading(9500, 9000, profile="raid1"), True),
        (reading(9500, 9500, 9000, profile="raid1"), False),
    ],
)
def test_the_next_chunk_goes_where_most_room_is(seen: Reading, *, takes: bool) -> None:
    """The newest device takes the next metadata chunk only when it has the most room."""
    assert takes_next_chunk(seen, seen.devices[-1].name) is takes


def test_another_device_takes_nothing() -> None:
    """A block device that is not in the filesystem takes no metadata."""
    assert not takes_next_chunk(reading(9000), "nvme9n1")
