"""The least privilege that works for the whole life of a filesystem. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ebs_autoscale.ec2.requests import OWNER_TAG, PREDECESSOR_TAG
from ebs_autoscale.errors import ConfigInvalid

# Any partition, so that one policy is right in aws, aws-cn and aws-us-gov; AWS's own
# managed policies are written so (AmazonEKSComputePolicy).
VOLUMES = "arn:*:ec2:*:*:volume/*"
INSTANCES = "arn:*:ec2:*:*:instance/*"

# The ARN of the instance whose role signed the request (EC2 user guide, "Policy structure").
_CALLER = "${ec2:SourceInstanceARN}"

# EC2 gives an instance as a resource its id as ec2:InstanceID (service authorization
# reference), so this is true of the calling instance alone. AWS binds instances to
# themselves in the same words (managed policy AWSEC2VssSnapshotPolicy). The shorter
# `aws:ARN = ${ec2:SourceInstanceARN}` is seen in the wild, but IAM Access Analyzer calls
# the key unsupported, and there are reports that it never matches.
_ITSELF = {"ArnLike": {"ec2:SourceInstanceARN": "arn:*:ec2:*:*:instance/${ec2:InstanceID}"}}

# The same trick with the tag that an older autoscaler wrote; without the tag nothing matches.
_PREDECESSORS_INSTANCE = f"arn:*:ec2:*:*:instance/${{ec2:ResourceTag/{PREDECESSOR_TAG}}}"

_OWN_VOLUME = {"StringEquals": {f"ec2:ResourceTag/{OWNER_TAG}": _CALLER}}

# As in the key policy of AWS's own key for EBS: the key serves EC2, nobody else.
_VIA_EC2 = {"kms:ViaService": "ec2.*.amazonaws.com*"}

_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")

# EC2's words since 2023; Describe calls have no resource. Source: IAM user guide,
# "Troubleshoot access denied error messages".
_DENIED = re.compile(
    r"is not authorized to perform: (?P<action>\w+:\w+)(?: on resource: (?P<resource>arn:\S+))?"
    r"(?: with an explicit deny in (?P<denier>an? [a-z -]+)"
    r"| because no (?P<silent>[a-z -]+) allows)?"
)
_OF_THE_ROLE = "identity-based policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One right and what it is for; without a `resource` it is about the KMS key of the volumes."""

    sid: str
    why: str
    actions: tuple[str, ...]
    resource: str = ""
    condition: Mapping[str, Mapping[str, str]] | None = None
    option: str = ""
    """The option of `iam-policy` that it takes to have it printed."""

    def covers(self, action: str, resource: str) -> bool:
        """Whether it is the one that grants this action on this resource."""
        pattern = self.resource or "arn:*:kms:*"
        # What is being created has no id yet: EC2 denies its tags on `volume/*` as such
        # (kubernetes-sigs/karpenter, issue 1713). What exists cannot be tagged by this right.
        at_creation = "ec2:CreateAction" in (self.condition or {}).get("StringEquals", {})
        if at_creation and not resource.endswith("/*"):
            return False
        return action in self.actions and (pattern == "*" or fnmatchcase(resource, pattern))


STATEMENTS = (
    Statement(
        sid="LookAtVolumesAndInstance",
        why="See which volumes exist, what is attached here, and how many more the type takes.",
        actions=("ec2:DescribeVolumes", "ec2:DescribeInstances", "ec2:DescribeInstanceTypes"),
        # IAM knows no resources for Describe calls.
        resource="*",
    ),
    Statement(
        sid="CreateVolumesOfThisInstance",
        why="Buy volumes, each of which names this very instance as its owner.",
        actions=("ec2:CreateVolume",),
        resource=VOLUMES,
        condition={"StringEquals": {f"aws:RequestTag/{OWNER_TAG}": _CALLER}},
    ),
    Statement(
        sid="TagVolumesAsTheyAreCreated",
        why="Set the tags in the call that creates; no tag can be added or changed later.",
        actions=("ec2:CreateTags",),
        resource=VOLUMES,
        condition={
            "StringEquals": {
                "ec2:CreateAction": "CreateVolume",
                f"aws:RequestTag/{OWNER_TAG}": _CALLER,
            }
        },
    ),
    Statement(
        sid="AttachVolumesOfThisInstance",
        why="Attach volumes of this instance, and detach one whose attachment hangs.",
        actions=("ec2:AttachVolume", "ec2:DetachVolume"),
        resource=VOLUMES,
        condition=_OWN_VOLUME,
    ),
    Statement(
        sid="AttachToThisInstance",
        why="The other half: to this instance and to no other.",
        actions=("ec2:AttachVolume", "ec2:DetachVolume"),
        resource=INSTANCES,
        condition=_ITSELF,
    ),
    Statement(
        sid="DeleteVolumesOfThisInstance",
        why="Delete a blank volume that was bought and could not be attached.",
        actions=("ec2:DeleteVolume",),
        resource=VOLUMES,
        condition=_OWN_VOLUME,
    ),
    # The attributes of an instance cannot be told apart reliably in a condition, so this
    # reaches more than DeleteOnTermination; but not security groups, which are resources
    # of their own in this call (service authorization reference), nor other instances.
    Statement(
        sid="EndVolumesWithThisInstance",
        why="Set DeleteOnTermination, so that no volume outlives this instance.",
        actions=("ec2:ModifyInstanceAttribute",),
        resource=INSTANCES,
        condition=_ITSELF,
    ),
    # The reference lists volumes as resources of this call; which calls are judged by them
    # it does not say, and a right on our own volumes that is not needed does no harm.
    Statement(
        sid="EndOnlyVolumesOfThisInstance",
        why="The other half: of the volumes of this instance and of no others.",
        actions=("ec2:ModifyInstanceAttribute",),
        resource=VOLUMES,
        condition=_OWN_VOLUME,
    ),
    Statement(
        sid="AdoptVolumesOfAnOlderOne",
        why="Make volumes of an older autoscaler on this instance ours; only with `--adopt`.",
        actions=("ec2:CreateTags",),
        resource=VOLUMES,
        condition={
            "ArnLike": {"ec2:SourceInstanceARN": _PREDECESSORS_INSTANCE},
            "StringEquals": {f"aws:RequestTag/{OWNER_TAG}": _CALLER},
        },
        option="--adopt",
    ),
    # Blank volumes need no ReEncrypt (EBS user guide, "How Amazon EBS encryption works").
    Statement(
        sid="UseTheKey",
        why="Let EC2 make and open the data keys of the volumes; only with `--kms-key`.",
        actions=("kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"),
        condition={"StringLike": _VIA_EC2},
        option="--kms-key ARN",
    ),
    Statement(
        sid="LendTheKeyToEc2",
        why="Let EC2 keep on using the key while a volume is attached; only with `--kms-key`.",
        actions=("kms:CreateGrant",),
        condition={"Bool": {"kms:GrantIsForAWSResource": "true"}, "StringLike": _VIA_EC2},
        option="--kms-key ARN",
    ),
)


@dataclass(frozen=True, slots=True)
class Denial:
    """What EC2 said that the role may not do; `resource` is `*` for calls that have none.

    `denier` is the kind of policy that denies explicitly, `silent` the kind that lacks a right.
    """

    action: str
    resource: str
    denier: str = ""
    silent: str = _OF_THE_ROLE

    @property
    def sentence(self) -> str:
        """The denied action, and on what."""
        on = "" if self.resource == "*" else f" on {self.resource}"
        return f"{self.action} is denied{on}"

    @property
    def hint(self) -> str:
        """What to add to the role, or where else the answer is."""
        if self.denier:
            return f"an explicit deny in {self.denier} forbids it, whatever else allows it"
        if self.silent != _OF_THE_ROLE:
            return f"the {self.silent} must allow it, too"
        found = next((s for s in STATEMENTS if s.covers(self.action, self.resource)), None)
        what = f"add the statement {found.sid}" if found else "allow it in the instance's role"
        verb = f"iam-policy {found.option}" if found and found.option else "iam-policy"
        return f"{what}; `ebs-autoscale {verb}` prints the policy"


def denial_in(message: str) -> Denial | None:
    """Read EC2's message; None when it does not say what was denied."""
    found = _DENIED.search(message)
    if found is None:
        return None
    return Denial(
        found["action"],
        found["resource"] or "*",
        denier=found["denier"] or "",
        silent=found["silent"] or _OF_THE_ROLE,
    )


def policy_document(
    *, kms_key_arn: str | None, delete_on_termination: bool = True, adopt: bool = False
) -> dict[str, Any]:
    """The policy for the role of an instance; raises ConfigInvalid for what is no key's ARN."""
    if kms_key_arn is not None and not _KEY_ARN.fullmatch(kms_key_arn):
        raise ConfigInvalid(
            f"{kms_key_arn!r} is not the ARN of a KMS key",
            hint="it looks like arn:aws:kms:us-east-1:123456789012:key/…; an alias will not do",
        )
    wanted = [
        statement
        for statement in STATEMENTS
        if (statement.resource or kms_key_arn)
        and (adopt or statement.option != "--adopt")
        and (delete_on_termination or "ec2:ModifyInstanceAttribute" not in statement.actions)
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            _written(statement, statement.resource or kms_key_arn) for statement in wanted
        ],
    }


def _written(statement: Statement, resource: str | None) -> dict[str, Any]:
    written: dict[str, Any] = {
        "Sid": statement.sid,
        "Effect": "Allow",
        "Action": list(statement.actions),
        "Resource": resource,
    }
    if statement.condition:
        written["Condition"] = {name: dict(keys) for name, keys in statement.condition.items()}
    return written
