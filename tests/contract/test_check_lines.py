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
from ebs_autoscale.model import GIB, VolumeSpec
from ebs_autoscale.policy import GrowthPolicy, Sizing
from tests.contract.clouds import OverHttp, StartHttp
from tests.contract.permissions import Life
from tests.unit.samples import FILESYSTEM

LOOKS = ("DescribeVolumes", "DescribeInstances", "DescribeInstanceTypes")
ACTIONS = (*LOOKS, "CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume")
SPEC = VolumeSpec(copy_instance_tags=True)
MANY_TAGS = {f"tag-{number:02}": "x" for number in range(48)}


def checked(**changes: Any) -> list[Line]:
    """The lines about EC2."""
    settings = Settings(**{"mountpoint": "/scratch", "volume": SPEC, **changes})
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


def words(line: Line) -> list[str]:
    """The words of its sentence."""
    return re.findall(r"\w+", line.sentence)


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
    assert {line.name for line in found} == NAMES | NEEDED[action]
    for other in ACTIONS:
        needs_volumes = action == LOOKS[0] and other in ACTIONS[4:]
        [line] = [each for each in found if each.name == "ec2" and other in words(each)]
        assert (line.verdict == "ok") == (other != action and not needs_volumes)
    unknown = {line.name for line in found if "not known" in line.sentence}
    assert unknown == NEEDED[action]
    assert all(line.hint for line in found if line.verdict != "ok")


def test_a_call_that_cannot_be_rehearsed(http: OverHttp) -> None:
    """A call that EC2 answers is allowed, also where the same call as a dry run is not."""
    rule = FaultRule(
        kind=FaultKind.ERROR, action=LOOKS[2], code="InvalidAction", status=400, times=1
    )
    http.control.add_fault(rule)
    assert {line.name for line in checked()} == NAMES


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
