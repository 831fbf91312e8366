"""Whether metadata is in danger, and where it would go, is judged from a reading alone."""

import pytest

from ebs_autoscale.filesystems.btrfs.metadata import (
    device_to_relieve,
    devices_with_room,
    has_starved_metadata,
    takes_next_metadata,
)
from ebs_autoscale.model import GIB, Device, Reading

MIB = 1024**2


def reading(*unallocated_mib: int, profile: str = "raid1", missing: bool = False) -> Reading:
    """Members of 10 GiB each, `nvme1n1` and on, the last one missing if asked for."""
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
    ("seen", "starved"),
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
def test_metadata_starves_with_room_on_too_few(seen: Reading, *, starved: bool) -> None:
    """Mirrored metadata starves when too few devices have room, and moving data can help."""
    assert has_starved_metadata(seen, data_profile="single") is starved


def test_mirrored_data_cannot_make_room_by_itself() -> None:
    """Data that needs two devices with room itself cannot move to one: nothing to be done."""
    assert not has_starved_metadata(reading(0, 0, 9000), data_profile="raid1")


def test_relieves_the_member_that_misses_least() -> None:
    """The cheapest room is made where some is already, and never on a missing device."""
    assert device_to_relieve(reading(10, 200, 9000)).name == "nvme2n1"
    assert device_to_relieve(reading(10, 9000, 200, missing=True)).name == "nvme1n1"
    assert devices_with_room(reading(10, 200, 9000)) == 1


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
    assert takes_next_metadata(seen, seen.devices[-1].name) is takes


def test_a_stranger_takes_nothing() -> None:
    """What is no device takes no metadata."""
    assert not takes_next_metadata(reading(9000), "nvme9n1")
