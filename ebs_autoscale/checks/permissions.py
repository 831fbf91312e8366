"""Every call that a growth makes, tried by DryRun: what is forbidden, and what to do."""

from collections.abc import Callable, Iterator

from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.model import GIB, GrowthId, Volume
from ebs_autoscale.volumes import Ec2Volumes, translated_errors

Rehearsed = tuple[str, EbsAutoscaleError | None]

# Conditions on tags decide these calls, so they can be judged only on a volume of ours.
NEED_A_VOLUME = ("AttachVolume", "DetachVolume", "ModifyInstanceAttribute", "DeleteVolume")

# No filesystem has this name. The token of a growth that happened would remember what it
# bought: an IdempotentParameterMismatch instead of a verdict.
_REHEARSAL = "{}-rehearsal"

# The name is never used: the calls have no effect.
_SOME_NAME = "/dev/xvdcz"


def rehearse(cloud: Ec2Volumes, filesystem: str) -> Iterator[Rehearsed]:
    """Each action with what forbids it, None when it is allowed; changes nothing."""
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
    """The same for what is done with a volume of ours; EC2 judges the rights before the state."""
    ec2, volume_id, instance_id = cloud.ec2, volume.id, cloud.identity.instance_id
    calls: dict[str, Callable[[], object]] = {
        "AttachVolume": lambda: ec2.attach_volume(
            VolumeId=volume_id, InstanceId=instance_id, Device=_SOME_NAME, DryRun=True
        ),
        "DetachVolume": lambda: ec2.detach_volume(
            VolumeId=volume_id, InstanceId=instance_id, DryRun=True
        ),
        "ModifyInstanceAttribute": lambda: ec2.modify_instance_attribute(
            InstanceId=instance_id,
            BlockDeviceMappings=[
                {
                    "DeviceName": volume.device_name or _SOME_NAME,
                    "Ebs": {"VolumeId": volume_id, "DeleteOnTermination": True},
                }
            ],
            DryRun=True,
        ),
        "DeleteVolume": lambda: ec2.delete_volume(VolumeId=volume_id, DryRun=True),
    }
    for action in NEED_A_VOLUME:
        refusal = _refusal(calls[action])
        yield (
            action,
            refusal if refusal and refusal.cause in {Cause.DENIED, Cause.CREDENTIALS} else None,
        )


def _refusal(call: Callable[[], object]) -> EbsAutoscaleError | None:
    """What EC2 has against the call; a DryRun never succeeds, `DryRunOperation` is its yes."""
    try:
        with translated_errors("rehearsal"):
            call()
    except EbsAutoscaleError as error:
        return None if error.cause is Cause.DRY_RUN else error
    return None
