"""The printed policy, enforced: it allows what Ec2Volumes does, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ec2_sandbox.iam.policy import Access, Policy, Verdict

from ebs_autoscale.ec2.iam import STATEMENTS
from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, GROWTH_TAG, OWNER_TAG
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import GIB, Volume, VolumeSpec
from tests.contract.clouds import INVENTORY, OverHttp, StartHttp
from tests.contract.permissions import (
    FIRST_POLICY,
    GROWTH,
    KEY,
    POLICY,
    Life,
    rehearsed,
    without,
)
from tests.unit.samples import FILESYSTEM, policy_of

KEYED = VolumeSpec(kms_key_id=KEY)
ANOTHER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0fedcba9876543210"


def test_the_life_of_a_volume(start: StartHttp) -> None:
    """Under the printed policy every call of a growth is allowed, and no volume is left."""
    with start(spec=KEYED) as http:
        assert Life(http).run(POLICY) == {}
        http.clock.sleep(10)
        assert http.count() == 0
        assert {call.outcome for call in http.control.calls()} == {"ok"}


@pytest.mark.parametrize(
    ("partition", "region"), [("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1")]
)
def test_other_partitions(start: StartHttp, partition: str, region: str) -> None:
    """The same policy works in China and in GovCloud."""
    place = {"partition": partition, "region": region, "zone": f"{region}a"}
    with start(**place) as http:
        assert Life(http).run(policy_of(enlarge=True)) == {}


ACCOUNT = "arn:aws:ec2:us-east-1:123456789012"
VOLUME = f"{ACCOUNT}:volume/"
INSTANCE = f"{ACCOUNT}:instance/i-"

# For each statement: the calls that fail without it, with the action and the resource denied.
NEEDED_FOR = {
    "LookAtVolumesAndInstance": {"look": ("ec2:DescribeVolumes", "")},
    "CreateVolumesOfThisInstance": {"create": ("ec2:CreateVolume", VOLUME)},
    "TagVolumesAsTheyAreCreated": {"create": ("ec2:CreateTags", VOLUME)},
    "AttachVolumesOfThisInstance": {
        "attach": ("ec2:AttachVolume", f"{VOLUME}vol-"),
        "detach": ("ec2:DetachVolume", f"{VOLUME}vol-"),
    },
    "AttachToThisInstance": {
        "attach": ("ec2:AttachVolume", INSTANCE),
        "detach": ("ec2:DetachVolume", INSTANCE),
    },
    "DeleteVolumesOfThisInstance": {"delete": ("ec2:DeleteVolume", f"{VOLUME}vol-")},
    "EndVolumesWithThisInstance": {
        "set_delete_on_termination": ("ec2:ModifyInstanceAttribute", INSTANCE)
    },
    "EndOnlyVolumesOfThisInstance": {
        "set_delete_on_termination": ("ec2:ModifyInstanceAttribute", f"{VOLUME}vol-")
    },
    "EnlargeVolumesOfThisInstance": {"enlarge": ("ec2:ModifyVolume", f"{VOLUME}vol-")},
    "LookAtModifications": {"look_at_modifications": ("ec2:DescribeVolumesModifications", "")},
    "UseTheKey": {"attach": ("kms:Decrypt", KEY)},
    "LendTheKeyToEc2": {"attach": ("kms:CreateGrant", KEY)},
}


@pytest.mark.parametrize("sid", NEEDED_FOR)
def test_every_statement_is_needed(start: StartHttp, sid: str) -> None:
    """Without one statement exactly its calls fail, naming action, resource and statement."""
    with start(spec=KEYED) as http:
        failures = Life(http).run(without(sid))
    # EC2 accepts the call, finds out later, and reports nothing: the volume disappears.
    if sid == "UseTheKey":
        assert failures.pop("create").cause is Cause.VOLUME_LOST
    assert failures.keys() == NEEDED_FOR[sid].keys()
    for call, (action, resource) in NEEDED_FOR[sid].items():
        error = failures[call]
        assert isinstance(error, Unfit)
        assert error.cause is Cause.DENIED
        assert action in error.what
        assert resource in error.what
        assert sid in error.hint


def test_each_statement_has_its_case() -> None:
    """The cases above are those of the policy; to adopt has its own."""
    assert NEEDED_FOR.keys() == {each.sid for each in STATEMENTS if "--adopt" not in each.option}


def create_tagged(http: OverHttp, owner: str | None) -> str:
    """Create a volume with these tags by a request of our own; returns its id."""
    tags = {FILESYSTEM_TAG: FILESYSTEM, GROWTH_TAG: "9"} | ({OWNER_TAG: owner} if owner else {})
    specification: Any = {
        "ResourceType": "volume",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    zone = http.identity.availability_zone
    created = http.ec2.create_volume(
        AvailabilityZone=zone, Size=1, TagSpecifications=[specification]
    )
    return created["VolumeId"]


@pytest.mark.parametrize("owner", [None, ANOTHER, "", "*"])
def test_only_volumes_of_this_instance_are_created(start: StartHttp, owner: str | None) -> None:
    """A volume without an owner, or with another owner, cannot be created."""
    with start() as http:
        http.control.set_policy(POLICY)
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateVolume on"):
            create_tagged(http, owner)
        assert http.count() == 0


SMALL: dict[str, Any] = {"Size": 100, "VolumeType": "gp3", "Encrypted": True}
FAST: dict[str, Any] = {**SMALL, "Iops": 6000, "Throughput": 250}
FOR_SMALL = policy_of(max_bytes=100 * GIB)
FOR_FAST = policy_of(max_bytes=100 * GIB, iops=6000, throughput_mib_per_second=250)


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (FOR_SMALL, SMALL),
        (FOR_SMALL, {**SMALL, "Size": 1}),
        (FOR_SMALL, {**SMALL, "Iops": 3000, "Throughput": 125}),
        (FOR_FAST, FAST),
        (FOR_FAST, {**FAST, "Iops": 3000, "Throughput": 125}),
        (policy_of(encrypted=False), {**SMALL, "Encrypted": False}),
        (policy_of(type="gp2"), {**SMALL, "VolumeType": "gp2"}),
        (policy_of(type="io1", iops=4000), {**SMALL, "VolumeType": "io1", "Iops": 4000}),
    ],
)
def test_what_the_configuration_asks_for(
    start: StartHttp, policy: dict[str, Any], asked: dict[str, Any]
) -> None:
    """A role can create the configured volumes, and lesser ones of the type."""
    with start() as http:
        http.control.set_policy(policy)
        create_like(http, asked)
        assert http.count() == 1


@pytest.mark.parametrize(
    ("policy", "excess"),
    [
        (FOR_SMALL, {**SMALL, "Size": 101}),
        (FOR_SMALL, {**SMALL, "Encrypted": False}),
        (FOR_SMALL, {"Size": 100, "VolumeType": "gp3"}),
        (FOR_SMALL, {**SMALL, "Iops": 3001}),
        (FOR_SMALL, {**SMALL, "Throughput": 126}),
        (FOR_SMALL, {**SMALL, "VolumeType": "gp2"}),
        (FOR_SMALL, {"Size": 100, "Encrypted": True}),
        (FOR_SMALL, {**SMALL, "VolumeType": "io2", "Iops": 100}),
        (FOR_FAST, {**FAST, "Iops": 6001}),
        (FOR_FAST, {**FAST, "Throughput": 251}),
        (FOR_FAST, {**FAST, "Size": 16_384}),
        (FOR_FAST, {**FAST, "VolumeType": "io2", "Iops": 50_000}),
        (policy_of(type="io1", iops=4000), {**SMALL, "VolumeType": "io1", "Iops": 4001}),
        (policy_of(type="st1"), {**SMALL, "VolumeType": "sc1", "Size": 125}),
    ],
)
def test_what_a_stolen_role_cannot_create(
    start: StartHttp, policy: dict[str, Any], excess: dict[str, Any]
) -> None:
    """Whatever exceeds the configuration in one respect is denied, with all our tags."""
    with start() as http:
        http.control.set_policy(policy)
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateVolume on"):
            create_like(http, excess)
        assert http.count() == 0


def create_like(http: OverHttp, asked: dict[str, Any]) -> None:
    """Create a volume with this instance as its owner."""
    tags: Any = [{"Key": OWNER_TAG, "Value": http.identity.owner}]
    specification: Any = {"ResourceType": "volume", "Tags": tags}
    zone = http.identity.availability_zone
    http.ec2.create_volume(AvailabilityZone=zone, TagSpecifications=[specification], **asked)


@pytest.mark.parametrize("owner", [None, ANOTHER])
def test_no_volume_of_another_is_touched(start: StartHttp, owner: str | None) -> None:
    """A volume without this instance's owner tag cannot be attached, detached or deleted."""
    with start() as http:
        volume_id, attached_id = create_tagged(http, owner), create_tagged(http, owner)
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
    """Of all instances with the role, each may change only itself."""
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
def test_grants_on_the_key_are_for_ec2_alone(service: str, for_aws: str, verdict: Verdict) -> None:
    """A grant on the key is allowed only to AWS, and only through EC2."""
    context = {"kms:viaservice": (service,), "kms:grantisforawsresource": (for_aws,)}
    access = Access(action="kms:CreateGrant", resource=KEY, context=context)
    assert Policy.from_document(POLICY).verdict(access) is verdict


def test_existing_volumes_cannot_be_tagged(start: StartHttp) -> None:
    """Tags can be set only in the create call: no existing volume becomes this instance's."""
    with start() as http:
        volume_id = create_tagged(http, ANOTHER)
        http.control.set_policy(POLICY)
        tags: Any = [{"Key": OWNER_TAG, "Value": http.identity.owner}]
        with pytest.raises(ClientError, match="ec2:CreateTags on"):
            http.ec2.create_tags(Resources=[volume_id], Tags=tags)


def created_and_attached(http: OverHttp) -> Volume:
    """The attached volume of the first growth."""
    life = Life(http)
    life.create()
    life.attach()
    [volume] = http.cloud.inventory(FILESYSTEM).volumes
    return volume


def test_a_rehearsal_under_the_policy(start: StartHttp) -> None:
    """With a volume attached every call of a growth is tried by DryRun and allowed."""
    with start() as http:
        volume = created_and_attached(http)
        before = http.control.state().volumes
        http.control.set_policy(policy_of())
        verdicts = rehearsed(http, volume)
        assert http.control.state().volumes == before
    assert list(verdicts) == [
        "DescribeVolumes",
        "DescribeInstances",
        "DescribeInstanceTypes",
        "CreateVolume",
        "AttachVolume",
        "DetachVolume",
        "ModifyInstanceAttribute",
        "DeleteVolume",
    ]
    assert set(verdicts.values()) == {None}


def test_a_rehearsal_of_enlarging(start: StartHttp) -> None:
    """Where volumes may be enlarged, what that needs is tried as well, changing nothing."""
    needed = {"DescribeVolumesModifications", "ModifyVolume"}
    with start() as http:
        volume = created_and_attached(http)
        for policy, denied in ((policy_of(enlarge=True), set()), (policy_of(), needed)):
            http.control.set_policy(policy)
            verdicts = rehearsed(http, volume, enlarges=True)
            assert needed <= verdicts.keys()
            assert {action for action, refusal in verdicts.items() if refusal} == denied
        assert not {"ok"} & {call.outcome for call in http.control.calls("ModifyVolume")}


@pytest.mark.parametrize(
    ("policy", "spec", "gib"),
    [
        (policy_of(max_bytes=500 * GIB), {}, 501),
        (policy_of(), {"type": "gp2"}, 100),
        (policy_of(), {"encrypted": False}, 100),
        (policy_of(), {"iops": 4000}, 100),
        (policy_of(iops=4000), {"iops": 4000, "throughput_mib_per_second": 500}, 100),
    ],
)
def test_a_rehearsal_finds_a_policy_too_narrow(
    start: StartHttp, policy: dict[str, Any], spec: dict[str, Any], gib: int
) -> None:
    """A policy that was printed for another configuration is found before a growth needs it."""
    with start(spec=VolumeSpec(**spec)) as http:
        http.control.set_policy(policy)
        denied = {a: e for a, e in rehearsed(http, max_bytes=gib * GIB).items() if e}
        [error] = denied.values()
        assert error.cause is Cause.DENIED
        assert "add or renew the statement CreateVolumesOfThisInstance" in error.hint
        http.control.set_policy(policy_of(max_bytes=gib * GIB, **spec))
        assert set(rehearsed(http, max_bytes=gib * GIB).values()) == {None}


def test_the_first_policy(start: StartHttp) -> None:
    """Under the policy of the first version everything missing is named, and nothing created."""
    with start() as http:
        http.control.set_policy(FIRST_POLICY)
        denied = {action: error.what for action, error in rehearsed(http).items() if error}
        with pytest.raises(Unfit, match="ec2:DescribeInstances"):
            http.cloud.inventory(FILESYSTEM)
        with pytest.raises(Unfit, match=rf"ec2:CreateTags.*{VOLUME}"):
            http.cloud.create(GROWTH, GIB, INVENTORY)
        assert http.count() == 0
    assert denied.keys() == {
        "DescribeInstances",
        "DescribeInstanceTypes",
        "CreateVolume",
    }
    assert "ec2:CreateTags" in denied["CreateVolume"]
