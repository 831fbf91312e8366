"""The printed policy, enforced: what Ec2Volumes needs of it, and what it keeps out."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ec2_sandbox.iam_policy import Access, Policy, Verdict

from ebs_autoscale.checks.permissions import rehearse, rehearse_with
from ebs_autoscale.ec2.iam import STATEMENTS, policy_document
from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, GROWTH_TAG, OWNER_TAG
from ebs_autoscale.errors import EbsAutoscaleError, Unfit
from ebs_autoscale.model import GIB, Volume, VolumeSpec
from tests.contract.clouds import OverHttp, over_http
from tests.contract.permissions import GROWTH, KEY, POLICY, SEED, Life, without
from tests.unit.samples import FILESYSTEM

KEYED = VolumeSpec(kms_key_id=KEY)
ANOTHER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0fedcba9876543210"

StartHttp = Callable[..., AbstractContextManager[OverHttp]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartHttp:
    """Begin with the sandbox and boto3."""
    return over_http(tmp_path, monkeypatch)


def test_a_whole_life(start: StartHttp) -> None:
    """Under the printed policy everything that a growth does is allowed, and nothing is left."""
    with start(spec=KEYED) as http:
        assert Life(http).live(POLICY) == {}
        http.clock.sleep(10)
        assert http.count() == 0
        assert {call.outcome for call in http.control.calls()} == {"ok"}


@pytest.mark.parametrize(
    ("partition", "region"), [("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1")]
)
def test_other_partitions(start: StartHttp, partition: str, region: str) -> None:
    """The same policy serves in China and in GovCloud."""
    place = {"partition": partition, "region": region, "zone": f"{region}a"}
    with start(**place) as http:
        assert Life(http).live(policy_document(kms_key_arn=None)) == {}


NEEDS: dict[str, dict[str, str]] = {
    "LookAtVolumesAndInstance": {"look": "ec2:DescribeVolumes is denied"},
    "CreateVolumesOfThisInstance": {"create": "ec2:CreateVolume is denied on arn:aws:ec2:"},
    "TagVolumesAsTheyAreCreated": {"create": "ec2:CreateTags is denied on arn:aws:ec2:"},
    "AttachVolumesOfThisInstance": {
        "attach": "ec2:AttachVolume is denied on arn:aws:ec2:us-east-1:123456789012:volume/vol-",
        "detach": "ec2:DetachVolume is denied on arn:aws:ec2:us-east-1:123456789012:volume/vol-",
    },
    "AttachToThisInstance": {
        "attach": "ec2:AttachVolume is denied on arn:aws:ec2:us-east-1:123456789012:instance/i-",
        "detach": "ec2:DetachVolume is denied on arn:aws:ec2:us-east-1:123456789012:instance/i-",
    },
    "DeleteVolumesOfThisInstance": {
        "delete": "ec2:DeleteVolume is denied on arn:aws:ec2:us-east-1:123456789012:volume/vol-"
    },
    "EndVolumesWithThisInstance": {
        "delete_on_termination": "ec2:ModifyInstanceAttribute is denied on "
        "arn:aws:ec2:us-east-1:123456789012:instance/i-"
    },
    "EndOnlyVolumesOfThisInstance": {
        "delete_on_termination": "ec2:ModifyInstanceAttribute is denied on "
        "arn:aws:ec2:us-east-1:123456789012:volume/vol-"
    },
    # EC2 finds out only after it said yes, and then has nothing to say it with.
    "UseTheKey": {"create": "it vanished", "attach": f"kms:Decrypt is denied on {KEY}"},
    "LendTheKeyToEc2": {"attach": f"kms:CreateGrant is denied on {KEY}"},
}


@pytest.mark.parametrize("sid", [each.sid for each in STATEMENTS if each.option != "--adopt"])
def test_every_statement_is_needed(start: StartHttp, sid: str) -> None:
    """Without one statement exactly its calls fail, naming action, resource and the statement."""
    with start(spec=KEYED) as http:
        failures = Life(http).live(without(sid))
    assert failures.keys() == NEEDS[sid].keys()
    for step, words in NEEDS[sid].items():
        assert words in failures[step]
        assert "is denied" not in words or f"add the statement {sid}; " in failures[step]


def buy(http: OverHttp, owner: str | None) -> str:
    """Create a volume by a request of one's own; returns its id."""
    tags = {FILESYSTEM_TAG: FILESYSTEM, GROWTH_TAG: "9"} | ({OWNER_TAG: owner} if owner else {})
    specification: Any = {
        "ResourceType": "volume",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    zone = http.identity.availability_zone
    bought = http.ec2.create_volume(
        AvailabilityZone=zone, Size=1, TagSpecifications=[specification]
    )
    return bought["VolumeId"]


@pytest.mark.parametrize("owner", [None, ANOTHER, "", "*"])
def test_only_volumes_of_this_instance_are_created(start: StartHttp, owner: str | None) -> None:
    """A volume without an owner, or in another's name, cannot be bought."""
    with start() as http:
        http.control.set_policy(POLICY)
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateVolume on"):
            buy(http, owner)
        assert http.count() == 0


@pytest.mark.parametrize("owner", [None, ANOTHER])
def test_no_volume_of_another_is_touched(start: StartHttp, owner: str | None) -> None:
    """What does not carry this instance's name can be neither attached, detached nor deleted."""
    with start() as http:
        volume_id, attached_id = buy(http, owner), buy(http, owner)
        instance_id = http.identity.instance_id
        http.clock.sleep(10)
        http.ec2.attach_volume(VolumeId=attached_id, InstanceId=instance_id, Device="/dev/xvdbb")
        http.clock.sleep(10)
        http.control.set_policy(POLICY)
        mapping: Any = {"DeviceName": "/dev/xvdbb", "Ebs": {"DeleteOnTermination": True}}
        attempts: list[Callable[[], object]] = [
            lambda: http.ec2.attach_volume(
                VolumeId=volume_id, InstanceId=instance_id, Device="/dev/xvdba"
            ),
            lambda: http.ec2.delete_volume(VolumeId=volume_id),
            lambda: http.ec2.detach_volume(VolumeId=attached_id),
            lambda: http.ec2.modify_instance_attribute(
                InstanceId=instance_id, BlockDeviceMappings=[mapping]
            ),
        ]
        for attempt in attempts:
            with pytest.raises(ClientError, match=r"UnauthorizedOperation.*:volume/vol-"):
                attempt()
        assert http.count() == 2


@pytest.mark.parametrize("action", ["AttachVolume", "DetachVolume", "ModifyInstanceAttribute"])
@pytest.mark.parametrize(
    ("instance_id", "verdict"),
    [("i-0123456789abcdef0", Verdict.ALLOWED), ("i-0fedcba9876543210", Verdict.NOT_ALLOWED)],
)
def test_no_other_instance_is_touched(action: str, instance_id: str, verdict: Verdict) -> None:
    """Of all instances that have the role each reaches only itself."""
    place = "arn:aws:ec2:us-east-1:123456789012:instance"
    context = {
        "ec2:sourceinstancearn": (f"{place}/i-0123456789abcdef0",),
        "ec2:instanceid": (instance_id,),
    }
    access = Access(action=f"ec2:{action}", resource=f"{place}/{instance_id}", context=context)
    assert Policy.from_document(POLICY).verdict(access) is verdict


@pytest.mark.parametrize(
    ("service", "for_aws", "verdict"),
    [
        ("ec2.us-east-1.amazonaws.com", "true", Verdict.ALLOWED),
        ("ec2.cn-north-1.amazonaws.com.cn", "true", Verdict.ALLOWED),
        ("ec2.us-east-1.amazonaws.com", "false", Verdict.NOT_ALLOWED),
        ("s3.us-east-1.amazonaws.com", "true", Verdict.NOT_ALLOWED),
    ],
)
def test_the_key_is_lent_to_ec2_alone(service: str, for_aws: str, verdict: Verdict) -> None:
    """A grant on the key is given only to AWS, and only through EC2."""
    context = {"kms:viaservice": (service,), "kms:grantisforawsresource": (for_aws,)}
    access = Access(action="kms:CreateGrant", resource=KEY, context=context)
    assert Policy.from_document(POLICY).verdict(access) is verdict


def test_no_volume_becomes_ours_later(start: StartHttp) -> None:
    """Tags can be set in the create call only: nobody makes a foreign volume this instance's."""
    with start() as http:
        volume_id = buy(http, ANOTHER)
        http.control.set_policy(POLICY)
        tags: Any = [{"Key": OWNER_TAG, "Value": http.identity.owner}]
        with pytest.raises(ClientError, match="ec2:CreateTags on"):
            http.ec2.create_tags(Resources=[volume_id], Tags=tags)


def rehearsed(http: OverHttp, volume: Volume | None = None) -> dict[str, EbsAutoscaleError | None]:
    """What `check` would find, with a volume of ours if there is one."""
    found = dict(rehearse(http.cloud, FILESYSTEM))
    return found | (dict(rehearse_with(http.cloud, volume)) if volume else {})


def bought_and_attached(http: OverHttp) -> Volume:
    """The volume of the first growth, in service."""
    life = Life(http)
    life.create()
    life.attach()
    [volume] = http.cloud.inventory(FILESYSTEM).volumes
    return volume


def test_a_rehearsal_under_the_policy(start: StartHttp) -> None:
    """With a volume attached every call of a growth is rehearsed, allowed, and not made."""
    with start() as http:
        volume = bought_and_attached(http)
        before = http.control.state().volumes
        http.control.set_policy(policy_document(kms_key_arn=None))
        verdicts = rehearsed(http, volume)
        assert http.control.state().volumes == before
    assert list(verdicts) == [
        "DescribeVolumes",
        "DescribeInstances",
        "DescribeInstanceTypes",
        "CreateVolume, CreateTags",
        "AttachVolume",
        "DetachVolume",
        "ModifyInstanceAttribute",
        "DeleteVolume",
    ]
    assert set(verdicts.values()) == {None}


REHEARSED = [statement for statement in STATEMENTS if not statement.option]


@pytest.mark.parametrize("sid", [statement.sid for statement in REHEARSED])
def test_a_rehearsal_names_the_statement(start: StartHttp, sid: str) -> None:
    """Whichever statement is missing, the calls that need it name it, and no others fail."""
    with start() as http:
        volume = bought_and_attached(http)
        http.control.set_policy(without(sid))
        denied = {actions: error for actions, error in rehearsed(http, volume).items() if error}
    statement = next(each for each in STATEMENTS if each.sid == sid)
    wanted = {action.removeprefix("ec2:") for action in statement.actions}
    assert {action for action in wanted if any(action in each for each in denied)} == wanted
    assert len(denied) <= len(wanted)
    for error in denied.values():
        assert isinstance(error, Unfit)
        assert f"add the statement {sid}; `ebs-autoscale iam-policy` prints" in error.hint


def test_the_seeds_rights(start: StartHttp) -> None:
    """With the first version's rights all that is missing is named before anything is bought."""
    with start() as http:
        http.control.set_policy(SEED)
        denied = {actions: str(error) for actions, error in rehearsed(http).items() if error}
        with pytest.raises(Unfit, match="ec2:DescribeInstances is denied"):
            http.cloud.inventory(FILESYSTEM)
        with pytest.raises(Unfit, match=r"ec2:CreateTags is denied on .*:volume/"):
            http.cloud.create(GROWTH, GIB)
        assert http.count() == 0
    assert denied.keys() == {
        "DescribeInstances",
        "DescribeInstanceTypes",
        "CreateVolume, CreateTags",
    }
    assert "ec2:CreateTags is denied" in denied["CreateVolume, CreateTags"]
