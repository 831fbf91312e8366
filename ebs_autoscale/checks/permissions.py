"""Every EC2 call of a growth as a dry run: what is denied, and what to do about it."""

from collections.abc import Callable
from functools import partial

from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.model import GrowthId, Inventory, Volume
from ebs_autoscale.units import format_size
from ebs_autoscale.volumes import Ec2Volumes, translated_errors

Refusal = EbsAutoscaleError | None
"""Why EC2 refuses a call; None when it is allowed."""

Rehearsal = Callable[[], Refusal]
"""Makes one call as a dry run, which changes nothing."""

CREATE = "CreateVolume, CreateTags"

# Conditions on tags decide these, so they can be checked only with a managed volume.
NEED_A_VOLUME = ("AttachVolume", "DetachVolume", "ModifyInstanceAttribute", "DeleteVolume")

# No filesystem has this name. With the client token of a real growth EC2 would answer
# IdempotentParameterMismatch.
_REHEARSAL = "{}-rehearsal"

# Never used: the calls have no effect.
_DEVICE_NAME = "/dev/xvdcz"


def describing(cloud: Ec2Volumes) -> dict[str, Rehearsal]:
    """The calls that look at EC2."""
    ec2 = cloud.ec2
    return {
        "DescribeVolumes": _rehearsal(lambda: ec2.describe_volumes(DryRun=True)),
        "DescribeInstances": _rehearsal(lambda: ec2.describe_instances(DryRun=True)),
        "DescribeInstanceTypes": _rehearsal(lambda: ec2.describe_instance_types(DryRun=True)),
    }


def creating(
    cloud: Ec2Volumes, filesystem: str, *, max_bytes: int, instance: Inventory | None
) -> Rehearsal:
    """The call that creates a volume, of the largest size that a growth may ask for.

    A role whose policy was printed for another configuration may allow only less.
    """
    parameters = cloud.requests.parameters(
        GrowthId(_REHEARSAL.format(filesystem), 0),
        max_bytes,
        instance_tags=instance.instance_tags if instance else {},
        outpost_arn=instance.outpost_arn if instance else "",
    )
    parameters["DryRun"] = True
    what = f"dry run with {format_size(max_bytes)} of {parameters['VolumeType']}"
    return _rehearsal(lambda: cloud.ec2.create_volume(**parameters), what)


def using(cloud: Ec2Volumes, volume: Volume) -> dict[str, Rehearsal]:
    """The calls that act on a managed volume; EC2 checks permissions before the state."""
    ec2, volume_id, instance_id = cloud.ec2, volume.id, cloud.identity.instance_id
    calls: dict[str, Callable[[], object]] = {
        "AttachVolume": lambda: ec2.attach_volume(
            VolumeId=volume_id, InstanceId=instance_id, Device=_DEVICE_NAME, DryRun=True
        ),
        "DetachVolume": lambda: ec2.detach_volume(
            VolumeId=volume_id, InstanceId=instance_id, DryRun=True
        ),
        "ModifyInstanceAttribute": lambda: ec2.modify_instance_attribute(
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
    }
    return {action: partial(_denial, _rehearsal(calls[action])) for action in NEED_A_VOLUME}


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
    """The refusal, if it is about permissions and not about the state of the volume."""
    refusal = rehearsal()
    is_denied = refusal and refusal.cause in {Cause.DENIED, Cause.CREDENTIALS}
    return refusal if is_denied else None
