"""What a create call consists of, and that it is the same each time."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from ebs_autoscale.ec2.requests import Purchase, token_of
from ebs_autoscale.model import GIB, GrowthId, Identity, VolumeSpec
from tests.unit.samples import FILESYSTEM

IDENTITY = Identity(
    instance_id="i-0123456789abcdef0",
    instance_type="m5.large",
    region="eu-central-1",
    availability_zone="eu-central-1a",
    account_id="123456789012",
    partition="aws-cn",
)
OWNER = "arn:aws-cn:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0"
GROWTH = GrowthId(FILESYSTEM, 3)


def purchase(**spec: Any) -> Purchase:
    """A purchase for `/scratch` with this kind of volume."""
    return Purchase(identity=IDENTITY, spec=VolumeSpec(**spec), mountpoint="/scratch")


def tags_of(bought: Purchase) -> dict[str, str]:
    """The tags in the create call."""
    (specification,) = bought.parameters(GROWTH, 20 * GIB, 1)["TagSpecifications"]
    assert specification["ResourceType"] == "volume"
    return {tag["Key"]: tag["Value"] for tag in specification["Tags"]}


def test_the_whole_call() -> None:
    """A create call names zone, size in GiB, type and encryption; what is not chosen is absent."""
    parameters = dict(purchase().parameters(GROWTH, 20 * GIB, 1))
    del parameters["TagSpecifications"]
    assert parameters == {
        "AvailabilityZone": "eu-central-1a",
        "Size": 20,
        "VolumeType": "gp3",
        "Encrypted": True,
        "ClientToken": token_of(OWNER, GROWTH, 1),
    }


def test_what_is_chosen_is_passed_on() -> None:
    """Performance and key are passed on as configured."""
    spec = {"iops": 4000, "throughput_mib_per_second": 500, "kms_key_id": "alias/mine"}
    parameters = purchase(**spec).parameters(GROWTH, 20 * GIB, 1)
    assert (parameters["Iops"], parameters["Throughput"]) == (4000, 500)
    assert parameters["KmsKeyId"] == "alias/mine"


def test_the_tags() -> None:
    """Three owner tags say whose it is, two more what it is for."""
    assert tags_of(purchase()) == {
        "ebs-autoscale:owner": OWNER,
        "ebs-autoscale:filesystem": FILESYSTEM,
        "ebs-autoscale:growth": "3",
        "ebs-autoscale:mountpoint": "/scratch",
        "Name": "ebs-autoscale /scratch 3",
    }


def test_owner_tags_cannot_be_claimed() -> None:
    """No tag of the user or the instance replaces ours; the user's win over the instance's."""
    ours = tags_of(purchase())
    claims = dict.fromkeys([key for key in ours if key != "Name"], "claimed")
    bought = replace(
        purchase(tags={**claims, "team": "users", "Name": "mine"}),
        instance_tags={**claims, "team": "instance", "Name": "instance", "stage": "test"},
    )
    assert tags_of(bought) == {**ours, "team": "users", "Name": "mine", "stage": "test"}


def test_the_same_call_each_time() -> None:
    """However tags are ordered and in whatever process, a repetition is the same call."""
    one = purchase(tags={"a": "1", "b": "2"})
    other = purchase(tags={"b": "2", "a": "1"})
    assert one.parameters(GROWTH, 20 * GIB, 2) == other.parameters(GROWTH, 20 * GIB, 2)


def test_a_token_is_stable() -> None:
    """A growth has the token it always had: another one would buy a second volume."""
    assert token_of("owner", GrowthId("filesystem", 1), 1) == (
        "09099d06b0dc4f583b90d9ff924a7e5655e8e4602aba5310db170275d459be40"
    )


def test_tokens_differ_by_everything_they_stand_for() -> None:
    """Owner, filesystem, ordinal and series each give other tokens of 64 characters."""
    tokens = {
        token_of(owner, GrowthId(filesystem, ordinal), series)
        for owner, filesystem, ordinal, series in product("ab", "fg", (1, 2, 11), (1, 2, 11))
    }
    assert len(tokens) == 36
    assert {len(token) for token in tokens} == {64}
    assert all(token.isascii() for token in tokens)


@pytest.mark.parametrize("size_bytes", [20 * GIB, 21 * GIB - 1])
def test_sizes_are_whole_gib(size_bytes: int) -> None:
    """EC2 is asked for whole GiB."""
    assert purchase().parameters(GROWTH, size_bytes, 1)["Size"] == 20
