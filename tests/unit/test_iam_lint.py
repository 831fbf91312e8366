"""The printed policy, checked by parliament and against AWS's tables of actions."""

import ast
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.loaders import Loader
from policy_sentry.querying.actions import get_action_data
from policy_sentry.querying.conditions import get_condition_keys_for_service

import ebs_autoscale
from ebs_autoscale.ec2.iam import STATEMENTS, Statement
from tests.unit.samples import policy_of

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
POLICY = policy_of(kms_key_arn=KEY, adopt=True, enlarge=True)

# Any volume or instance by its ARN: the condition is what limits them, and a volume that is
# being created has no id to name.
ANY = "RESOURCE_EFFECTIVELY_STAR"
# The volume is in one statement and the instance in another, as is necessary when their
# conditions differ; https://github.com/duo-labs/parliament/issues/48.
HALF = "RESOURCE_MISMATCH"
# The linter's tables do not know that this key comes with every request of an instance's role.
CALLER = "UNKNOWN_CONDITION_FOR_ACTION ec2:SourceInstanceARN"

FALSE_ALARMS = {
    "CreateVolumesOfThisInstance": {ANY},
    "AttachVolumesOfThisInstance": {HALF},
    "AttachToThisInstance": {HALF, CALLER},
    "DeleteVolumesOfThisInstance": {ANY},
    "EndVolumesWithThisInstance": {ANY, CALLER},
    "EndOnlyVolumesOfThisInstance": {HALF},
    "EnlargeVolumesOfThisInstance": {ANY},
    "AdoptVolumesOfAnOlderOne": {CALLER},
}


@pytest.fixture(scope="module")
def analyze() -> Callable[[str], Any]:
    """Parliament, whose import leaves files open and uses deprecated parts of setuptools."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from parliament import (  # type: ignore[import-untyped] # noqa: PLC0415 -- see above
            analyze_policy_string,
        )
    found: Callable[[str], Any] = analyze_policy_string
    return found


def findings(analyze: Callable[[str], Any], statement: dict[str, Any]) -> set[str]:
    """What parliament finds in a statement: codes, for conditions with their key."""
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    found = ((each.issue, str(each.detail)) for each in analyze(document).findings)
    return {
        f"{issue} {detail.split()[2]}" if issue == "UNKNOWN_CONDITION_FOR_ACTION" else issue
        for issue, detail in found
    }


def test_parliament_finds_nothing(analyze: Callable[[str], Any]) -> None:
    """The linter finds nothing but the known false alarms, and each of those."""
    found = {each["Sid"]: findings(analyze, each) for each in POLICY["Statement"]}
    assert {sid: issues for sid, issues in found.items() if issues} == FALSE_ALARMS


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"Action": ["ec2:CreateVolumes"]}, "UNKNOWN_ACTION"),
        ({"Resource": "*"}, "RESOURCE_STAR"),
        ({"Effect": "allow"}, "MALFORMED"),
        ({"Condition": {"StringEqual": {"ec2:VolumeType": "gp3"}}}, "UNKNOWN_OPERATOR"),
        (
            {"Condition": {"StringEquals": {"ec2:VolumeKind": "gp3"}}},
            "UNKNOWN_CONDITION_FOR_ACTION ec2:VolumeKind",
        ),
    ],
)
def test_parliament_would_find_it(
    analyze: Callable[[str], Any], change: dict[str, Any], issue: str
) -> None:
    """A mistake in the policy is found, besides the false alarms."""
    wrong = {**POLICY["Statement"][1], **change}
    assert issue in findings(analyze, wrong) - {ANY}


def table(action: str) -> list[dict[str, Any]]:
    """AWS's service authorization reference on an action: one row for each kind of resource."""
    service, name = action.split(":")
    data = get_action_data(service, name)
    assert data, f"AWS knows no {action}"
    rows: list[dict[str, Any]] = data[service]
    return rows


def generalised(arn_format: str) -> str:
    """An ARN format such as `arn:${Partition}:ec2:…:volume/${VolumeId}` as in the policy."""
    if arn_format == "*":
        return "*"
    *_, service, _, _, name = arn_format.split(":", 5)
    return f"arn:*:{service}:*:*:{name.split('/')[0]}/*"


GRANTED = [(statement, action) for statement in STATEMENTS for action in statement.actions]


@pytest.mark.parametrize(
    ("statement", "action"), GRANTED, ids=[f"{s.sid}-{action}" for s, action in GRANTED]
)
def test_actions_resources_and_keys_exist(statement: Statement, action: str) -> None:
    """AWS knows every action, with that kind of resource and those condition keys."""
    resource = statement.resource or "arn:*:kms:*:*:key/*"
    rows = [row for row in table(action) if generalised(row["resource_arn_format"]) == resource]
    assert rows, f"{action} does not act on {resource}"
    # On every request of an instance's role, so not listed with any action.
    known = {"ec2:SourceInstanceARN"}
    assert known <= set(get_condition_keys_for_service("ec2"))
    known |= {key.split("${")[0] for row in rows for key in row["condition_keys"]}
    [printed] = [each for each in POLICY["Statement"] if each["Sid"] == statement.sid]
    wanted = {key for keys in printed.get("Condition", {}).values() for key in keys}
    for key in wanted:
        assert key in known or f"{key.split('/')[0]}/" in known, f"{action} does not know {key}"


def test_instances_know_their_id() -> None:
    """ec2:InstanceID, which limits a call to this instance, is a key of instances in each."""
    for action in ("ec2:AttachVolume", "ec2:DetachVolume", "ec2:ModifyInstanceAttribute"):
        rows = [row for row in table(action) if "instance/" in row["resource_arn_format"]]
        assert all("ec2:InstanceID" in row["condition_keys"] for row in rows)


def called() -> set[str]:
    """The EC2 actions that the program calls, by the names that IAM gives them."""
    model = Loader().load_service_model("ec2", "service-2")
    names = {xform_name(operation): operation for operation in model["operations"]}
    words = set()
    for path in Path(ebs_autoscale.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    return {f"ec2:{names[word]}" for word in words & names.keys()}


def test_the_policy_allows_what_is_called_and_nothing_else() -> None:
    """The policy allows what the code calls and what these calls depend on, by AWS's tables."""
    needed = called()
    for action in called():
        needed |= {depends for row in table(action) for depends in row["dependent_actions"]}
    granted = {action for _, action in GRANTED if action.startswith("ec2:")}
    assert granted == needed
