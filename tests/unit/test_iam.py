"""The printed policy and what the program says of missing rights."""

import json
from pathlib import Path

import pytest

from ebs_autoscale.cli.parser import main
from ebs_autoscale.ec2.errors import translated
from ebs_autoscale.ec2.iam import STATEMENTS, denial_in, policy_document
from ebs_autoscale.errors import ConfigInvalid

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
    assert json.loads(capsys.readouterr().out) == policy_document(kms_key_arn=None)
    assert main(["iam-policy", "--kms-key", KEY]) == 0
    assert json.loads(capsys.readouterr().out) == policy_document(kms_key_arn=KEY)
    assert main(["iam-policy", "--adopt"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_document(kms_key_arn=None, adopt=True)


def test_statements_have_names_of_their_own() -> None:
    """A Sid is letters and digits (IAM refuses others) and names one statement alone."""
    sids = [each["Sid"] for each in policy_document(kms_key_arn=KEY, adopt=True)["Statement"]]
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
def test_a_wrong_key(arn: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not the ARN of one key is one sentence and exit 2, and no policy."""
    assert main(["iam-policy", "--kms-key", arn]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    [sentence] = said.err.splitlines()
    assert repr(arn) in sentence
    with pytest.raises(ConfigInvalid):
        policy_document(kms_key_arn=arn)


@pytest.mark.parametrize("arn", [KEY, KEY.replace("aws:", "aws-us-gov:"), f"{KEY[:-36]}mrk-12ab"])
def test_keys_of_every_kind(arn: str) -> None:
    """Keys of all partitions and multi-Region keys are keys; nothing else is granted on them."""
    statements = policy_document(kms_key_arn=arn)["Statement"]
    about_key = [each for each in statements if each["Resource"] == arn]
    assert len(about_key) == 2
    assert all(action.startswith("kms:") for each in about_key for action in each["Action"])


def test_without_delete_on_termination() -> None:
    """Who lets volumes outlive the instance need not grant ModifyInstanceAttribute."""
    document = policy_document(kms_key_arn=None, delete_on_termination=False)
    assert "ModifyInstanceAttribute" not in json.dumps(document)
    assert len(document["Statement"]) == 6


def test_only_looking_is_unbound() -> None:
    """What changes something is bound to this instance, or to what EC2 does with the key."""
    for statement in STATEMENTS:
        looks = all(":Describe" in action for action in statement.actions)
        assert looks or statement.condition
        bound = json.dumps(statement.condition)
        assert looks or "ec2:SourceInstanceARN" in bound or "kms:ViaService" in bound


def test_a_policy_is_small_enough() -> None:
    """It fits into an inline policy of a role (2048 to 10240 characters, IAM quotas)."""
    written = json.dumps(policy_document(kms_key_arn=KEY, adopt=True), separators=(",", ":"))
    assert len(written) < 6144


@pytest.mark.parametrize(
    ("message", "sentence", "hint"),
    [
        (
            f"{USER}ec2:AttachVolume on resource: {VOLUME} because no identity-based policy allows",
            f"ec2:AttachVolume is denied on {VOLUME}",
            "add the statement AttachVolumesOfThisInstance; `ebs-autoscale iam-policy` prints",
        ),
        (
            f"{USER}ec2:DescribeInstances because no identity-based policy allows it",
            "ec2:DescribeInstances is denied",
            "add the statement LookAtVolumesAndInstance; `ebs-autoscale iam-policy` prints",
        ),
        (
            f"{USER}kms:CreateGrant on resource: {KEY} because no identity-based policy",
            f"kms:CreateGrant is denied on {KEY}",
            "add the statement LendTheKeyToEc2; `ebs-autoscale iam-policy --kms-key ARN` prints",
        ),
        (
            f"{USER}ec2:CreateTags on resource: {VOLUMES} because no identity-based policy allows",
            f"ec2:CreateTags is denied on {VOLUMES}",
            "add the statement TagVolumesAsTheyAreCreated; `ebs-autoscale iam-policy` prints",
        ),
        # To tag a volume that exists, as `adopt: true` does.
        (
            f"{USER}ec2:CreateTags on resource: {VOLUME} because no identity-based policy allows",
            f"ec2:CreateTags is denied on {VOLUME}",
            "add the statement AdoptVolumesOfAnOlderOne; `ebs-autoscale iam-policy --adopt` prints",
        ),
        (
            f"{USER}ec2:RunInstances on resource: {VOLUME} because",
            f"ec2:RunInstances is denied on {VOLUME}",
            "allow it in the instance's role; `ebs-autoscale iam-policy` prints",
        ),
    ],
)
def test_a_denial_is_named(message: str, sentence: str, hint: str) -> None:
    """EC2's message becomes the action, the resource and the statement to add, without the blob."""
    denial = denial_in(f"You are not authorized to perform this operation. {message}")
    assert denial is not None
    assert denial.sentence == sentence
    assert denial.hint.startswith(hint)
    error = translated("it", code="UnauthorizedOperation", message=message, status=403)
    assert error.what == f"it: UnauthorizedOperation: {sentence}"
    assert error.hint == denial.hint


def test_a_denial_in_other_words() -> None:
    """A message that names nothing is passed on as it is."""
    message = "You are not authorized. Encoded authorization failure message: abc"
    assert denial_in(message) is None
    error = translated("it", code="UnauthorizedOperation", message=message, status=403)
    assert message in str(error)
    assert "`ebs-autoscale iam-policy` prints" in error.hint


@pytest.mark.parametrize(
    ("because", "hint"),
    [
        (
            "with an explicit deny in a service control policy. Encoded authorization",
            "an explicit deny in a service control policy forbids it, whatever else allows it",
        ),
        (
            "with an explicit deny in an identity-based policy",
            "an explicit deny in an identity-based policy forbids it, whatever else allows it",
        ),
        (
            "because no permissions boundary allows the ec2:CreateVolume action",
            "the permissions boundary must allow it, too",
        ),
    ],
)
def test_other_policies_have_a_say(because: str, hint: str) -> None:
    """Where another kind of policy decides, it is named and no statement is promised to help."""
    denial = denial_in(f"{USER}ec2:CreateVolume on resource: {VOLUME} {because}")
    assert denial is not None
    assert denial.hint == hint
