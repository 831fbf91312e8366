"""The program under an IAM policy: the printed one, and insufficient ones."""

import json

import pytest

from tests.contract.permissions import FIRST_POLICY, without
from tests.system.bench import Host
from tests.unit.samples import policy_of

pytestmark = pytest.mark.kernel

POLICY = policy_of()

# Denied actions with the statements of the policy that allow them.
DESCRIBE = ("ec2:DescribeInstances", "LookAtVolumesAndInstance")
CREATE_TAGS = (
    "ec2:CreateTags",
    "arn:aws:ec2:us-east-1:123456789012:volume/",
    "TagVolumesAsTheyAreCreated",
)


def denied(host: Host) -> set[str]:
    """The actions that EC2 has refused so far."""
    calls = host.sandbox.calls()
    return {call.action for call in calls if call.outcome == "UnauthorizedOperation"}


def lines_about(host: Host, *names: str) -> list[dict[str, str]]:
    """The lines of `check` with these names; the exit code is 0."""
    ran = host.run("check", "--json")
    assert ran.returncode == 0, ran.stdout
    return [line for line in json.loads(ran.stdout) if line["name"] in names]


def test_grows_with_the_least_rights(host: Host) -> None:
    """The daemon grows under the printed policy, and no call is denied."""
    host.sandbox.set_policy(POLICY)
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        filesystem = host.read().filesystem[:8]
        for ordinal, left_percent in ((1, 25), (2, 20)):
            host.fill(left_percent)
            daemon.wait_event("growth_done", growth=f"{filesystem}-{ordinal}")
        assert daemon.stop() == 0
    assert len(host.volumes()) == 2
    assert all(volume.delete_on_termination for volume in host.volumes())
    assert host.leaked() == []
    assert denied(host) == set()


def test_check_with_the_least_rights(host: Host) -> None:
    """`check` passes before the first growth, naming what it could not check, and after it.

    Only what enlarging needs is denied, which other growths do without.
    """
    host.sandbox.set_policy(POLICY)
    before = lines_about(host, "ec2")
    assert any("ModifyInstanceAttribute" in line["sentence"] for line in before)
    assert host.run("grow").returncode == 0
    after = lines_about(host, "ec2", "slots")
    assert {line["verdict"] for line in (*before, *after)} == {"ok"}
    assert len(after) > len(before)
    assert denied(host) == {"DescribeVolumesModifications", "ModifyVolume"}
    assert host.leaked() == []


@pytest.mark.parametrize("verb", ["check", "grow", "run"])
def test_the_seeds_rights(host: Host, verb: str) -> None:
    """With the permissions of the first version the missing ones are named, nothing is created."""
    host.sandbox.set_policy(FIRST_POLICY)
    host.fill(25)
    if verb == "run":
        with host.daemon() as daemon:
            told = daemon.wait_event("condition_began", cause="denied")
            assert daemon.stop() == 0
        said = f"{told['message']} {told['hint']}"
    else:
        ran = host.run(verb)
        assert ran.returncode == 5
        said = ran.stdout + ran.stderr
    denied_actions = [DESCRIBE, CREATE_TAGS] if verb == "check" else [DESCRIBE]
    assert all(each in said for action in denied_actions for each in action)
    assert host.volumes() == []


def test_the_seeds_rights_and_a_look(host: Host) -> None:
    """Allowed to describe but not to tag, the daemon names CreateTags and creates nothing."""
    looks = POLICY["Statement"][0]
    host.sandbox.set_policy({**FIRST_POLICY, "Statement": [*FIRST_POLICY["Statement"], looks]})
    host.fill(25)
    with host.daemon() as daemon:
        told = daemon.wait_event("condition_began", cause="denied")
        assert all(each in f"{told['message']} {told['hint']}" for each in CREATE_TAGS)
        assert daemon.stop() == 0
    assert host.volumes() == []
    assert len(host.sandbox.calls("CreateVolume")) == 1


def test_without_delete_on_termination(host: Host) -> None:
    """Denied DeleteOnTermination alone the growth goes on with a warning, as does `check`."""
    host.sandbox.set_policy(without("EndVolumesWithThisInstance"))
    ran = host.run("grow")
    assert ran.returncode == 0
    assert "ec2:ModifyInstanceAttribute" in ran.stderr
    assert host.leaked() == []
    [line] = [line for line in lines_about(host, "ec2") if line["verdict"] != "ok"]
    assert line["verdict"] == "warn"
    assert "ec2:ModifyInstanceAttribute" in line["sentence"]
    assert "EndVolumesWithThisInstance" in line["hint"]
