"""Filters and pages of the Describe actions."""

from typing import Any

import pytest

from tests.sandbox.conftest import Rig, refused


def tagged(**tags: str) -> list[dict[str, Any]]:
    """Tags in the form of CreateVolume."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": "volume", "Tags": pairs}]


@pytest.fixture
def three(rig: Rig) -> dict[str, str]:
    """Two volumes with tags, one of them attached, and the root volume."""
    return {
        "a": rig.attached("/dev/xvdba", TagSpecifications=tagged(Team="red", Owner="x*y")),
        "b": rig.create(Size=20, Encrypted=True, TagSpecifications=tagged(Team="green")),
        "root": rig.control.state().volumes[0].id,
    }


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"tag:Team": ["red"]}, "a"),
        ({"tag:Team": ["RED"]}, ""),
        ({"tag:Team": ["red", "green"]}, "ab"),
        ({"tag:Team": ["*re*"]}, "ab"),
        ({"tag:Team": ["r?d"]}, "a"),
        ({"tag:Team": ["?d"]}, ""),
        ({"tag:Owner": [r"x\*y"]}, "a"),
        ({"tag:Owner": ["x.y"]}, ""),
        ({"tag-key": ["Team"]}, "ab"),
        ({"tag-key": ["Team"], "size": ["20"]}, "b"),
        ({"encrypted": ["true"]}, "b"),
        ({"volume-type": ["gp3"], "attachment.status": ["attached"]}, "a root"),
        ({"attachment.instance-id": ["i-0123456789abcdef0"]}, "a root"),
        ({"attachment.device": ["/dev/xvdba"]}, "a"),
        ({"attachment.delete-on-termination": ["true"]}, "root"),
        ({"status": ["available"]}, "b"),
        ({"availability-zone": ["us-east-1?"]}, "ab root"),
        ({"create-time": ["20*"]}, "ab root"),
    ],
)
def test_filters(rig: Rig, three: dict[str, str], filters: dict[str, Any], names: str) -> None:
    """Every filter must match in one of its values, case-sensitively, with wildcards."""
    wanted = [{"Name": name, "Values": values} for name, values in filters.items()]
    answer = rig.ec2.describe_volumes(Filters=wanted)  # type: ignore[arg-type] # plain dicts
    expected = {three[name] for name in three if name in names}
    assert {volume["VolumeId"] for volume in answer["Volumes"]} == expected


def test_an_unknown_filter_is_refused(rig: Rig) -> None:
    """A misspelled filter is an error, not an empty result."""
    with refused("InvalidParameterValue", saying="colour"):
        rig.ec2.describe_volumes(Filters=[{"Name": "colour", "Values": ["red"]}])


def test_pages_list_everything_once(rig: Rig) -> None:
    """Following the tokens lists each volume once, in the order of creation."""
    root = rig.control.state().volumes[0].id
    ids = [root, *(rig.create(Size=1) for _ in range(12))]
    pages = list(
        rig.ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5})
    )
    assert [len(page["Volumes"]) for page in pages] == [5, 5, 3]
    assert [volume["VolumeId"] for page in pages for volume in page["Volumes"]] == ids


def test_pages_survive_a_deletion_between(rig: Rig) -> None:
    """A volume deleted between two pages does not hide any other."""
    ids = [rig.create(Size=1) for _ in range(9)]
    first = rig.ec2.describe_volumes(MaxResults=5)
    rig.ec2.delete_volume(VolumeId=ids[0])
    rig.control.advance(1)
    second = rig.ec2.describe_volumes(MaxResults=5, NextToken=first["NextToken"])
    assert [volume["VolumeId"] for volume in second["Volumes"]] == ids[4:]
    assert "NextToken" not in second


def test_pages_have_rules(rig: Rig) -> None:
    """Invalid tokens, invalid sizes, and ids together with a size are refused."""
    with refused("InvalidNextToken"):
        rig.ec2.describe_volumes(MaxResults=5, NextToken="nonsense")
    with refused("InvalidParameterValue", saying="maxResults"):
        rig.ec2.describe_volumes(MaxResults=4)
    with refused("InvalidParameterCombination"):
        rig.ec2.describe_volumes(MaxResults=5, VolumeIds=[rig.create()])
    with refused("InvalidParameterCombination"):
        rig.ec2.describe_instances(MaxResults=5, InstanceIds=[rig.settings.instance_id])


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("instance-id", "i-0123456789abcdef0", True),
        ("instance-state-name", "stopped", False),
        ("tag:Stage", "prod", True),
        ("block-device-mapping.device-name", "/dev/xvda", True),
        ("block-device-mapping.delete-on-termination", "false", False),
    ],
)
def test_instances_are_filtered(rig: Rig, name: str, value: str, found: bool) -> None:  # noqa: FBT001 -- a table
    """The instance is listed when it matches."""
    rig.ec2.create_tags(
        Resources=[rig.settings.instance_id], Tags=[{"Key": "Stage", "Value": "prod"}]
    )
    answer = rig.ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])
    assert bool(answer["Reservations"]) is found


def test_the_instance_type_tells_its_limit(rig: Rig) -> None:
    """DescribeInstanceTypes has the fields from which free slots are computed."""
    (kind,) = rig.ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"]
    limits = kind["EbsInfo"]
    assert (limits["MaximumEbsAttachments"], limits["AttachmentLimitType"]) == (27, "shared")
    assert kind["Hypervisor"] == "nitro"
    with refused("InvalidInstanceType"):
        rig.ec2.describe_instance_types(InstanceTypes=["t1.micro"])


def test_tags_come_and_go(rig: Rig) -> None:
    """Tags are set, replaced, listed, and deleted by key, or by key and value."""
    volume_id = rig.create()
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    rig.ec2.create_tags(Resources=[volume_id], Tags=tags)  # type: ignore[arg-type] # plain dicts
    rig.ec2.create_tags(Resources=[volume_id], Tags=[{"Key": "a", "Value": "3"}])
    rig.ec2.delete_tags(Resources=[volume_id], Tags=[{"Key": "b", "Value": "not this"}])
    listed = rig.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [volume_id]}])
    assert [(tag["Key"], tag["Value"]) for tag in listed["Tags"]] == [("a", "3"), ("b", "2")]
    rig.ec2.delete_tags(Resources=[volume_id], Tags=[{"Key": "b"}])
    seen = rig.seen(volume_id)
    assert seen.tags == {"a": "3"}


def test_tags_have_rules(rig: Rig) -> None:
    """Too many tags, and malformed resource ids, are refused."""
    volume_id = rig.create()
    many = [{"Key": str(number), "Value": ""} for number in range(51)]
    with refused("TagLimitExceeded"):
        rig.ec2.create_tags(Resources=[volume_id], Tags=many)  # type: ignore[arg-type] # plain
    with refused("InvalidID"):
        rig.ec2.create_tags(Resources=["elephant"], Tags=[{"Key": "a", "Value": "b"}])
