"""Every EC2 call of a growth, rehearsed: what is denied, and the policy that would allow it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.errors import Denied
from ebs_autoscale.ec2.failures import translated_errors
from ebs_autoscale.ec2.iam import is_key_arn, policy_document
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.model import GIB, GrowthId, Inventory, Volume, VolumeSpec
from ebs_autoscale.policy import GrowthMethod
from ebs_autoscale.units import format_size
from ebs_autoscale.volumes import Ec2Volumes

if TYPE_CHECKING:
    from types_boto3_ec2.literals import InstanceTypeType

Refusal = EbsAutoscaleError | None
"""Why EC2 refuses a call; None when it is allowed."""

Rehearsal = Callable[[], Refusal]
"""Makes one call that changes nothing."""

CREATE, TAG = "CreateVolume", "CreateTags"

# Sets DeleteOnTermination, without which a growth goes on with a warning.
OPTIONAL = "ModifyInstanceAttribute"

# Enlarges a volume; another one is created instead where the operator leaves the choice.
ENLARGE, LOOK_AT_ENLARGING = "ModifyVolume", "DescribeVolumesModifications"

# Conditions on tags decide these, so they can be checked only with a managed volume: any other one
# is denied under the best of policies, and for one that does not exist EC2 need not judge at all.
NEED_A_VOLUME = ("AttachVolume", "DetachVolume", OPTIONAL, "DeleteVolume", ENLARGE)

# No filesystem has this name. With the client token of a real growth EC2 would answer
# IdempotentParameterMismatch.
_REHEARSAL = "{}-rehearsal"

# Any UUID will do while the filesystem is not known.
_NO_FILESYSTEM = "00000000-0000-0000-0000-000000000000"

# Never used: the calls have no effect.
_DEVICE_NAME = "/dev/xvdcz"

# Anything else that EC2 says of a call on a volume is about its state, which it looks at only once
# the call is allowed.
_NOT_ABOUT_STATE = frozenset(
    {Cause.DENIED, Cause.CREDENTIALS, Cause.EC2_UNREACHABLE, Cause.EC2_ERROR, Cause.THROTTLED}
)


def describing(cloud: Ec2Volumes, *, enlarges: bool = False) -> dict[str, Rehearsal]:
    """The calls that look at EC2: made in earnest, since not all of them have a dry run."""
    ec2, instance_id = cloud.ec2, cloud.identity.instance_id
    kind = cast("InstanceTypeType", cloud.identity.instance_type)
    modifications = {
        LOOK_AT_ENLARGING: _rehearsal(
            lambda: ec2.describe_volumes_modifications(MaxResults=5),
            "cannot look at the modifications of volumes",
        )
    }
    return {
        # The smallest page that EC2 offers.
        "DescribeVolumes": _rehearsal(
            lambda: ec2.describe_volumes(MaxResults=5), "cannot list volumes"
        ),
        "DescribeInstances": _rehearsal(
            lambda: ec2.describe_instances(InstanceIds=[instance_id]),
            f"cannot describe {instance_id}",
        ),
        "DescribeInstanceTypes": _rehearsal(
            lambda: ec2.describe_instance_types(InstanceTypes=[kind]), f"cannot describe {kind}"
        ),
        **(modifications if enlarges else {}),
    }


def creating(
    cloud: Ec2Volumes, settings: Settings, filesystem: str, *, instance: Inventory | None = None
) -> Rehearsal:
    """The call that creates a volume with its tags, of the largest size of a growth.

    A role whose policy was printed for another configuration may allow only less.
    """
    size_bytes = _largest_bytes(settings)
    parameters = cloud.requests.parameters(
        GrowthId(_REHEARSAL.format(filesystem or _NO_FILESYSTEM), 0),
        size_bytes,
        instance_tags=instance.instance_tags if instance else {},
        outpost_arn=instance.outpost_arn if instance else "",
    )
    parameters["DryRun"] = True
    what = f"dry run with {format_size(size_bytes)} of {parameters['VolumeType']}"
    return _rehearsal(lambda: cloud.ec2.create_volume(**parameters), what)


def is_about_tags(refusal: Refusal) -> bool:
    """Whether a refusal of `creating` is about the tags alone.

    EC2 authorizes the volume first, and "performs additional authorization" for its tags then:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    """
    is_named = isinstance(refusal, Denied) and refusal.denial
    return bool(is_named and is_named.action == f"ec2:{TAG}")


def may_enlarge(settings: Settings) -> bool:
    """Whether a growth may enlarge a volume, instead of a new one or always."""
    return settings.policy.sizing.method is not GrowthMethod.ADD


def actions_on_volumes(spec: VolumeSpec, *, enlarges: bool = False, adds: bool = True) -> list[str]:
    """The calls on a managed volume that a growth of such volumes makes."""
    if not adds:
        return [ENLARGE]
    unwanted = set() if spec.delete_on_termination else {OPTIONAL}
    unwanted |= set() if enlarges else {ENLARGE}
    return [each for each in NEED_A_VOLUME if each not in unwanted]


def using(
    cloud: Ec2Volumes, volumes: Sequence[Volume], *, enlarges: bool = False, adds: bool = True
) -> dict[str, Rehearsal]:
    """The calls that act on a managed volume, if there is one."""
    ec2, instance_id = cloud.ec2, cloud.identity.instance_id
    if not volumes:
        return {}
    # With an attached volume a dry run tells the most.
    volume = max(volumes, key=lambda each: each.attached_to == instance_id)
    volume_id = volume.id
    calls: dict[str, Callable[[], object]] = {
        "AttachVolume": lambda: ec2.attach_volume(
            VolumeId=volume_id, InstanceId=instance_id, Device=_DEVICE_NAME, DryRun=True
        ),
        "DetachVolume": lambda: ec2.detach_volume(
            VolumeId=volume_id, InstanceId=instance_id, DryRun=True
        ),
        OPTIONAL: lambda: ec2.modify_instance_attribute(
            InstanceId=instance_id,
            BlockDeviceMappings=[
                {
                    "DeviceName": volume.device_name or _DEVICE_NAME,
                    "Ebs": {"VolumeId": volume_id, "DeleteOnTermination": True},
                }
            ],
            DryRun=True,
        ),
        "DeleteVolume": lambda: ec2.delete_volume(VolumeId=volume_id, DryRun=True),
        ENLARGE: lambda: ec2.modify_volume(
            VolumeId=volume_id, Size=volume.size_bytes // GIB + 1, DryRun=True
        ),
    }
    return {
        action: partial(_denial, _rehearsal(calls[action]))
        for action in actions_on_volumes(cloud.requests.spec, enlarges=enlarges, adds=adds)
    }


def refusal_to_enlarge(cloud: Ec2Volumes, volume: Volume) -> Refusal:
    """Why the role may not enlarge this volume; None when it may, or that cannot be said now."""
    refusal = using(cloud, [volume], adds=False)[ENLARGE]()
    return refusal if isinstance(refusal, Denied) else None


def denied_actions(cloud: Ec2Volumes, settings: Settings) -> list[str]:
    """What the role lacks of all that a growth needs, one call after the other."""
    rehearsals = {**describing(cloud), CREATE: creating(cloud, settings, "")}
    with suppress(EbsAutoscaleError):
        rehearsals |= using(cloud, cloud.owned())
    found = {action: rehearsal() for action, rehearsal in rehearsals.items()}
    return [
        f"ec2:{TAG if action == CREATE and is_about_tags(refusal) else action}"
        for action, refusal in found.items()
        if isinstance(refusal, Denied)
    ]


def missing_policy(refusals: Mapping[str, Refusal], settings: Settings) -> dict[str, Any] | None:
    """The statements that the denied calls need, as a policy; None when none would help.

    `refusals` are those of each action. A denial by another policy than the role's asks for none.
    """
    actions, keys = set(), []
    for action, refusal in refusals.items():
        if not isinstance(refusal, Denied):
            continue
        if refusal.denial is None:
            actions.add(f"ec2:{action}")
        elif refusal.denial.is_role_s:
            actions.add(refusal.denial.action)
            keys.append(refusal.denial.resource)
    # The call that creates a volume tags it, too; EC2 names only what it denies first.
    if f"ec2:{CREATE}" in actions:
        actions.add(f"ec2:{TAG}")
    document = policy_document(
        settings.volume,
        max_bytes=_largest_bytes(settings),
        kms_key_arn=next(filter(is_key_arn, keys), None),
        options=["--enlarge"] if may_enlarge(settings) else [],
        actions=actions,
    )
    return document if document["Statement"] else None


def _largest_bytes(settings: Settings) -> int:
    return max(settings.policy.sizing.max_bytes // GIB, 1) * GIB


def _rehearsal(call: Callable[[], object], what: str = "dry run") -> Rehearsal:
    """Why EC2 refuses the call; a dry run that is allowed fails with `DryRunOperation`."""

    def refusal() -> Refusal:
        try:
            with translated_errors(what):
                call()
        except EbsAutoscaleError as error:
            return None if error.cause is Cause.DRY_RUN else error
        return None

    return refusal


def _denial(rehearsal: Rehearsal) -> Refusal:
    """The refusal, unless it is about the state of the volume."""
    refusal = rehearsal()
    return refusal if refusal and refusal.cause in _NOT_ABOUT_STATE else None
