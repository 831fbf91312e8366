"""Modifying volumes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import HTTPClientError
from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.faults import FaultKind, FaultRule

from tests.sandbox.conftest import Rig, Start, refused

DAY = 24 * 3600


def available(rig: Rig, **changes: Any) -> str:
    """An available volume."""
    volume_id = rig.create(**changes)
    rig.control.advance(1)
    return volume_id


def modification(rig: Rig, volume_id: str) -> dict[str, Any]:
    """The last modification, by the id of its volume."""
    answer = rig.ec2.describe_volumes_modifications(VolumeIds=[volume_id])
    (seen,) = answer["VolumesModifications"]
    return dict(seen)


def shown_gib(rig: Rig, volume_id: str) -> int:
    """The size by DescribeVolumes."""
    return rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Size"]


@pytest.mark.parametrize("make", [Rig.attached, available])
def test_the_size_is_there_from_optimizing_on(start: Start, make: Callable[[Rig], str]) -> None:
    """modifying, optimizing with the new size, completed; in use or available."""
    rig = start(modify_seconds=(2, 2), optimize_seconds=(DAY, DAY))
    volume_id = make(rig)
    answer = rig.ec2.modify_volume(VolumeId=volume_id, Size=20)["VolumeModification"]
    assert (answer["OriginalSize"], answer["TargetSize"]) == (10, 20)
    assert (answer["ModificationState"], answer["Progress"]) == ("modifying", 0)

    steps = [
        (0, "modifying", 10, 0),
        (2, "optimizing", 20, 0),
        (DAY / 2, "optimizing", 20, 50),
        (DAY / 2, "completed", 20, 100),
    ]
    for seconds, state, size, percent in steps:
        rig.control.advance(seconds)
        seen = modification(rig, volume_id)
        assert (seen["ModificationState"], seen["Progress"]) == (state, percent)
        assert ("EndTime" in seen) == (state == "completed")
        assert (shown_gib(rig, volume_id), rig.seen(volume_id).size_gib) == (size, size)


@pytest.mark.parametrize(
    ("size_seconds", "steps"),
    [
        (-5, [("modifying", 20, 10), ("completed", 20, 20)]),
        (5, [("modifying", 10, 10), ("completed", 10, 20), ("completed", 20, 20)]),
    ],
)
def test_a_new_size_may_be_shown_early_or_late(
    start: Start, size_seconds: float, steps: list[tuple[str, int, int]]
) -> None:
    """What DescribeVolumes shows may be ahead of what the volume has, or behind it."""
    rig = start(modify_seconds=(2, 2), size_seconds=(size_seconds, size_seconds))
    volume_id = available(rig)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    for state, shown, there in steps:
        assert modification(rig, volume_id)["ModificationState"] == state
        assert (shown_gib(rig, volume_id), rig.seen(volume_id).size_gib) == (shown, there)
        rig.control.advance(5)


def test_a_volume_never_modified_has_no_modification(rig: Rig) -> None:
    """By id it is an error, in the list it is absent; an unknown volume is another error."""
    volume_id = rig.create()
    with refused("InvalidVolumeModification.NotFound", saying=f"volume '{volume_id}' does not"):
        modification(rig, volume_id)
    assert rig.ec2.describe_volumes_modifications()["VolumesModifications"] == []
    with refused("InvalidVolume.NotFound"):
        modification(rig, "vol-0123456789abcdef0")


def test_a_modification_is_visible_later(start: Start) -> None:
    """Until then it is not found, or the one before it is; another one is refused all the same."""
    rig = start(visibility_seconds=(5, 5))
    volume_id = rig.create()
    rig.control.advance(6)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=11)
    with refused("InvalidVolumeModification.NotFound"):
        modification(rig, volume_id)
    rig.control.advance(5)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=12)
    assert modification(rig, volume_id)["TargetSize"] == 11
    rig.control.advance(5)
    assert modification(rig, volume_id)["TargetSize"] == 12


def test_finds_modifications_by_filter(rig: Rig) -> None:
    """A filter finds those that match, and no error says that there are none."""
    volumes = [available(rig) for _ in range(3)]
    for volume_id, size in zip(volumes, (11, 12), strict=False):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=size)

    def found(name: str, *values: str) -> list[str]:
        answer = rig.ec2.describe_volumes_modifications(
            Filters=[{"Name": name, "Values": list(values)}]
        )
        return [each["VolumeId"] for each in answer["VolumesModifications"]]

    assert found("volume-id", *volumes) == volumes[:2]
    assert found("target-size", "12") == volumes[1:2]
    assert found("modification-state", "optimizing") == []


def test_one_modification_at_a_time_and_four_a_day(start: Start) -> None:
    """A second modification must wait for the first, a fifth for a day after the first."""
    rig = start(modify_seconds=(1, 1), optimize_seconds=(3600, 3600))
    volume_id = available(rig)
    for size in (11, 12, 13, 14):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=size)
        with refused("IncorrectModificationState", saying="in modification state MODIFYING"):
            rig.ec2.modify_volume(VolumeId=volume_id, Size=size + 1)
        rig.control.advance(1)
        with refused("IncorrectModificationState", saying="in modification state OPTIMIZING"):
            rig.ec2.modify_volume(VolumeId=volume_id, Size=size + 1)
        rig.control.advance(3600)
    with refused("VolumeModificationRateExceeded", saying="maximum modification rate per volume"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=15)
    created_at = rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["CreateTime"]
    possible_at = created_at + timedelta(days=1, seconds=1)
    with refused("VolumeModificationRateExceeded", saying=f"{possible_at:%Y-%m-%dT%H:%M:%SZ}"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=15)
    rig.control.advance(DAY - 4 * 3601)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=15)


def test_the_allowance_can_be_that_of_before(start: Start) -> None:
    """One modification in six hours, as EC2 had it until 2026."""
    rig = start(modifications=1, modifications_seconds=6 * 3600)
    volume_id = available(rig)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=11)
    rig.control.advance(6 * 3600 - 1)
    with refused("VolumeModificationRateExceeded"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=12)
    rig.control.advance(1)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=12)


def test_what_changes_nothing_counts(start: Start) -> None:
    """The present size is accepted, and the allowance has one less."""
    rig = start(modifications=1)
    volume_id = available(rig)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=10)
    rig.control.advance(1)
    with refused("VolumeModificationRateExceeded"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=20)


def test_performance_is_kept_or_that_of_the_type(rig: Rig) -> None:
    """What is not named is kept; with a new type it is the default of that."""
    volume_id = available(rig, Iops=4000, Throughput=250)
    answer = rig.ec2.modify_volume(VolumeId=volume_id, Size=20)["VolumeModification"]
    assert (answer["TargetIops"], answer["TargetThroughput"]) == (4000, 250)
    rig.control.advance(1)
    answer = rig.ec2.modify_volume(VolumeId=volume_id, VolumeType="io2")["VolumeModification"]
    assert (answer["OriginalSize"], answer["TargetSize"]) == (20, 20)
    assert (answer["TargetIops"], "TargetThroughput" in answer) == (3000, False)
    rig.control.advance(1)
    answer = rig.ec2.modify_volume(VolumeId=volume_id, VolumeType="gp3")["VolumeModification"]
    assert (answer["TargetIops"], answer["TargetThroughput"]) == (3000, 125)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "MissingParameter"),
        ({"Size": 9}, "InvalidParameterValue"),
        ({"Size": 70000}, "InvalidParameterValue"),
        ({"VolumeType": "io1"}, "InvalidParameterValue"),
        ({"VolumeType": "st1"}, "InvalidParameterValue"),
        ({"VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination"),
        ({"VolumeType": "gp4"}, "UnknownVolumeType"),
        ({"VolumeType": "standard"}, "UnsupportedOperation"),
        ({"Size": 101}, "VolumeLimitExceeded"),
        ({"Size": 60}, "VolumeModificationSizeLimitExceeded"),
        ({"VolumeId": "vol-0123456789abcdef0", "Size": 20}, "InvalidVolume.NotFound"),
        ({"VolumeId": "vol-1", "Size": 20}, "InvalidVolumeID.Malformed"),
        ({"Size": 20, "DryRun": True}, "DryRunOperation"),
    ],
)
def test_refuses_what_cannot_be(start: Start, changes: dict[str, Any], code: str) -> None:
    """A smaller size, nothing, violations of type or quota, unknown volumes; nothing changes."""
    rig = start(quota_gib=108, quota_modified_gib=50)
    volume_id = available(rig)
    with refused(code):
        rig.ec2.modify_volume(**{"VolumeId": volume_id, **changes})
    rig.control.advance(1)
    assert (rig.seen(volume_id).size_gib, rig.seen(volume_id).modification) == (10, "")


def test_quotas_know_what_is_under_way(start: Start) -> None:
    """A modification counts with its target: in the storage, and until it is completed."""
    rig = start(modify_seconds=(9, 9), quota_gib=8 + 100, quota_modified_gib=90)
    first, second = available(rig), available(rig)
    rig.ec2.modify_volume(VolumeId=first, Size=60)
    with refused("VolumeModificationSizeLimitExceeded"):
        rig.ec2.modify_volume(VolumeId=second, Size=31)
    with refused("VolumeLimitExceeded"):
        rig.create(Size=31)
    rig.control.advance(9)
    rig.ec2.modify_volume(VolumeId=second, Size=31)


@pytest.mark.parametrize(
    ("kind", "state"), [(FaultKind.STUCK, "creating"), (FaultKind.FAILED, "error")]
)
def test_only_a_volume_in_service_is_modified(rig: Rig, kind: FaultKind, state: str) -> None:
    """A volume that is being created, or that failed, is in the wrong state."""
    rig.control.add_fault(FaultRule(kind=kind, action="CreateVolume"))
    volume_id = available(rig)
    with refused("IncorrectState", saying=state):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=20)


def test_old_types_are_not_modified(start: Start) -> None:
    """Neither a magnetic volume, nor one that is attached to an old instance type."""
    rig = start(elastic_volumes=False)
    with refused("UnsupportedOperation", saying="standard"):
        rig.ec2.modify_volume(VolumeId=available(rig, VolumeType="standard"), Size=20)
    volume_id = rig.attached()
    with refused("UnsupportedOperation", saying="m5.large"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(1)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=20)


def test_a_failed_modification_can_be_tried_again(rig: Rig) -> None:
    """The size is the old one, and the next modification is accepted."""
    rig.control.add_fault(FaultRule(kind=FaultKind.FAILED, action="ModifyVolume", times=1))
    volume_id = rig.attached()
    rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.control.advance(1)
    seen = modification(rig, volume_id)
    assert (seen["ModificationState"], "EndTime" in seen) == ("failed", True)
    assert shown_gib(rig, volume_id) == 10
    rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.control.advance(1)
    assert shown_gib(rig, volume_id) == 20
    assert rig.seen(volume_id).modifications == 2


def test_a_modification_can_hang(rig: Rig) -> None:
    """It stays `modifying`, and no other one is accepted."""
    rig.control.add_fault(FaultRule(kind=FaultKind.STUCK, action="ModifyVolume", times=1))
    volume_id = rig.attached()
    rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.control.advance(2 * DAY)
    seen = rig.seen(volume_id)
    assert (seen.modification, seen.size_gib) == ("modifying", 10)
    with refused("IncorrectModificationState"):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=30)


@pytest.mark.parametrize(
    ("kind", "size"), [(FaultKind.LOST_BEFORE, 10), (FaultKind.LOST_AFTER, 20)]
)
def test_a_lost_answer_says_nothing_of_the_effect(rig: Rig, kind: FaultKind, size: int) -> None:
    """The volume is modified if the answer was lost, not if the request was."""
    rig.control.add_fault(FaultRule(kind=kind, action="ModifyVolume", times=1))
    volume_id = rig.attached()
    with pytest.raises(HTTPClientError):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.control.advance(1)
    assert rig.seen(volume_id).size_gib == size
    assert [call.outcome for call in rig.control.calls("ModifyVolume")] == ["lost"]


def test_attaching_waits_for_modifying(start: Start) -> None:
    """EC2 refuses to attach a volume in that state; detaching and deleting do not mind it."""
    rig = start(modify_seconds=(5, 5), optimize_seconds=(DAY, DAY))
    first, second = rig.attached(), available(rig)
    for volume_id in (first, second):
        rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.ec2.detach_volume(VolumeId=first)
    rig.ec2.delete_volume(VolumeId=second)
    rig.control.advance(1)
    with refused("OperationNotPermitted", saying="when it is in modification state: MODIFYING"):
        rig.attach(first)
    rig.control.advance(4)
    rig.attach(first)
    assert rig.seen(first).size_gib == 20
    assert rig.is_gone(second)


def test_a_policy_may_be_for_some_volumes(rig: Rig) -> None:
    """Tags, size and IOPS of a volume, as it is now, decide whether it may be modified."""
    statement = {
        "Effect": "Allow",
        "Action": "ec2:ModifyVolume",
        "Resource": "arn:aws:ec2:*:*:volume/*",
        "Condition": {
            "StringEquals": {"aws:ResourceTag/owner": "us"},
            "NumericLessThan": {"ec2:VolumeSize": "20"},
            "NumericEquals": {"ec2:VolumeIops": "3000"},
        },
    }
    rig.control.set_policy({"Version": "2012-10-17", "Statement": [statement]})
    ours = rig.control.put_volume(10, tags={"owner": "us"}, VolumeType="gp3")
    theirs = rig.control.put_volume(10, tags={"owner": "them"}, VolumeType="gp3")
    rig.control.advance(1)
    rig.ec2.modify_volume(VolumeId=ours, Size=20)
    rig.control.advance(1)
    for volume_id in (ours, theirs):
        with refused("UnauthorizedOperation", saying=f"volume/{volume_id}"):
            rig.ec2.modify_volume(VolumeId=volume_id, Size=30)


def test_an_operator_modifies_unseen(rig: Rig) -> None:
    """No fault or policy concerns an operator, but EC2's own rules do."""
    rig.control.set_policy({"Version": "2012-10-17", "Statement": []})
    volume_id = str(rig.control.put_volume(10, tags={}))
    rig.control.advance(1)
    rig.control.operate("ModifyVolume", VolumeId=volume_id, Size=20)
    rig.control.advance(1)
    assert (rig.seen(volume_id).size_gib, rig.control.calls()) == (20, [])
    with pytest.raises(InputInvalid, match="cannot be smaller"):
        rig.control.operate("ModifyVolume", VolumeId=volume_id, Size=19)
