"""The least-privilege IAM policy, and the permission that a denial asks for. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ebs_autoscale.ec2.requests import (
    ADOPTED_TAG,
    FILESYSTEM_TAG,
    GROWTH_TAG,
    MOUNTPOINT_TAG,
    OWNER_TAG,
    PREDECESSOR_TAG,
)
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import GIB, VolumeSpec

# Any partition, so that one policy serves aws, aws-cn and aws-us-gov, as in AWS's own managed
# policies: https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AmazonEKSComputePolicy.html
VOLUMES = "arn:*:ec2:*:*:volume/*"
INSTANCES = "arn:*:ec2:*:*:instance/*"

# The ARN of the instance whose role signed the request:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-policies-for-amazon-ec2.html
_CALLER = "${ec2:SourceInstanceARN}"

# True of the calling instance alone, since EC2 puts the id of the instance acted on into
# ec2:InstanceID. AWS's managed policy AWSEC2VssSnapshotPolicy uses the same condition. The
# shorter `aws:ARN = ${ec2:SourceInstanceARN}` is no alternative: IAM Access Analyzer calls that
# key unsupported, and it is reported never to match. The keys of each action:
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
_THIS_INSTANCE = {"ArnLike": {"ec2:SourceInstanceARN": "arn:*:ec2:*:*:instance/${ec2:InstanceID}"}}

# The instance that the older script wrote into its tag; without the tag nothing matches.
_TAGGED_INSTANCE = f"arn:*:ec2:*:*:instance/${{ec2:ResourceTag/{PREDECESSOR_TAG}}}"

_OWNED_VOLUME = {"StringEquals": {f"ec2:ResourceTag/{OWNER_TAG}": _CALLER}}

# The role that may adopt any volume without an owner must not be able to delete it then.
_CREATED_VOLUME = {**_OWNED_VOLUME, "Null": {f"ec2:ResourceTag/{ADOPTED_TAG}": "true"}}

# As in the policy of the AWS managed key for EBS: only EC2 may use the key for us.
_VIA_EC2 = {"kms:ViaService": "ec2.*.amazonaws.com*"}

_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")

# Describe calls have no resource. Source of the wording:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
_DENIED = re.compile(
    r"is not authorized to perform: (?P<action>\w+:\w+)(?: on resource: (?P<resource>arn:\S+))?"
    r"(?: with an explicit deny in (?P<denied_by>an? [A-Za-z -]+)"
    r"| because no (?P<not_allowed_by>[A-Za-z -]+) allows)?"
)
_ROLE_POLICY = "identity-based policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of the policy; docs/permissions.md says what each is for.

    Without a `resource` it is about the KMS key of the volumes. `option` is the option of
    `iam-policy` without which it is not printed. With `is_bounded` the printed statement also
    limits what a volume can be to what the configuration asks for. One that `adds` is only needed
    where volumes are added, not for a filesystem of one device.
    """

    sid: str
    actions: tuple[str, ...]
    resource: str = ""
    condition: Mapping[str, Mapping[str, str | list[str]]] | None = None
    option: str = ""
    is_bounded: bool = False
    adds: bool = False

    def covers(self, action: str, resource: str) -> bool:
        """Whether this statement allows the action on the resource."""
        pattern = self.resource or "arn:*:kms:*"
        # A volume that is being created has no id yet, so EC2 denies its tags on `volume/*`
        # (https://github.com/kubernetes-sigs/karpenter/issues/1713). This statement does not
        # allow to tag a volume that exists.
        at_creation = "ec2:CreateAction" in (self.condition or {}).get("StringEquals", {})
        if at_creation and not resource.endswith("/*"):
            return False
        return action in self.actions and (pattern == "*" or fnmatchcase(resource, pattern))


STATEMENTS = (
    Statement(
        sid="LookAtVolumesAndInstance",
        actions=("ec2:DescribeVolumes", "ec2:DescribeInstances", "ec2:DescribeInstanceTypes"),
        # Describe calls have no resource in IAM.
        resource="*",
    ),
    Statement(
        sid="CreateVolumesOfThisInstance",
        actions=("ec2:CreateVolume",),
        resource=VOLUMES,
        condition={"StringEquals": {f"aws:RequestTag/{OWNER_TAG}": _CALLER}},
        is_bounded=True,
        adds=True,
    ),
    Statement(
        sid="TagVolumesAsTheyAreCreated",
        actions=("ec2:CreateTags",),
        resource=VOLUMES,
        condition={
            "StringEquals": {
                "ec2:CreateAction": "CreateVolume",
                f"aws:RequestTag/{OWNER_TAG}": _CALLER,
            }
        },
        adds=True,
    ),
    Statement(
        sid="AttachVolumesOfThisInstance",
        actions=("ec2:AttachVolume", "ec2:DetachVolume"),
        resource=VOLUMES,
        condition=_CREATED_VOLUME,
        adds=True,
    ),
    Statement(
        sid="AttachToThisInstance",
        actions=("ec2:AttachVolume", "ec2:DetachVolume"),
        resource=INSTANCES,
        condition=_THIS_INSTANCE,
        adds=True,
    ),
    Statement(
        sid="DeleteVolumesOfThisInstance",
        actions=("ec2:DeleteVolume",),
        resource=VOLUMES,
        condition=_CREATED_VOLUME,
        adds=True,
    ),
    # No condition limits the call to DeleteOnTermination reliably, so this allows to change
    # other attributes of this instance too; not its security groups, which are resources of
    # their own in this call, and no other instance.
    Statement(
        sid="EndVolumesWithThisInstance",
        actions=("ec2:ModifyInstanceAttribute",),
        resource=INSTANCES,
        condition=_THIS_INSTANCE,
        adds=True,
    ),
    # The service authorization reference lists volumes as resources of this call without
    # saying when they are checked; allowing it on our own volumes does no harm.
    Statement(
        sid="EndOnlyVolumesOfThisInstance",
        actions=("ec2:ModifyInstanceAttribute",),
        resource=VOLUMES,
        condition=_CREATED_VOLUME,
        adds=True,
    ),
    # The keys of size and type in this call are those that the volume has, not those asked for.
    Statement(
        sid="EnlargeVolumesOfThisInstance",
        actions=("ec2:ModifyVolume",),
        resource=VOLUMES,
        condition=_OWNED_VOLUME,
        option="--enlarge",
    ),
    Statement(
        sid="LookAtModifications",
        actions=("ec2:DescribeVolumesModifications",),
        resource="*",
        option="--enlarge",
    ),
    Statement(
        sid="AdoptVolumesOfAnOlderOne",
        actions=("ec2:CreateTags",),
        resource=VOLUMES,
        condition={
            "ArnLike": {"ec2:SourceInstanceARN": _TAGGED_INSTANCE},
            "StringEquals": {f"aws:RequestTag/{OWNER_TAG}": _CALLER},
            "ForAllValues:StringEquals": {"aws:TagKeys": [OWNER_TAG, FILESYSTEM_TAG, GROWTH_TAG]},
        },
        option="--adopt",
        adds=True,
    ),
    # No key of IAM says where a volume is attached: this allows to tag any one that has no owner,
    # and so to modify it then: size, type and performance, but nothing that loses its data.
    Statement(
        sid="AdoptTheVolumeOfAFilesystem",
        actions=("ec2:CreateTags",),
        resource=VOLUMES,
        condition={
            "StringEquals": {
                f"aws:RequestTag/{OWNER_TAG}": _CALLER,
                f"aws:RequestTag/{ADOPTED_TAG}": "true",
            },
            "Null": {f"ec2:ResourceTag/{OWNER_TAG}": "true"},
            "ForAllValues:StringEquals": {
                "aws:TagKeys": [OWNER_TAG, FILESYSTEM_TAG, GROWTH_TAG, MOUNTPOINT_TAG, ADOPTED_TAG]
            },
        },
        option="--adopt --enlarge",
    ),
    # Blank volumes need no ReEncrypt:
    # https://docs.aws.amazon.com/ebs/latest/userguide/how-ebs-encryption-works.html
    Statement(
        sid="UseTheKey",
        actions=("kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"),
        condition={"StringLike": _VIA_EC2},
        option="--kms-key ARN",
        adds=True,
    ),
    Statement(
        sid="LendTheKeyToEc2",
        actions=("kms:CreateGrant",),
        condition={"Bool": {"kms:GrantIsForAWSResource": "true"}, "StringLike": _VIA_EC2},
        option="--kms-key ARN",
        adds=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Denial:
    """What EC2 denied; `resource` is `*` for calls that have none.

    `denied_by` is the kind of policy with an explicit deny, empty when there is none;
    `not_allowed_by` is the kind of policy that lacks a permission.
    """

    action: str
    resource: str
    denied_by: str = ""
    not_allowed_by: str = _ROLE_POLICY

    @property
    def is_role_s(self) -> bool:
        """Whether a statement in the role's own policy would allow it."""
        return not self.denied_by and self.not_allowed_by == _ROLE_POLICY

    @property
    def sentence(self) -> str:
        """Which action is denied, on which resource."""
        on = "" if self.resource == "*" else f" on {self.resource}"
        return f"{self.action} is denied{on}"

    @property
    def hint(self) -> str:
        """What to add to the role, or which other policy to change."""
        found = next((s for s in STATEMENTS if s.covers(self.action, self.resource)), None)
        is_bounded = found is not None and found.is_bounded
        if self.denied_by:
            adapt = ", or adapt the `volume` section to it" if is_bounded else ""
            return f"{self.denied_by} explicitly denies it: change that policy{adapt}"
        if self.not_allowed_by != _ROLE_POLICY:
            return f"the {self.not_allowed_by} must also allow it"
        what = f"add the statement {found.sid}" if found else "allow it in the instance's role"
        if found and is_bounded:
            what = (
                f"add or renew the statement {found.sid}, which allows volumes up to growth.max "
                "as configured in `volume`"
            )
        verb = f"iam-policy {found.option}" if found and found.option else "iam-policy"
        return f"{what}; `ebs-autoscale {verb}` prints the policy"


def denial_in(message: str) -> Denial | None:
    """The denial that EC2's message tells of; None when it does not say what was denied."""
    found = _DENIED.search(message)
    if found is None:
        return None
    return Denial(
        found["action"],
        found["resource"] or "*",
        denied_by=found["denied_by"] or "",
        not_allowed_by=found["not_allowed_by"] or _ROLE_POLICY,
    )


def policy_document(
    volume: VolumeSpec,
    *,
    max_bytes: int,
    kms_key_arn: str | None,
    options: Collection[str] = (),
    adds: bool = True,
    actions: Collection[str] | None = None,
) -> dict[str, Any]:
    """The policy for the role of an instance that creates such volumes, up to that size.

    `options` are those of `iam-policy`, such as `--enlarge`. With `actions` it has only the
    statements that these need; unless it `adds` volumes to its filesystem, none for that. Raises
    ConfigInvalid for an invalid key ARN.
    """
    if kms_key_arn is not None and not is_key_arn(kms_key_arn):
        raise ConfigInvalid(
            f"{kms_key_arn!r} is not the ARN of a KMS key",
            hint="use an ARN such as arn:aws:kms:us-east-1:123456789012:key/…, not an alias",
        )
    sets_termination = volume.delete_on_termination
    unwanted = {"--adopt", "--enlarge"}.difference(options)
    wanted = [
        statement
        for statement in STATEMENTS
        if (statement.resource or kms_key_arn)
        and unwanted.isdisjoint(statement.option.split())
        and (adds or not statement.adds)
        and (sets_termination or "ec2:ModifyInstanceAttribute" not in statement.actions)
        and (actions is None or not {*statement.actions}.isdisjoint(actions))
    ]
    bounds = _bounds(volume, max(1, max_bytes // GIB))
    return {
        "Version": "2012-10-17",
        "Statement": [
            _as_json(each, each.resource or kms_key_arn, bounds if each.is_bounded else {})
            for each in wanted
        ],
    }


def is_key_arn(text: str) -> bool:
    """Whether this is the ARN of a KMS key, and not a key id or an alias."""
    return _KEY_ARN.fullmatch(text) is not None


def _bounds(volume: VolumeSpec, max_gib: int) -> dict[str, dict[str, str]]:
    """What limits a create call to the configured volumes.

    Sizes are in GiB, throughput in MiB/s. Where performance is not configured, a call that asks for
    no more than EC2's default passes, and so does one that does not mention it.
    """
    offer = VOLUME_TYPES[volume.type]
    bounds = {
        "StringEquals": {"ec2:VolumeType": volume.type},
        "NumericLessThanEquals": {"ec2:VolumeSize": str(max_gib)},
    }
    if volume.encrypted:
        bounds["Bool"] = {"ec2:Encrypted": "true"}
    performance = (
        ("ec2:VolumeIops", volume.iops, offer.included_iops),
        ("ec2:VolumeThroughput", volume.throughput_mib_per_second, offer.included_mib_per_second),
    )
    for key, configured, included in performance:
        if configured is not None:
            bounds["NumericLessThanEquals"][key] = str(configured)
        elif included:
            bounds.setdefault("NumericLessThanEqualsIfExists", {})[key] = str(included)
    return bounds


def _as_json(
    statement: Statement, resource: str | None, bounds: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "Sid": statement.sid,
        "Effect": "Allow",
        "Action": list(statement.actions),
        "Resource": resource,
    }
    condition = statement.condition or {}
    if condition or bounds:
        document["Condition"] = {
            operator: {**condition.get(operator, {}), **bounds.get(operator, {})}
            for operator in dict.fromkeys([*condition, *bounds])
        }
    return document
