"""Every EC2 call of a growth as a dry run: what is denied, and what to do about it."""

from collections.abc import Callable, Iterator

from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.model import GIB, GrowthId, Volume
from ebs_autoscale.volumes import Ec2Volumes, translated_errors

Rehearsed = tuple[str, EbsAutoscaleError | None]

# Conditions on tags decide these, so they can be checked only with a managed volume.
NEED_A_VOLUME = ("AttachVolume", "DetachVolume", "ModifyInstanceAttribute", "DeleteVolume")

# No filesystem has this name. With the client token of a real growth EC2 would answer
# IdempotentParameterMismatch.
_REHEARSAL = "{}-rehearsal"

# Never used: the calls have no effect.
_DEVICE_NAME = "/dev/xvdcz"


def rehearse(cloud: Ec2Volumes, filesystem: str) -> Iterator[Rehearsed]:
    """Each action with its refusal, None when it is allowed; changes nothing."""
    ec2 = cloud.ec2
    yield "DescribeVolumes", _refusal(lambda: ec2.describe_volumes(DryRun=True))
    yield "DescribeInstances", _refusal(lambda: ec2.describe_instances(DryRun=True))
    types = _refusal(lambda: ec2.describe_instance_types(DryRun=True))
    yield "DescribeInstanceTypes", types
    growth = GrowthId(_REHEARSAL.format(filesystem), 0)
    parameters = cloud.requests.parameters(growth, 20 * GIB)
    parameters["DryRun"] = True
    yield "CreateVolume, CreateTags", _refusal(lambda: ec2.create_volume(**parameters))


def rehearse_with(cloud: Ec2Volumes, volume: Volume) -> Iterator[Rehearsed]:
    """The same for the actions on a managed volume; EC2 checks permissions before the state."""
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
    for action in NEED_A_VOLUME:
        refusal = _refusal(calls[action])
        is_denied = refusal and refusal.cause in {Cause.DENIED, Cause.CREDENTIALS}
        yield action, refusal if is_denied else None


def _refusal(call: Callable[[], object]) -> EbsAutoscaleError | None:
    """Why EC2 refuses the call; a dry run that is allowed fails with `DryRunOperation`."""
    try:
        with translated_errors("dry run"):
            call()
    except EbsAutoscaleError as error:
        return None if error.cause is Cause.DRY_RUN else error
    return None
