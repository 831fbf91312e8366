"""The parameters of a create call, and that they are the same each time."""

from itertools import product
from typing import Any

import pytest
from ec2_sandbox.api import validation

from ebs_autoscale.ec2.requests import CreateRequests, token_of
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


def requests(**spec: Any) -> CreateRequests:
    """The requests for `/scratch` with this kind of volume."""
    return CreateRequests(identity=IDENTITY, spec=VolumeSpec(**spec), mountpoint="/scratch")


def tags_of(requests: CreateRequests, **instance_tags: str) -> dict[str, str]:
    """The tags in the create call."""
    parameters = requests.parameters(GROWTH, 20 * GIB, instance_tags=instance_tags)
    (specification,) = parameters["TagSpecifications"]
    assert specification["ResourceType"] == "volume"
    return {tag["Key"]: tag["Value"] for tag in specification["Tags"]}


def test_the_whole_call() -> None:
    """A create call has zone, size in GiB, type and encryption, and nothing not configured."""
    parameters = dict(requests().parameters(GROWTH, 20 * GIB))
    del parameters["TagSpecifications"]
    assert parameters == {
        "AvailabilityZone": "eu-central-1a",
        "Size": 20,
        "VolumeType": "gp3",
        "Encrypted": True,
        "ClientToken": token_of(OWNER, GROWTH, 1),
    }


def test_configured_performance() -> None:
    """Performance and key are passed on as configured."""
    spec = {"iops": 4000, "throughput_mib_per_second": 500, "kms_key_id": "alias/mine"}
    parameters = requests(**spec).parameters(GROWTH, 20 * GIB)
    assert (parameters["Iops"], parameters["Throughput"]) == (4000, 500)
    assert parameters["KmsKeyId"] == "alias/mine"


def test_the_tags() -> None:
    """Three owner tags make a volume ours, two more describe it."""
    assert tags_of(requests()) == {
        "ebs-autoscale:owner": OWNER,
        "ebs-autoscale:filesystem": FILESYSTEM,
        "ebs-autoscale:growth": "3",
        "ebs-autoscale:mountpoint": "/scratch",
        "Name": "ebs-autoscale /scratch 3",
    }


def test_owner_tags_cannot_be_replaced() -> None:
    """No configured or copied tag replaces ours; configured ones win over copied ones."""
    ours = tags_of(requests())
    claims = dict.fromkeys([key for key in ours if key != "Name"], "claimed")
    asked = requests(tags={**claims, "team": "users", "Name": "mine"}, copy_instance_tags=True)
    copied = {**claims, "team": "instance", "Name": "instance", "stage": "test"}
    assert tags_of(asked, **copied) == {**ours, "team": "users", "Name": "mine", "stage": "test"}


def test_instance_tags_are_copied_only_on_request() -> None:
    """Without `volume.copy_instance_tags` no tag of the instance is copied."""
    assert tags_of(requests(), stage="test") == tags_of(requests())


def many(count: int, *, prefix: str = "tag-") -> dict[str, str]:
    """So many tags, as an organization puts them on its instances."""
    return {f"{prefix}{number:03}": str(number) for number in range(count)}


@pytest.mark.parametrize("own", [0, 1, 40])
@pytest.mark.parametrize("count", [0, 4, 5, 44, 45, 46, 48, 50, 1000])
def test_as_many_tags_as_fit(own: int, count: int) -> None:
    """A volume has all of ours, all configured ones, and those of the instance that still fit."""
    asked = requests(tags=many(own, prefix="own-"), copy_instance_tags=True)
    copied = {**many(count), "Name": "worker", "ebs-autoscale:owner": "x", "AWS:x": "y"}
    tags = tags_of(asked, **copied)
    assert len(tags) == min(50, 5 + own + count)
    assert tags.items() >= {**asked.owner_tags(GROWTH), **many(own, prefix="own-")}.items()
    copies = [key for key in tags if key.startswith("tag-")]
    assert [*copies, *asked.omitted_tags(copied)] == list(many(count))
    validation.tags([{"Key": key, "Value": value} for key, value in tags.items()], {})


def test_copied_tags_are_the_same_each_time() -> None:
    """In whichever order EC2 lists the instance's tags, the call is the same."""
    asked, tags = requests(copy_instance_tags=True), many(48)
    turned = dict(reversed(tags.items()))
    one, other = (asked.parameters(GROWTH, GIB, instance_tags=each) for each in (tags, turned))
    assert one == other


@pytest.mark.parametrize("mountpoint", ["/" + "x" * 4000, "/tab\tand\nline", "/bell\a", "/ä/✓ 漢"])
def test_any_mountpoint_fits_into_its_tags(mountpoint: str) -> None:
    """Name and mountpoint are within EC2's limits, whatever the path."""
    made = CreateRequests(identity=IDENTITY, spec=VolumeSpec(), mountpoint=mountpoint)
    tags = tags_of(made)
    for key in ("Name", "ebs-autoscale:mountpoint"):
        assert 0 < len(tags[key]) <= 256
        assert tags[key].isprintable()
    assert tags_of(requests())["ebs-autoscale:mountpoint"] == "/scratch"


def test_on_an_outpost() -> None:
    """A volume for an instance on an Outpost is created there, others are not."""
    outpost = "arn:aws:outposts:us-east-1:123456789012:outpost/op-0123456789abcdef0"
    assert requests().parameters(GROWTH, GIB, outpost_arn=outpost)["OutpostArn"] == outpost
    assert "OutpostArn" not in requests().parameters(GROWTH, GIB)


def test_the_same_call_each_time() -> None:
    """However the tags are ordered, a repetition is the same call."""
    one = requests(tags={"a": "1", "b": "2"})
    other = requests(tags={"b": "2", "a": "1"})
    assert one.parameters(GROWTH, 20 * GIB, series=2) == other.parameters(
        GROWTH, 20 * GIB, series=2
    )


def test_a_token_is_stable() -> None:
    """A growth keeps its token between versions: another would create a second volume."""
    assert token_of("owner", GrowthId("filesystem", 1), 1) == (
        "09099d06b0dc4f583b90d9ff924a7e5655e8e4602aba5310db170275d459be40"
    )


def test_tokens_differ_by_growth_and_series() -> None:
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
    """Sizes are rounded down to whole GiB."""
    assert requests().parameters(GROWTH, size_bytes)["Size"] == 20
