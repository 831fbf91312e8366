"""The printed policy, and what an operator is told of missing permissions."""

import json
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale.cli.parser import main
from ebs_autoscale.ec2.errors import translated
from ebs_autoscale.ec2.iam import STATEMENTS, denial_in
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import GIB
from tests.unit.samples import policy_of

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
USER = "User: arn:aws:sts::123456789012:assumed-role/r/i-1 is not authorized to perform: "
VOLUME = "arn:aws:ec2:us-east-1:123456789012:volume/vol-1"
VOLUMES = "arn:aws:ec2:us-east-1:123456789012:volume/*"


def test_the_verb_prints_the_policy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`iam-policy` needs neither root nor configuration nor EC2, and prints JSON alone."""
    monkeypatch.setenv("EBS_AUTOSCALE_CONFIG", str(tmp_path / "none.yaml"))
    assert main(["iam-policy"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_of()
    assert main(["iam-policy", "--kms-key", KEY]) == 0
    assert json.loads(capsys.readouterr().out) == policy_of(kms_key_arn=KEY)
    assert main(["iam-policy", "--enlarge"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_of(enlarge=True)
    assert main(["iam-policy", "--adopt"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_of(adopt=True)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("growth: {max: 500GiB}", policy_of(max_bytes=500 * GIB)),
        ("growth: {size: 2TiB}", policy_of(max_bytes=2048 * GIB)),
        (
            "volume: {iops: 6000, throughput: 250}",
            policy_of(iops=6000, throughput_mib_per_second=250),
        ),
        ("volume: {type: io2, iops: 20000}", policy_of(type="io2", iops=20_000)),
        ("volume: {type: st1}\ngrowth: {min: 125GiB}", policy_of(type="st1")),
        ("volume: {encrypted: false}", policy_of(encrypted=False)),
        ("volume: {delete_on_termination: false}", policy_of(delete_on_termination=False)),
        (f"volume: {{kms_key_id: '{KEY}'}}", policy_of(kms_key_arn=KEY)),
        ("volume: {kms_key_id: alias/aws/ebs}", policy_of()),
        ("adopt: true", policy_of(adopt=True)),
        ("growth: {method: enlarge}", policy_of(enlarge=True)),
        ("growth: {method: add}", policy_of()),
    ],
)
def test_the_policy_follows_the_configuration(
    text: str, policy: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a configuration the printed policy allows what that needs, and no more."""
    path = tmp_path / "config.yaml"
    path.write_text(f"mountpoint: /scratch\n{text}\n", "utf-8")
    assert main(["iam-policy", "--config", str(path)]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == (policy, "")


def test_a_key_that_a_policy_cannot_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alias names no key in IAM: the policy is printed without it, and stderr says so."""
    path = tmp_path / "config.yaml"
    path.write_text("mountpoint: /scratch\nvolume: {kms_key_id: alias/mine}\n", "utf-8")
    assert main(["iam-policy", "--config", str(path)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == policy_of()
    assert "--kms-key" in said.err
    assert main(["iam-policy", "--config", str(path), "--kms-key", KEY]) == 0
    assert capsys.readouterr().err == ""


def test_an_invalid_configuration_has_no_policy(tmp_path: Path) -> None:
    """A policy for the defaults would be of no use to what the operator means."""
    path = tmp_path / "config.yaml"
    path.write_text("mountpoint: /scratch\nvolume: {type: gp4}\n", "utf-8")
    assert main(["iam-policy", "--config", str(path)]) == 2


def test_statements_have_names_of_their_own() -> None:
    """A Sid has only letters and digits (IAM refuses others) and is unique."""
    whole = policy_of(kms_key_arn=KEY, adopt=True, enlarge=True)
    sids = [each["Sid"] for each in whole["Statement"]]
    assert sids == [statement.sid for statement in STATEMENTS]
    assert len(set(sids)) == len(sids)
    assert all(sid.isascii() and sid.isalnum() for sid in sids)


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "*",
        "alias/mine",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:123456789012:alias/mine",
        "arn:aws:kms:us-east-1:123456789012:key/*",
        "arn:aws:s3:us-east-1:123456789012:key/1234",
        "arn:aws:kms:*:123456789012:key/1234",
        f"{KEY}\n",
    ],
)
def test_a_wrong_key(arn: str, capfd: pytest.CaptureFixture[str]) -> None:
    """For what is no ARN of a key nothing is printed, and the exit code is 2."""
    assert main(["iam-policy", "--kms-key", arn]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert repr(arn) in said.err
    with pytest.raises(ConfigInvalid):
        policy_of(kms_key_arn=arn)


def test_where_no_volume_is_added() -> None:
    """What enlarges one volume may neither create, attach nor delete any, nor use a key."""
    actions = {
        action.removeprefix("ec2:")
        for statement in policy_of(adds=False, enlarge=True, kms_key_arn=KEY)["Statement"]
        for action in statement["Action"]
    }
    assert {action for action in actions if not action.startswith("Describe")} == {"ModifyVolume"}


@pytest.mark.parametrize("arn", [KEY, KEY.replace("aws:", "aws-us-gov:"), f"{KEY[:-36]}mrk-12ab"])
def test_keys_of_every_kind(arn: str) -> None:
    """Keys of all partitions and multi-Region keys are accepted; only KMS actions name them."""
    statements = policy_of(kms_key_arn=arn)["Statement"]
    about_key = [each for each in statements if each["Resource"] == arn]
    assert len(about_key) == 2
    assert all(action.startswith("kms:") for each in about_key for action in each["Action"])


def test_without_delete_on_termination() -> None:
    """Without `volume.delete_on_termination` ModifyInstanceAttribute is not needed."""
    document = policy_of(delete_on_termination=False)
    assert "ModifyInstanceAttribute" not in json.dumps(document)
    assert len(document["Statement"]) == 6


def test_only_describe_calls_are_unconditional() -> None:
    """What changes something is limited to this instance, or to EC2's use of the key."""
    for statement in STATEMENTS:
        looks = all(":Describe" in action for action in statement.actions)
        assert looks or statement.condition
        bound = json.dumps(statement.condition)
        assert looks or "ec2:SourceInstanceARN" in bound or "kms:ViaService" in bound


def test_a_policy_is_small_enough() -> None:
    """It fits into an inline policy of a role (2048 to 10240 characters, IAM quotas)."""
    whole = policy_of(kms_key_arn=KEY, adopt=True, enlarge=True)
    written = json.dumps(whole, separators=(",", ":"))
    assert len(written) < 6144


@pytest.mark.parametrize(
    ("action", "resource", "named"),
    [
        ("ec2:AttachVolume", VOLUME, ["AttachVolumesOfThisInstance", "`ebs-autoscale iam-policy`"]),
        ("ec2:DescribeInstances", "", ["LookAtVolumesAndInstance", "`ebs-autoscale iam-policy`"]),
        ("kms:CreateGrant", KEY, ["LendTheKeyToEc2", "`ebs-autoscale iam-policy --kms-key ARN`"]),
        ("ec2:CreateTags", VOLUMES, ["TagVolumesAsTheyAreCreated", "`ebs-autoscale iam-policy`"]),
        # To tag a volume that exists, as `adopt: true` does.
        (
            "ec2:CreateTags",
            VOLUME,
            ["AdoptVolumesOfAnOlderOne", "`ebs-autoscale iam-policy --adopt`"],
        ),
        ("ec2:RunInstances", VOLUME, ["`ebs-autoscale iam-policy`"]),
    ],
)
def test_a_denial_is_named(action: str, resource: str, named: list[str]) -> None:
    """EC2's message becomes the action, the resource and the statement to add."""
    on = f" on resource: {resource}" if resource else ""
    message = f"{USER}{action}{on} because no identity-based policy allows it. Encoded: 0123"
    denial = denial_in(f"You are not authorized to perform this operation. {message}")
    assert denial is not None
    assert (denial.action, denial.resource) == (action, resource or "*")
    assert all(name in denial.hint for name in named)
    error = translated("it", code="UnauthorizedOperation", message=message, status=403)
    assert error.cause is Cause.DENIED
    assert error.what == f"it: UnauthorizedOperation: {denial.sentence}"
    assert error.hint == denial.hint


def test_a_denial_without_details() -> None:
    """A message that does not say what was denied is passed on as it is."""
    message = "You are not authorized. Encoded authorization failure message: abc"
    assert denial_in(message) is None
    error = translated("it", code="UnauthorizedOperation", message=message, status=403)
    assert error.cause is Cause.DENIED
    assert message in error.what
    assert "`ebs-autoscale iam-policy`" in error.hint


@pytest.mark.parametrize(
    ("reason", "policy"),
    [
        ("with an explicit deny in a service control policy. Encoded", "a service control policy"),
        ("with an explicit deny in an identity-based policy", "an identity-based policy"),
        ("because no permissions boundary allows the action", "permissions boundary"),
        ("with an explicit deny in a VPC endpoint policy. Encoded", "a VPC endpoint policy"),
        (
            "because no VPC endpoint policy allows the ec2:CreateVolume action",
            "VPC endpoint policy",
        ),
        (
            "with an explicit deny in a resource control policy: arn:aws:x",
            "resource control policy",
        ),
        ("because no session policy allows the action", "session policy"),
    ],
)
def test_other_policies(reason: str, policy: str) -> None:
    """Where another kind of policy decides, it is named, and no statement as the remedy."""
    denial = denial_in(f"{USER}ec2:CreateVolume on resource: {VOLUME} {reason}")
    assert denial is not None
    assert policy in denial.hint
    assert not any(statement.sid in denial.hint for statement in STATEMENTS)
