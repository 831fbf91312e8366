"""Modifying volumes."""

from typing import Any

import pytest

from tests.sandbox.conftest import Rig, Start, refused


def modification(rig: Rig, volume_id: str) -> tuple[str, int]:
    """State and progress of the only modification."""
    answer = rig.ec2.describe_volumes_modifications(VolumeIds=[volume_id])
    (seen,) = answer["VolumesModifications"]
    return seen["ModificationState"], seen["Progress"]


def test_the_size_is_there_from_optimizing_on(start: Start) -> None:
    """modifying, optimizing with the new size, completed."""
    rig = start(modify_seconds=(2, 2), optimize_seconds=(30, 30))
    volume_id = rig.attached()
    answer = rig.ec2.modify_volume(VolumeId=volume_id, Size=20)["VolumeModification"]
    assert (answer["OriginalSize"], answer["TargetSize"]) == (10, 20)

    steps = [(0, "modifying", 10), (2, "optimizing", 20), (30, "completed", 20)]
    for seconds, state, size in steps:
        rig.control.advance(seconds)
        assert modification(rig, volume_id)[0] == state
        seen = rig.seen(volume_id)
        assert seen.size_gib == size
    assert modification(rig, volume_id) == ("completed", 100)


def test_a_volume_never_modified_has_no_modification(rig: Rig) -> None:
    """By id it is an error, in the list it is absent."""
    volume_id = rig.create()
    with refused("InvalidVolumeModification.NotFound"):
        modification(rig, volume_id)
    assert rig.ec2.describe_volumes_modifications()["VolumesModifications"] == []


def test_one_modification_at_a_time_and_four_a_day(start: Start) -> None:
    """A second modification must wait for the first, a fifth for the next day."""
    rig = start(optimize_seconds=(60, 60))
    volume_id = rig.create()
    rig.control.advance(1)
    for size in (11, 12, 13, 14):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=size)
        with refused("IncorrectModificationState"):
            rig.ec2.modify_volume(VolumeId=volume_id, Size=size + 1)
        rig.control.advance(61)
    with refused("VolumeModificationRateExceeded"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=15)
    rig.control.advance(24 * 3600)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=15)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Size": 9}, "InvalidParameterValue"),
        ({"Size": 10}, "InvalidParameterValue"),
        ({"Size": 70000}, "InvalidParameterValue"),
        ({"VolumeType": "io2"}, "MissingParameter"),
        ({"VolumeType": "st1"}, "InvalidParameterValue"),
        ({"Size": 101}, "VolumeLimitExceeded"),
    ],
)
def test_refuses_shapes_that_cannot_be(start: Start, changes: dict[str, Any], code: str) -> None:
    """A smaller size, no change, and violations of type or quota are refused."""
    rig = start(quota_gib=108)
    volume_id = rig.create()
    rig.control.advance(1)
    with refused(code):
        rig.ec2.modify_volume(VolumeId=volume_id, **changes)
