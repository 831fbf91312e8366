"""Policies that the role of a simulated instance has."""

from typing import Any

from ebs_autoscale.iam import policy_document

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
POLICY = policy_document(kms_key_arn=KEY)

# What the first version of this program asked for, word for word.
SEED: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "ec2:AttachVolume",
                "ec2:DescribeVolumeStatus",
                "ec2:DescribeVolumes",
                "ec2:ModifyInstanceAttribute",
                "ec2:DescribeVolumeAttribute",
                "ec2:CreateVolume",
                "ec2:DeleteVolume",
            ],
            "Resource": "*",
        }
    ],
}


def without(sid: str) -> dict[str, Any]:
    """Take one statement out."""
    kept = [each for each in POLICY["Statement"] if each["Sid"] != sid]
    assert len(kept) == len(POLICY["Statement"]) - 1
    return {**POLICY, "Statement": kept}
