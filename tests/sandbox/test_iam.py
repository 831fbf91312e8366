"""Authorization of every action, and the details of the policy evaluator."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.iam.policy import Access, Policy, Verdict

from tests.sandbox.conftest import Rig, refused

PLACE = "arn:aws:ec2:us-east-1:123456789012"
VOLUME = f"{PLACE}:volume/vol-1"
ALLOW: Mapping[str, Any] = {"Effect": "Allow", "Action": "ec2:DeleteVolume", "Resource": "*"}
DENY = {**ALLOW, "Effect": "Deny"}
KEY = "ec2:ResourceTag/Owner"
CONTEXT = {"ec2:resourcetag/owner": ("me",), "ec2:volumeid": ("vol-1",)}


def document(*statements: object) -> dict[str, Any]:
    """A policy with these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def verdict(*statements: object, context: Mapping[str, Any] = CONTEXT) -> Verdict:
    """The verdict of a policy on deleting the volume."""
    access = Access(action="ec2:DeleteVolume", resource=VOLUME, context=context)
    return Policy.from_document(document(*statements)).verdict(access)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Action": "ec2:D*Volume"}, True),
        ({"Action": "ec2:[D]*"}, False),
        ({"Action": "ec2:DeleteVolume?"}, False),
        ({"Action": "ec2.DeleteVolume"}, False),
        ({"Action": []}, False),
        ({"Resource": f"{PLACE}:*"}, True),
        ({"Resource": f"{PLACE}:volume/${{ec2:VolumeID}}"}, True),
        ({"Resource": f"{PLACE}:volume/${{ec2:Missing, 'vol-1'}}"}, True),
        ({"Resource": f"{PLACE}:volume/${{ec2:Missing}}"}, False),
        ({"Resource": f"{PLACE}:volume/${{*}}"}, False),
        ({"Resource": f"{PLACE}:Volume/*"}, False),
        ({"Resource": "arn:*"}, False),
        ({"Resource": []}, False),
    ],
)
def test_patterns_fit_as_a_whole(change: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 -- a table
    """Only * and ? are wildcards; a variable is its literal value, or matches nothing."""
    assert (verdict({**ALLOW, **change}) is Verdict.ALLOWED) is expected


@pytest.mark.parametrize(
    ("operator", "wanted", "expected"),
    [
        ("StringNotEqualsIgnoreCase", "ME", False),
        ("StringLike", "m.", False),
        ("ArnLike", "*", False),
        ("ArnNotEquals", VOLUME, True),
        ("BoolIfExists", "true", False),
        ("NumericGreaterThanEquals", "1", False),
        ("ForAllValues:StringLike", "m?", True),
        ("ForAnyValue:StringNotEquals", "me", False),
    ],
)
def test_each_operator_compares_in_its_way(
    operator: str,
    wanted: str,
    expected: bool,  # noqa: FBT001 -- a table
) -> None:
    """IfExists compares existing keys; a value that is not an ARN or a number never matches."""
    allowed = verdict({**ALLOW, "Condition": {operator: {KEY: wanted}}}) is Verdict.ALLOWED
    assert allowed is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringLike", False),
        ("ArnLike", False),
        ("Bool", False),
        ("NumericLessThan", False),
        ("ArnNotLike", True),
        ("NumericNotEquals", True),
        ("BoolIfExists", True),
        ("ForAllValues:StringLike", True),
        ("ForAnyValue:StringNotEquals", False),
    ],
)
def test_a_missing_key_satisfies_few(operator: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    """A missing key satisfies negations, IfExists and ForAllValues only."""
    statement = {**ALLOW, "Condition": {operator: {KEY: "true"}}}
    assert (verdict(statement, context={}) is Verdict.ALLOWED) is expected


@pytest.mark.parametrize(("owner", "expected"), [("you", Verdict.ALLOWED), ("me", Verdict.DENIED)])
def test_a_denial_may_have_a_condition(owner: str, expected: Verdict) -> None:
    """A Deny whose condition does not hold has no effect."""
    assert verdict(ALLOW, {**DENY, "Condition": {"StringEquals": {KEY: owner}}}) is expected


@pytest.mark.parametrize("operator", ["StringEqual", "NullIfExists", "ForAllValues:Null", "Date"])
def test_an_operator_must_be_known(operator: str) -> None:
    """An unsupported operator is refused, never taken as true."""
    with pytest.raises(InputInvalid, match=f"unsupported operator {operator}"):
        verdict({**ALLOW, "Condition": {operator: {KEY: "true"}}})


def test_a_running_sandbox_refuses_it_too(rig: Rig) -> None:
    """A malformed policy leaves the previous one in force."""
    rig.control.set_policy(document())
    wrong: list[Any] = [{"Statement": []}, document({"Effect": "Allow"}), document("Allow"), []]
    for policy in wrong:
        with pytest.raises(InputInvalid, match=r"POST policy: .*(policy|lacks)"):
            rig.control.set_policy(policy)
    with refused("UnauthorizedOperation"):
        rig.ec2.describe_volumes()


CALLS: Mapping[str, Callable[[Rig, str, dict[str, Any]], object]] = {
    "DescribeVolumes": lambda rig, _, dry: rig.ec2.describe_volumes(**dry),
    "DescribeInstances": lambda rig, _, dry: rig.ec2.describe_instances(**dry),
    "DescribeInstanceTypes": lambda rig, _, dry: rig.ec2.describe_instance_types(**dry),
    "CreateVolume": lambda rig, _, dry: rig.create(**dry),
    "DeleteVolume": lambda rig, volume, dry: rig.ec2.delete_volume(VolumeId=volume, **dry),
    "DetachVolume": lambda rig, volume, dry: rig.ec2.detach_volume(VolumeId=volume, **dry),
    "ModifyVolume": lambda rig, volume, dry: rig.ec2.modify_volume(VolumeId=volume, Size=20, **dry),
    "DescribeVolumesModifications": lambda rig, _, dry: rig.ec2.describe_volumes_modifications(
        **dry
    ),
    "AttachVolume": lambda rig, volume, dry: rig.ec2.attach_volume(
        VolumeId=volume, InstanceId=rig.settings.instance_id, Device="/dev/xvdbb", **dry
    ),
    "CreateTags": lambda rig, volume, dry: rig.ec2.create_tags(
        Resources=[volume], Tags=[{"Key": "a", "Value": "b"}], **dry
    ),
    "ModifyInstanceAttribute": lambda rig, _, dry: rig.ec2.modify_instance_attribute(
        InstanceId=rig.settings.instance_id,
        BlockDeviceMappings=[{"DeviceName": "/dev/xvdba", "Ebs": {"DeleteOnTermination": True}}],
        **dry,
    ),
}
ON = {
    **dict.fromkeys(("DeleteVolume", "DetachVolume", "AttachVolume", "CreateTags"), "volume/vol-"),
    "ModifyVolume": "volume/vol-",
    "CreateVolume": "volume/* ",
    "ModifyInstanceAttribute": "instance/i-0123456789abcdef0 ",
}


@pytest.mark.parametrize("dry", [{}, {"DryRun": True}], ids=["in earnest", "dry run"])
@pytest.mark.parametrize("action", CALLS)
def test_a_denied_call_has_no_effect(rig: Rig, action: str, dry: dict[str, Any]) -> None:
    """The response is 403 with action and resource, and there is no effect."""
    volume_id = rig.attached() if action != "DeleteVolume" else rig.create()
    rig.control.advance(100)
    rig.control.set_policy(document())
    before = rig.control.state().volumes
    with pytest.raises(ClientError) as caught:
        CALLS[action](rig, volume_id, dry)
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert answer["Error"]["Code"] == "UnauthorizedOperation"
    on = f" on resource: {PLACE}:{ON[action]}" if action in ON else " because "
    assert f"is not authorized to perform: ec2:{action}{on}" in answer["Error"]["Message"]
    assert rig.control.state().volumes == before


@pytest.mark.parametrize("action", ["CreateVolume", "AttachVolume", "DeleteVolume"])
def test_without_a_policy_all_is_allowed_again(rig: Rig, action: str) -> None:
    """The present policy applies: without one, or with one that allows it, the call succeeds."""
    volume_id = rig.create()
    rig.control.advance(10)
    rig.control.set_policy(document())
    with refused("UnauthorizedOperation"):
        CALLS[action](rig, volume_id, {})
    rig.control.set_policy(document({**ALLOW, "Action": f"ec2:{action}"}))
    with refused("DryRunOperation"):
        CALLS[action](rig, volume_id, {"DryRun": True})
    rig.control.set_policy(None)
    CALLS[action](rig, volume_id, {})
