"""Creating, describing and deleting volumes."""

from typing import TYPE_CHECKING, Any

import pytest
from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.faults import FaultKind, FaultRule

from tests.sandbox.conftest import Rig, Start, refused

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import FilterTypeDef


def test_a_volume_is_creating_first(start: Start) -> None:
    """`creating` lasts for the configured time, then the volume is `available`."""
    rig = start(create_seconds=(2, 2))
    volume_id = rig.create()
    rig.control.advance(1.9)
    assert rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "creating"
    rig.control.advance(0.1)
    assert rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "available"


def test_real_time_runs_at_the_chosen_speed(start: Start) -> None:
    """With a speed, transitions complete without advancing the clock."""
    rig = start(create_seconds=(300, 300), speed=10_000.0)
    volume_id = rig.create()
    rig.ec2.get_waiter("volume_available").wait(
        VolumeIds=[volume_id], WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )


def test_tags_and_encryption_come_with_creation(rig: Rig) -> None:
    """Tags, encryption and key are in the response of the create call."""
    volume = rig.ec2.create_volume(
        Size=10,
        AvailabilityZone="us-east-1a",
        VolumeType="gp3",
        Encrypted=True,
        KmsKeyId="alias/mine",
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "a:b", "Value": "c"}]}],
    )
    assert volume["Tags"] == [{"Key": "a:b", "Value": "c"}]
    assert volume["Encrypted"]
    assert volume["KmsKeyId"].startswith("arn:aws:kms:us-east-1:123456789012:key/")
    assert (volume["State"], volume["Attachments"]) == ("creating", [])


def test_ids_follow_from_the_seed(start: Start) -> None:
    """The same seed gives the same ids, another seed different ones."""
    assert start(seed=1).create() == start(seed=1).create() != start(seed=2).create()


def test_the_same_token_creates_one_volume(rig: Rig) -> None:
    """A repeated request returns the volume of the first, in its present state."""
    first = rig.create(ClientToken="t")
    rig.control.advance(1)
    again = rig.ec2.create_volume(
        Size=10, VolumeType="gp3", AvailabilityZone="us-east-1a", ClientToken="t"
    )
    assert (again["VolumeId"], again["State"]) == (first, "available")
    assert len(rig.control.state().volumes) == len(["root", "one"])


def test_a_token_means_its_parameters(rig: Rig) -> None:
    """The same token with other parameters, even just a tag, is refused."""
    rig.create(ClientToken="t")
    with refused("IdempotentParameterMismatch", saying="inconsistent"):
        rig.create(ClientToken="t", Size=11)
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "when", "Value": "now"}]}]
    with refused("IdempotentParameterMismatch", saying="inconsistent"):
        rig.create(ClientToken="t", TagSpecifications=tags)


def test_the_token_of_a_deleted_volume_is_burned(start: Start) -> None:
    """The token of a deleted or vanished volume does not create another."""
    rig = start(delete_seconds=(5, 5))
    volume_id = rig.create(ClientToken="t")
    rig.control.advance(1)
    rig.ec2.delete_volume(VolumeId=volume_id)
    for _ in ("deleting", "gone"):
        with refused("IdempotentParameterMismatch", saying="already deleted"):
            rig.create(ClientToken="t")
        rig.control.advance(5)


def test_tokens_are_forgotten_one_day(start: Start) -> None:
    """After EC2 has forgotten the token, a repeated request creates a second volume."""
    rig = start(token_memory_seconds=60.0)
    first = rig.create(ClientToken="t")
    rig.control.advance(61)
    assert rig.create(ClientToken="t") != first


def test_the_quota_comes_before_the_token(start: Start) -> None:
    """A repeated request fails if the first one has filled the quota."""
    rig = start(quota_volumes=2)
    rig.create(ClientToken="t")
    with refused("VolumeLimitExceeded"):
        rig.create(ClientToken="t")


def test_the_quota_counts_sizes(start: Start) -> None:
    """The last GiB of the quota can be created, the next cannot."""
    rig = start(quota_gib=100, root_size_gib=10)
    rig.create(Size=90)
    with refused("VolumeLimitExceeded"):
        rig.create(Size=1)


def test_a_new_volume_is_not_found_for_a_while(start: Start) -> None:
    """A volume that is not yet visible is not found by list, id or attach."""
    rig = start(visibility_seconds=(5, 5), flicker_probability=0.0)
    volume_id = rig.create()
    listed: list[FilterTypeDef] = [{"Name": "volume-id", "Values": [volume_id]}]
    assert rig.ec2.describe_volumes(Filters=listed)["Volumes"] == []
    with refused("InvalidVolume.NotFound", saying=volume_id):
        rig.ec2.describe_volumes(VolumeIds=[volume_id])
    with refused("InvalidVolume.NotFound"):
        rig.attach(volume_id)
    rig.control.advance(5)
    assert len(rig.ec2.describe_volumes(Filters=listed)["Volumes"]) == 1
    rig.attach(volume_id)


def test_a_new_volume_may_flicker(start: Start) -> None:
    """While visibility flickers, a volume is found by some calls only; later by all."""
    rig = start(flicker_seconds=(5, 5), flicker_probability=0.5)
    volume_id = rig.create()
    listed: list[FilterTypeDef] = [{"Name": "volume-id", "Values": [volume_id]}]

    def looks() -> set[int]:
        return {len(rig.ec2.describe_volumes(Filters=listed)["Volumes"]) for _ in range(30)}

    assert looks() == {0, 1}
    rig.control.advance(5)
    assert looks() == {1}


def test_a_bad_key_lets_the_volume_vanish(start: Start) -> None:
    """With a key that EC2 cannot use, create succeeds and the volume disappears."""
    rig = start(failing_kms_keys=("bad",), create_seconds=(1, 1))
    volume_id = rig.create(Encrypted=True, KmsKeyId="bad")
    assert rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "creating"
    rig.control.advance(1)
    with refused("InvalidVolume.NotFound"):
        rig.ec2.describe_volumes(VolumeIds=[volume_id])


@pytest.mark.parametrize(
    ("changes", "code", "saying"),
    [
        ({"Size": 0}, "InvalidParameterValue", "too small"),
        ({"Size": 65537}, "InvalidParameterValue", "too large"),
        ({"VolumeType": "st1", "Size": 124}, "InvalidParameterValue", "minimum is 125GiB"),
        ({"VolumeType": "gp9"}, "UnknownVolumeType", "gp9"),
        ({"VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination", "iops"),
        ({"VolumeType": "gp2", "Throughput": 125}, "InvalidParameterCombination", "throughput"),
        ({"VolumeType": "io2"}, "MissingParameter", "iops"),
        ({"VolumeType": "io1", "Iops": 501}, "InvalidParameterValue", "ratio"),
        ({"Iops": 2999}, "InvalidParameterValue", "too low"),
        ({"Iops": 2**31 - 1}, "InvalidParameterValue", "too high; maximum is 80000"),
        ({"Iops": 5001}, "InvalidParameterValue", "ratio"),
        ({"Throughput": 2001}, "InvalidParameterValue", "too high"),
        ({"Throughput": 751}, "InvalidParameterValue", "per iops"),
        ({"AvailabilityZone": "us-east-1b"}, "InvalidZone.NotFound", "us-east-1b"),
        ({"AvailabilityZoneId": "use1-az1"}, "InvalidParameterCombination", "AvailabilityZoneId"),
        ({"KmsKeyId": "some"}, "InvalidParameterDependency", "Encrypted"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue", "64"),
        ({"MultiAttachEnabled": True}, "UnsupportedOperation", "MultiAttachEnabled"),
        ({"SnapshotId": "snap-1"}, "InvalidSnapshotID.Malformed", "snap-1"),
        ({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound", "snap-0"),
        (
            {"TagSpecifications": [{"ResourceType": "instance", "Tags": []}]},
            "InvalidParameterValue",
            "instance",
        ),
        (
            {
                "TagSpecifications": [
                    {"ResourceType": "volume", "Tags": [{"Key": "aws:x", "Value": ""}]}
                ]
            },
            "InvalidParameterValue",
            "reserved",
        ),
    ],
)
def test_refuses_what_ec2_refuses(
    rig: Rig, changes: dict[str, Any], code: str, saying: str
) -> None:
    """A violation of the rules for type, zone, key or tags is refused; no volume is created."""
    with refused(code, saying=saying):
        rig.create(**changes)
    assert len(rig.control.state().volumes) == len(["root"])


@pytest.mark.parametrize(
    ("changes", "iops", "throughput"),
    [
        ({"VolumeType": "gp3"}, 3000, 125),
        ({"VolumeType": "gp3", "Iops": 5000, "Throughput": 1000}, 5000, 1000),
        ({"VolumeType": "gp3", "Size": 1}, 3000, 125),
        ({"VolumeType": "gp2", "Size": 1}, 100, None),
        ({"VolumeType": "gp2", "Size": 1000}, 3000, None),
        ({"VolumeType": "io2", "Size": 4, "Iops": 4000}, 4000, None),
        ({"VolumeType": "st1", "Size": 125}, None, None),
    ],
)
def test_performance_follows_the_type(
    rig: Rig, changes: dict[str, Any], iops: int | None, throughput: int | None
) -> None:
    """Parameters that are not given have the defaults of the volume type."""
    volume_id = rig.create(**changes)
    volume = rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
    assert (volume.get("Iops"), volume.get("Throughput")) == (iops, throughput)


def test_the_type_is_gp2_unless_said(rig: Rig) -> None:
    """The default type of EC2 is gp2."""
    volume = rig.ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")
    assert volume["VolumeType"] == "gp2"


def test_accounts_can_encrypt_by_default(start: Start) -> None:
    """With encryption by default a volume is encrypted without being requested."""
    volume_id = (rig := start(encryption_by_default=True)).create()
    seen = rig.seen(volume_id)
    assert seen.encrypted


def test_delete_takes_its_time(start: Start) -> None:
    """A deleted volume is `deleting`, then not found; deleting it twice is accepted."""
    rig = start(delete_seconds=(3, 3))
    volume_id = rig.create()
    rig.control.advance(1)
    rig.ec2.delete_volume(VolumeId=volume_id)
    rig.ec2.delete_volume(VolumeId=volume_id)
    assert rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "deleting"
    rig.control.advance(3)
    with refused("InvalidVolume.NotFound"):
        rig.ec2.delete_volume(VolumeId=volume_id)


def test_delete_wants_an_available_volume(start: Start) -> None:
    """Neither a creating nor an attached volume can be deleted."""
    rig = start(create_seconds=(1, 1))
    volume_id = rig.create()
    with refused("IncorrectState", saying="is not 'available'"):
        rig.ec2.delete_volume(VolumeId=volume_id)
    rig.control.advance(1)
    rig.attach(volume_id)
    with refused("VolumeInUse"):
        rig.ec2.delete_volume(VolumeId=volume_id)


def test_ids_have_a_form(rig: Rig) -> None:
    """A malformed and an unknown volume id have different errors."""
    with refused("InvalidVolumeID.Malformed"):
        rig.ec2.delete_volume(VolumeId="vol-xyz")
    with refused("InvalidVolume.NotFound"):
        rig.ec2.delete_volume(VolumeId="vol-0123456789abcdef0")


def test_dry_run_checks_and_changes_nothing(rig: Rig) -> None:
    """A dry run fails with DryRunOperation and 412, or with the error of the real call."""
    with refused("DryRunOperation", saying="would have succeeded"):
        rig.create(DryRun=True)
    with refused("InvalidParameterValue"):
        rig.create(DryRun=True, Size=0)
    assert len(rig.control.state().volumes) == len(["root"])
    status, _ = rig.query(Action="DescribeVolumes", DryRun="true")
    assert status == 412


def test_a_dry_run_with_a_token_leaves_no_memory(rig: Rig) -> None:
    """The token of a dry run can be used afterwards, with any parameters."""
    with refused("DryRunOperation"):
        rig.create(DryRun=True, ClientToken="t", Size=5)
    rig.create(ClientToken="t", Size=6)


def test_a_snapshot_is_restored(rig: Rig) -> None:
    """A volume is as large as its snapshot, or larger, never smaller; it names its snapshot."""
    snapshot_id = rig.control.put_snapshot(4, {})
    zone = "us-east-1a"
    volume = rig.ec2.create_volume(AvailabilityZone=zone, SnapshotId=snapshot_id)
    assert (volume["Size"], volume["SnapshotId"]) == (4, snapshot_id)
    larger = rig.create(Size=5, SnapshotId=snapshot_id)
    listed: list[FilterTypeDef] = [{"Name": "snapshot-id", "Values": [snapshot_id]}]
    found = {each["VolumeId"] for each in rig.ec2.describe_volumes(Filters=listed)["Volumes"]}
    assert found == {volume["VolumeId"], larger}
    with refused("InvalidParameterValue", saying="smaller"):
        rig.create(Size=3, SnapshotId=snapshot_id)


def test_an_operator_is_bound_by_nothing(rig: Rig) -> None:
    """An operator's volume has the tags given; faults, policy and journal are the program's."""
    rig.control.set_policy({"Version": "2012-10-17", "Statement": []})
    rig.control.add_fault(FaultRule(kind=FaultKind.ERROR))
    volume_id = rig.control.put_volume(3, tags={"a": "b"})
    restored = rig.control.put_volume(3, tags={}, content={})
    rig.control.advance(1)
    volumes = rig.control.operate("DescribeVolumes", VolumeIds=[volume_id, restored])["Volumes"]
    assert [bool(volume["SnapshotId"]) for volume in volumes] == [False, True]
    assert volumes[0]["Tags"] == [{"Key": "a", "Value": "b"}]
    rig.control.operate("DeleteVolume", VolumeId=volume_id)
    rig.control.advance(1)
    with pytest.raises(InputInvalid, match=r"InvalidVolume\.NotFound"):
        rig.control.operate("DeleteVolume", VolumeId=volume_id)
    assert rig.control.calls() == []
