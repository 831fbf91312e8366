"""The program under an IAM policy: with the printed one, and with too little."""

import json

import pytest

from ebs_autoscale.ec2.iam import policy_document
from tests.contract.permissions import FIRST_POLICY, without
from tests.system.bench import Host

pytestmark = pytest.mark.kernel

POLICY = policy_document(kms_key_arn=None)


def denied(host: Host) -> set[str]:
    """The actions that EC2 has refused so far."""
    calls = host.sandbox.calls()
    return {call.action for call in calls if call.outcome == "UnauthorizedOperation"}


def test_grows_with_the_least_rights(host: Host) -> None:
    """The daemon grows under the printed policy, protects what it bought, and is denied nothing."""
    host.sandbox.set_policy(POLICY)
    with host.daemon() as daemon:
        daemon.wait_for("hold: ")
        host.fill(25)
        daemon.wait_for("is complete")
        host.fill(20)
        daemon.wait_for("-2 is complete")
        assert daemon.stop() == 0
    assert len(host.volumes()) == 2
    assert all(volume.delete_on_termination for volume in host.volumes())
    assert host.leaked() == []
    assert denied(host) == set()


def test_check_with_the_least_rights(host: Host) -> None:
    """`check` is content before the first growth, saying what it left out, and after it."""
    host.sandbox.set_policy(POLICY)
    fresh = host.run("check")
    assert fresh.returncode == 0, fresh.stdout
    assert (
        "ok   ec2         AttachVolume, DetachVolume, ModifyInstanceAttribute, DeleteVolume: "
        "can be rehearsed once there is a volume of ours"
    ) in fresh.stdout
    assert host.run("grow").returncode == 0
    lines = json.loads(host.run("check", "--json").stdout)
    assert {line["verdict"] for line in lines if line["name"] in {"ec2", "slots"}} == {"ok"}
    assert "ModifyInstanceAttribute allowed" in {line["sentence"] for line in lines}
    assert denied(host) == set()
    assert host.leaked() == []


@pytest.mark.parametrize("verb", ["check", "grow", "run"])
def test_the_seeds_rights(host: Host, verb: str) -> None:
    """With the first version's rights what is missing is named, and nothing is bought."""
    host.sandbox.set_policy(FIRST_POLICY)
    host.fill(25)
    if verb == "run":
        with host.daemon() as daemon:
            daemon.wait_for("ec2:DescribeInstances is denied")
            assert "add the statement LookAtVolumesAndInstance; " in daemon.log
            assert daemon.stop() == 0
    else:
        ran = host.run(verb)
        assert ran.returncode == 5
        said = ran.stdout + ran.stderr
        assert "ec2:DescribeInstances is denied" in said
        assert "add the statement LookAtVolumesAndInstance; `ebs-autoscale iam-policy`" in said
        if verb == "check":
            assert "ec2:CreateTags is denied on arn:aws:ec2:us-east-1:123456789012:volume/" in said
            assert "add the statement TagVolumesAsTheyAreCreated; " in said
    assert host.volumes() == []


def test_the_seeds_rights_and_a_look(host: Host) -> None:
    """May it look but not tag, the daemon names CreateTags and buys nothing."""
    looks = POLICY["Statement"][0]
    host.sandbox.set_policy({**FIRST_POLICY, "Statement": [*FIRST_POLICY["Statement"], looks]})
    host.fill(25)
    with host.daemon() as daemon:
        daemon.wait_for("ec2:CreateTags is denied on arn:aws:ec2:us-east-1:123456789012:volume/")
        assert "add the statement TagVolumesAsTheyAreCreated; " in daemon.log
        assert daemon.stop() == 0
    assert host.volumes() == []
    assert len(host.sandbox.calls("CreateVolume")) == 1


def test_without_protection(host: Host) -> None:
    """Denied DeleteOnTermination alone the growth goes on with a warning, as does `check`."""
    host.sandbox.set_policy(without("EndVolumesWithThisInstance"))
    ran = host.run("grow")
    assert ran.returncode == 0
    assert "ec2:ModifyInstanceAttribute is denied on arn:aws:ec2:us-east-1" in ran.stderr
    assert host.leaked() == []
    ran = host.run("check")
    assert ran.returncode == 0
    assert "warn ec2         ModifyInstanceAttribute: " in ran.stdout
    assert "add the statement EndVolumesWithThisInstance; " in ran.stdout
