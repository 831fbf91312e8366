"""IAM policies: a table of policies, accesses and verdicts, and the accesses of requests."""

from typing import Any

import pytest
from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.iam.policy import Access, Policy, Verdict
from ec2_sandbox.settings import SandboxSettings

from tests.sandbox.conftest import Rig, Start, refused

ME = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
VOLUME = "arn:aws:ec2:us-east-1:123456789012:volume/vol-1"
VOLUMES = "arn:aws:ec2:*:*:volume/*"
CONTEXT = {
    "ec2:sourceinstancearn": (ME,),
    "ec2:instanceid": ("i-0123456789abcdef0",),
    "ec2:resourcetag/owner": (ME,),
    "ec2:resourcetag/star": ("*",),
    "ec2:resourcetag/empty": ("",),
    "ec2:resourcetag/log": ("arn:aws:logs:us-east-1:123456789012:log-group:a:b",),
    "aws:tagkeys": ("owner", "Name"),
    "ec2:volumesize": ("100",),
    "ec2:encrypted": ("true",),
}
ATTACH = Access(action="ec2:AttachVolume", resource=VOLUME, context=CONTEXT)
LOOK = Access(action="ec2:DescribeVolumes", resource="*", context={})

YES, NO, SILENT = Verdict.ALLOWED, Verdict.DENIED, Verdict.NOT_ALLOWED


def allow(condition: Any = None, *, action: Any = "ec2:AttachVolume", resource: Any = "*") -> Any:
    """An Allow statement."""
    found = {"Effect": "Allow", "Action": action, "Resource": resource}
    return found | ({"Condition": condition} if condition else {})


def deny(condition: Any = None, **rest: Any) -> Any:
    """A Deny statement."""
    return allow(condition, **rest) | {"Effect": "Deny"}


def policy(*statements: Any) -> dict[str, Any]:
    """A policy document with these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


@pytest.mark.parametrize(
    ("statements", "access", "verdict"),
    [
        ([], ATTACH, SILENT),
        ([allow()], ATTACH, YES),
        ([allow(), deny()], ATTACH, NO),
        ([deny(), allow()], ATTACH, NO),
        ([allow(), deny(action="ec2:DetachVolume")], ATTACH, YES),
        ([allow(action="ec2:DetachVolume")], ATTACH, SILENT),
        ([allow(action="EC2:attachvolume")], ATTACH, YES),
        ([allow(action="ec2:Attach*")], ATTACH, YES),
        ([allow(action="ec2:?ttachVolume")], ATTACH, YES),
        ([allow(action="ec2:Attach")], ATTACH, SILENT),
        ([allow(action="*")], ATTACH, YES),
        ([allow(action=["ec2:DetachVolume", "ec2:AttachVolume"])], ATTACH, YES),
        ([allow(resource=VOLUMES)], ATTACH, YES),
        ([allow(resource="arn:*:ec2:*:*:volume/*")], ATTACH, YES),
        ([allow(resource="arn:aws-cn:ec2:*:*:volume/*")], ATTACH, SILENT),
        ([allow(resource="arn:aws:ec2:eu-west-1:*:volume/*")], ATTACH, SILENT),
        ([allow(resource="arn:aws:ec2:*:*:instance/*")], ATTACH, SILENT),
        ([allow(resource="arn:aws:*:volume/*")], ATTACH, SILENT),
        ([allow(resource=["arn:aws:ec2:*:*:instance/*", VOLUMES])], ATTACH, YES),
        ([allow(action="ec2:Describe*")], LOOK, YES),
        ([allow(action="ec2:Describe*", resource=VOLUMES)], LOOK, SILENT),
    ],
)
def test_statements(statements: list[Any], access: Access, verdict: Verdict) -> None:
    """Deny overrides Allow, and the default is no access; actions and resources have wildcards."""
    assert Policy.from_document(policy(*statements)).verdict(access) is verdict


OWNER, SIZE = "ec2:ResourceTag/owner", "ec2:VolumeSize"
CALLER = "${ec2:SourceInstanceARN}"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"StringEquals": {OWNER: CALLER}}, True),
        ({"StringEquals": {"EC2:resourcetag/OWNER": CALLER}}, True),
        ({"StringEquals": {OWNER: ["arn:other", CALLER]}}, True),
        ({"StringEquals": {OWNER: "arn:other"}}, False),
        ({"StringEquals": {OWNER: "arn:*"}}, False),
        ({"StringEquals": {"ec2:ResourceTag/none": CALLER}}, False),
        ({"StringEquals": {OWNER: "${ec2:none}"}}, False),
        ({"StringEquals": {"ec2:ResourceTag/none": ""}}, False),
        ({"StringEquals": {"ec2:ResourceTag/empty": "${ec2:none}"}}, False),
        ({"StringEquals": {"ec2:ResourceTag/empty": ""}}, True),
        ({"StringEquals": {OWNER: "${ec2:none, 'x'}"}}, False),
        ({"ArnLike": {"ec2:ResourceTag/log": "arn:aws:logs:*:*:log-group:*"}}, True),
        ({"StringEqualsIfExists": {"ec2:ResourceTag/none": "x"}}, True),
        ({"StringEqualsIgnoreCase": {OWNER: ME.upper()}}, True),
        ({"StringNotEquals": {OWNER: "arn:other"}}, True),
        ({"StringNotEquals": {OWNER: ["arn:other", CALLER]}}, False),
        ({"StringNotEquals": {"ec2:ResourceTag/none": "x"}}, True),
        ({"StringLike": {OWNER: "arn:*:instance/i-?123*"}}, True),
        ({"StringLike": {OWNER: "instance/*"}}, False),
        ({"StringLike": {OWNER: "${ec2:ResourceTag/star}"}}, False),
        ({"StringLike": {"ec2:ResourceTag/star": "${*}"}}, True),
        ({"StringLike": {OWNER: "${*}"}}, False),
        ({"StringNotLike": {OWNER: "arn:*"}}, False),
        ({"ArnEquals": {"ec2:SourceInstanceARN": "arn:aws:ec2:*:*:instance/*"}}, True),
        ({"ArnLike": {"ec2:SourceInstanceARN": "arn:*:instance/*"}}, False),
        ({"ArnLike": {"ec2:SourceInstanceARN": "arn:*:ec2:*:*:instance/${ec2:InstanceID}"}}, True),
        ({"ArnLike": {"ec2:SourceInstanceARN": "arn:*:ec2:*:*:instance/${ec2:VolumeID}"}}, False),
        ({"ArnNotLike": {"ec2:SourceInstanceARN": "arn:aws:ec2:*:*:instance/*"}}, False),
        ({"NumericLessThanEquals": {SIZE: "100"}}, True),
        ({"NumericLessThanEquals": {SIZE: 99}}, False),
        ({"NumericLessThan": {SIZE: "100"}}, False),
        ({"NumericGreaterThan": {SIZE: "9"}}, True),
        ({"NumericEquals": {SIZE: "1e2"}}, True),
        ({"NumericNotEquals": {SIZE: "100"}}, False),
        ({"NumericEquals": {OWNER: "100"}}, False),
        ({"Bool": {"ec2:Encrypted": True}}, True),
        ({"Bool": {"ec2:Encrypted": "false"}}, False),
        ({"Null": {OWNER: "false"}}, True),
        ({"Null": {OWNER: "true"}}, False),
        ({"Null": {"ec2:ResourceTag/none": True}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["owner", "Name", "more"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["owner"]}}, False),
        ({"ForAllValues:StringEquals": {"aws:none": ["owner"]}}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["owner"]}}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["more"]}}, False),
        ({"ForAnyValue:StringEquals": {"aws:none": ["owner"]}}, False),
        ({"ForAnyValue:StringNotEquals": {"aws:none": ["owner"]}}, False),
        ({"StringEquals": {OWNER: CALLER, "ec2:ResourceTag/star": "x"}}, False),
        ({"StringEquals": {OWNER: CALLER}, "Bool": {"ec2:Encrypted": "false"}}, False),
        ({"StringEquals": {OWNER: CALLER}, "Bool": {"ec2:Encrypted": "true"}}, True),
    ],
)
def test_conditions(condition: Any, holds: bool) -> None:  # noqa: FBT001 -- a column of the table
    """All operators and keys must hold, for one of their values; variables are literal."""
    verdict = Policy.from_document(policy(allow(condition))).verdict(ATTACH)
    assert verdict is (YES if holds else SILENT)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({}, "an object with Version and Statement"),
        ({"Statement": []}, "an object with Version and Statement"),
        ({"Version": "2012-10-17", "Rules": []}, "an object with Version and Statement"),
        ({"Version": "2008-10-17", "Statement": []}, "2008-10-17"),
        (policy("Allow"), "'Allow' is not an object"),
        (policy(allow(["a"])), "Condition"),
        (policy(allow({"Bool": "true"})), "Condition"),
        ([], "an object with Version and Statement"),
        (policy({"Effect": "Allow", "Action": "*"}), "lacks Resource"),
        (policy(allow() | {"Effect": "allow"}), "effect 'allow'"),
        (policy(allow() | {"NotAction": "x", "Sid": "S"}), "statement S: .*NotAction"),
        (policy(allow({"DateLessThan": {"a": "b"}})), "DateLessThan"),
    ],
)
def test_an_unsupported_policy_is_refused(rig: Rig, document: Any, complaint: str) -> None:
    """An unsupported policy is refused, in the settings and at the control endpoint."""
    with pytest.raises(InputInvalid, match=complaint):
        SandboxSettings(policy=document)
    with pytest.raises(InputInvalid, match=complaint):
        rig.control.set_policy(document)


def test_the_message_is_that_of_ec2(rig: Rig) -> None:
    """The error is 403 and names the user, the action, the resource and the reason."""
    volume_id = rig.create()
    rig.control.set_policy(policy())
    place = "us-east-1:123456789012"
    role = "assumed-role/sandbox/i-0123456789abcdef0"
    with refused(
        "UnauthorizedOperation",
        saying="You are not authorized to perform this operation. "
        f"User: arn:aws:sts::123456789012:{role} is not authorized to perform: ec2:DeleteVolume "
        f"on resource: arn:aws:ec2:{place}:volume/{volume_id} "
        "because no identity-based policy allows the ec2:DeleteVolume action",
    ):
        rig.ec2.delete_volume(VolumeId=volume_id)
    with refused(
        "UnauthorizedOperation",
        saying="is not authorized to perform: ec2:DescribeVolumes because no identity-based "
        "policy allows the ec2:DescribeVolumes action",
    ):
        rig.ec2.describe_volumes()
    rig.control.set_policy(policy(deny(action="*")))
    with refused("UnauthorizedOperation", saying="with an explicit deny in an identity-based"):
        rig.create()
    assert rig.query(Action="DescribeVolumes")[0] == 403
    assert not rig.is_gone(volume_id)


def test_rights_come_before_everything_else(rig: Rig) -> None:
    """Authorization comes before other errors, and DryRun has the same result."""
    volume_id = rig.attached()
    rig.control.set_policy(policy())
    for dry_run in (True, False):
        with refused("UnauthorizedOperation"):
            rig.create(AvailabilityZone="nowhere", DryRun=dry_run)
        with refused("UnauthorizedOperation"):
            rig.ec2.delete_volume(VolumeId=volume_id, DryRun=dry_run)
    rig.control.set_policy(policy(allow(action="*")))
    with refused("DryRunOperation"):
        rig.create(DryRun=True)
    with refused("VolumeInUse"):
        rig.ec2.delete_volume(VolumeId=volume_id, DryRun=True)


def test_what_is_not_there_is_missing_before_it_is_denied(rig: Rig) -> None:
    """A volume that does not exist is not found, not denied."""
    rig.control.set_policy(policy())
    with refused("InvalidVolume.NotFound"):
        rig.ec2.delete_volume(VolumeId="vol-0123456789abcdef0")


def test_a_request_needs_every_resource(rig: Rig) -> None:
    """Attaching needs the volume and the instance; creating with tags needs CreateTags."""
    volume_id = rig.create()
    rig.control.advance(1)
    rig.control.set_policy(policy(allow(resource=VOLUMES)))
    with refused("UnauthorizedOperation", saying=":instance/i-"):
        rig.attach(volume_id)
    rig.control.set_policy(policy(allow(resource="arn:aws:ec2:*:*:instance/*")))
    with refused("UnauthorizedOperation", saying=":volume/vol-"):
        rig.attach(volume_id)
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    rig.control.set_policy(policy(allow(action="ec2:CreateVolume", resource=VOLUMES)))
    rig.create()
    with refused("UnauthorizedOperation", saying="ec2:CreateTags on resource: "):
        rig.create(TagSpecifications=tags)


@pytest.mark.parametrize(
    ("condition", "request_", "allowed"),
    [
        ({"StringEquals": {"aws:RequestTag/a": "b"}}, {}, True),
        ({"StringEquals": {"aws:RequestTag/a": "c"}}, {}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["b"]}}, {}, False),
        ({"NumericLessThanEquals": {"ec2:VolumeSize": "10"}}, {"Size": 11}, False),
        ({"StringEquals": {"ec2:VolumeType": "gp3"}}, {"VolumeType": "st1", "Size": 125}, False),
        ({"Bool": {"ec2:Encrypted": "true"}}, {}, False),
        ({"Bool": {"ec2:Encrypted": "true"}}, {"Encrypted": True}, True),
        ({"StringEquals": {"ec2:Region": "eu-west-1"}}, {}, False),
        ({"ArnEquals": {"ec2:SourceInstanceARN": ME}}, {}, True),
    ],
)
def test_what_a_create_call_tells(
    start: Start,
    condition: Any,
    request_: dict[str, Any],
    allowed: bool,  # noqa: FBT001 -- a column
) -> None:
    """Size, type, encryption, Region, tags and caller of a create call can be conditions."""
    create = allow(condition, action="ec2:CreateVolume")
    rig = start(policy=policy(create, allow(action="ec2:CreateTags")))
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    if allowed:
        rig.create(TagSpecifications=tags, **request_)
        return
    with refused("UnauthorizedOperation", saying="ec2:CreateVolume on"):
        rig.create(TagSpecifications=tags, **request_)


def test_tagging_knows_where_it_comes_from(start: Start) -> None:
    """Permission to tag in a create call does not permit tagging existing resources."""
    condition = {"StringEquals": {"ec2:CreateAction": "CreateVolume"}}
    only = policy(allow(action="ec2:CreateVolume"), allow(condition, action="ec2:CreateTags"))
    rig = start(policy=only)
    tags: Any = [{"Key": "a", "Value": "b"}]
    volume_id = rig.create(TagSpecifications=[{"ResourceType": "volume", "Tags": tags}])
    with refused("UnauthorizedOperation", saying="ec2:CreateTags"):
        rig.ec2.create_tags(Resources=[volume_id], Tags=tags)


def test_tagging_knows_the_tags(rig: Rig) -> None:
    """The tags that may be set on existing resources can be a condition."""
    volume_id = rig.create()
    condition = {"StringEquals": {"aws:RequestTag/a": "b"}}
    rig.control.set_policy(policy(allow(condition, action="ec2:CreateTags")))
    rig.ec2.create_tags(Resources=[volume_id], Tags=[{"Key": "a", "Value": "b"}])
    with refused("UnauthorizedOperation", saying="ec2:CreateTags"):
        rig.ec2.create_tags(Resources=[volume_id], Tags=[{"Key": "a", "Value": "c"}])


def test_the_policy_can_be_taken_away(start: Start) -> None:
    """Settings survive JSON with a policy; None allows everything, an empty policy nothing."""
    settings = SandboxSettings(policy=policy(allow()))
    assert SandboxSettings.from_json(settings.to_json()) == settings
    rig = start(policy=policy())
    with refused("UnauthorizedOperation"):
        rig.create()
    rig.control.set_policy(None)
    rig.create()
