"""What `check` says about EC2 when EC2 answers only some of its calls."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.checks.ec2 import lines
from ebs_autoscale.checks.filesystem import FilesystemSeen
from ebs_autoscale.checks.line import Line
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.iam import policy_document
from ebs_autoscale.model import GIB, VolumeSpec
from ebs_autoscale.policy import GrowthMethod, GrowthPolicy, Sizing
from tests.contract.clouds import OverHttp, StartHttp
from tests.contract.permissions import KEY, Life, without
from tests.unit.samples import FILESYSTEM, policy_lacking, policy_of

LOOKS = ("DescribeVolumes", "DescribeInstances", "DescribeInstanceTypes")
USES = ("AttachVolume", "DetachVolume", "ModifyInstanceAttribute", "DeleteVolume")
ACTIONS = (*LOOKS, "CreateVolume", "CreateTags", *USES)
SPEC = VolumeSpec(copy_instance_tags=True)
ENLARGING = {"DescribeVolumesModifications", "ModifyVolume"}
NEVER_ENLARGES = GrowthPolicy(sizing=Sizing(method=GrowthMethod.ADD))
MANY_TAGS = {f"tag-{number:02}": "x" for number in range(48)}


def checked(**changes: Any) -> list[Line]:
    """The lines about EC2."""
    chosen = {"mountpoint": "/scratch", "volume": SPEC, "policy": NEVER_ENLARGES, **changes}
    settings = Settings(**chosen)
    seen = FilesystemSeen(mountpoint="/scratch", uuid=FILESYSTEM)
    return list(lines(settings, seen, SystemClock()))


@pytest.fixture
def http(start: StartHttp) -> Iterator[OverHttp]:
    """An EC2 with one attached volume of ours, and with more tags than a volume can have."""
    with start(spec=SPEC, instance_tags=MANY_TAGS) as http:
        life = Life(http)
        life.create()
        life.attach()
        yield http


NAMES = {"instance", "ec2", "clock", "slots", "tags", "quota"}

# The lines that need the answer of each call.
NEEDED = {
    "DescribeVolumes": {"quota", "leftovers"},
    "DescribeInstances": {"slots", "tags"},
    "DescribeInstanceTypes": {"slots", "tags"},
}


def by_action(found: list[Line]) -> dict[str, Line]:
    """The lines about permissions; each begins with its action."""
    return {re.split(r"\W", each.sentence)[0]: each for each in found if each.name == "ec2"}


REFUSALS = [
    {"kind": FaultKind.ERROR, "code": "UnauthorizedOperation", "status": 403},
    {"kind": FaultKind.ERROR, "code": "UnsupportedOperation", "status": 400},
    {"kind": FaultKind.LOST_BEFORE},
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: str(each.get("code", each["kind"])))
@pytest.mark.parametrize("action", LOOKS)
def test_each_line_stands_alone(http: OverHttp, action: str, refusal: dict[str, Any]) -> None:
    """Where one call is refused every line is there; those that need it say so and why."""
    http.control.add_fault(FaultRule(action=action, **refusal))
    found = checked()
    assert {line.name for line in found} - {"policy"} == NAMES | NEEDED[action]
    lines_of = by_action(found)
    assert tuple(lines_of) == ACTIONS
    needs_volumes = USES if action == LOOKS[0] else ()
    assert {each for each in ACTIONS if lines_of[each].verdict == "fail"} == {action}
    assert {each for each in ACTIONS if lines_of[each].verdict == "warn"} == {*needs_volumes}
    unknown = {line.name for line in found if "not known" in line.sentence} - {"ec2"}
    assert unknown == NEEDED[action]
    assert all(line.hint for line in found if line.verdict != "ok")


@pytest.mark.parametrize(
    ("method", "verdict"), [(GrowthMethod.AUTO, "ok"), (GrowthMethod.ENLARGE, "fail")]
)
def test_a_role_that_may_not_enlarge(http: OverHttp, method: GrowthMethod, verdict: str) -> None:
    """Both calls have a line; it fails only where volumes can be had in no other way."""
    chosen = GrowthPolicy(sizing=Sizing(method=method))
    http.control.set_policy(policy_of(enlarge=True))
    assert {line.verdict for line in by_action(checked(policy=chosen)).values()} == {"ok"}
    http.control.set_policy(policy_of())
    found = by_action(checked(policy=chosen))
    assert set(found) == {*ACTIONS, *ENLARGING}
    assert {found[action].verdict for action in ENLARGING} == {verdict}
    assert {found[action].verdict for action in ACTIONS} == {"ok"}
    assert all("--enlarge" in f"{found[each].sentence} {found[each].hint}" for each in ENLARGING)


def test_a_role_that_lacks_one_action(http: OverHttp) -> None:
    """Exactly that action's line is not ok, all others are there, and what is to paste helps."""
    http.control.set_policy(policy_of())
    allowed = checked()
    was = by_action(allowed)
    assert tuple(was) == ACTIONS
    assert {line.verdict for line in was.values()} == {"ok"}
    for action in ACTIONS:
        http.control.set_policy(policy := policy_lacking(action))
        found = checked()
        lines_of = by_action(found)
        assert tuple(lines_of) == ACTIONS, action
        depends = {*USES} if action == LOOKS[0] else set()
        assert {each for each in ACTIONS if lines_of[each].verdict != "ok"} - depends == {action}
        assert lines_of[action].verdict == ("warn" if action == USES[2] else "fail")
        assert f"ec2:{action} is denied" in lines_of[action].sentence
        names = {line.name for line in allowed} | NEEDED.get(action, set())
        assert {line.name for line in found} == names | {"policy"}, action
        assert found[-1].policy, action
        names = {statement["Sid"] for statement in found[-1].policy["Statement"]}
        assert any(name in lines_of[action].hint for name in names), action
        pasted = [*policy["Statement"], *found[-1].policy["Statement"]]
        http.control.set_policy({**policy, "Statement": pasted})
        assert checked() == allowed, action


@pytest.mark.parametrize("spec", [VolumeSpec(type="gp2"), VolumeSpec(delete_on_termination=False)])
def test_what_to_paste(http: OverHttp, spec: VolumeSpec) -> None:
    """A role that may only look is told the rest of the policy for the configuration, once."""
    [look, *rest] = policy_document(spec, max_bytes=321 * GIB, kms_key_arn=None)["Statement"]
    http.control.set_policy({**policy_of(), "Statement": [look]})
    found = checked(policy=GrowthPolicy(sizing=Sizing(max_bytes=321 * GIB)), volume=spec)
    assert found[-1].as_json()["statements"] == rest
    assert all("statements" not in line.as_json() for line in found[:-1])
    assert (USES[2] in by_action(found)) == spec.delete_on_termination


def test_what_no_statement_would_allow(http: OverHttp) -> None:
    """A policy that denies explicitly is named in the line, and nothing is to be pasted."""
    deny = {"Effect": "Deny", "Action": "ec2:AttachVolume", "Resource": "*"}
    http.control.set_policy({**policy_of(), "Statement": [*policy_of()["Statement"], deny]})
    found = checked()
    assert by_action(found)["AttachVolume"].verdict == "fail"
    assert "policy" not in {line.name for line in found}


def test_a_key_of_our_own(start: StartHttp) -> None:
    """A statement about a KMS key is bound to that key, which the denial names."""
    with start(spec=VolumeSpec(kms_key_id=KEY)) as http:
        Life(http).create()
        http.control.set_policy(without("LendTheKeyToEc2"))
        found = checked(volume=VolumeSpec(kms_key_id=KEY))
    [statement] = found[-1].as_json()["statements"]
    assert (statement["Sid"], statement["Resource"]) == ("LendTheKeyToEc2", KEY)
    assert by_action(found)["AttachVolume"].verdict == "fail"


def test_what_is_not_answered_is_not_allowed(http: OverHttp) -> None:
    """A call on a volume that EC2 did not answer is not said to be allowed."""
    for action in USES:
        http.control.add_fault(FaultRule(action=action, kind=FaultKind.THROTTLE))
    assert {each for each, line in by_action(checked()).items() if line.verdict != "ok"} == {*USES}


def test_a_call_that_cannot_be_rehearsed(http: OverHttp) -> None:
    """The calls that only look are made in earnest: not all of them have a dry run."""
    checked()
    assert not [
        call for each in LOOKS for call in http.control.calls(each) if "DryRun" in call.params
    ]


def test_what_fails_everywhere_is_said_once(http: OverHttp) -> None:
    """While EC2 cannot be reached at all, one line says so."""
    http.control.add_fault(FaultRule(action="*", kind=FaultKind.LOST_BEFORE))
    assert [line.name for line in checked()].count("ec2") == 1


def test_tags_that_do_not_fit(http: OverHttp) -> None:  # noqa: ARG001 -- it runs
    """It says which tags of the instance no volume will have; without the setting, nothing."""
    [line] = [line for line in checked() if line.name == "tags"]
    assert line.verdict == "warn"
    assert all(each in line.sentence for each in ("45", "3", "tag-45", "tag-46", "tag-47"))
    assert "volume.tags" in line.hint
    assert "tags" not in {line.name for line in checked(volume=VolumeSpec())}


def test_a_volume_with_all_tags_that_fit(http: OverHttp) -> None:
    """The volume has 50 tags, ours among them, and the repeated call creates no other."""
    [volume] = http.cloud.inventory(FILESYSTEM).volumes
    [shown] = http.ec2.describe_volumes(VolumeIds=[volume.id])["Volumes"]
    # The first volume was created without knowing the tags of the instance.
    assert len(shown["Tags"]) == 5
    again = [
        http.cloud.create(volume.growth, GIB, http.cloud.inventory(FILESYSTEM)) for _ in range(2)
    ]
    assert {each.id for each in again} == {volume.id}


def test_the_largest_volume_is_rehearsed(http: OverHttp) -> None:
    """The dry run is with the largest size that a growth may ask for."""
    sizing = Sizing(max_bytes=321 * GIB)
    checked(policy=GrowthPolicy(sizing=sizing))
    [rehearsal] = [c for c in http.control.calls("CreateVolume") if c.params.get("DryRun")]
    assert rehearsal.params["Size"] == 321
