"""The volume of a filesystem that has one device: found, verified and tagged as ours.

A filesystem of one device can only grow with its volume, and no volume without our tags is touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, OWNER_TAG
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Unfit
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.model import GrowthId, Volume
from ebs_autoscale.provision.first_volume import FIRST
from ebs_autoscale.volumes import Ec2Volumes

_REMOVE_TAGS = "remove its ebs-autoscale tags in EC2, and run `init` again"


@dataclass(frozen=True, slots=True)
class OwnVolume:
    """The volume behind a device, and the tags that it had when EC2 was asked."""

    volume: Volume
    tags: Mapping[str, str]

    def is_of(self, filesystem: str, owner: str) -> bool:
        """Whether all three owner tags say that it is ours."""
        growth = self.volume.growth
        is_owned = self.tags.get(OWNER_TAG) == owner
        return is_owned and growth.filesystem == filesystem and growth.ordinal >= FIRST


def volume_behind(name: str, cloud: Ec2Volumes) -> OwnVolume:
    """The volume that is this whole block device, as EC2 has it attached to this instance.

    Raises Unfit for a device that is none, such as an instance store volume.
    """
    block_devices, attached = BlockDevices(), cloud.attached()
    for volume, tags in attached:
        if block_devices.node_of(volume) == name:
            _require_usable(volume, name, block_devices.size_of(name))
            return OwnVolume(volume, tags)
    instance_id = cloud.identity.instance_id
    if volume_id := block_devices.volume_id_of(name):
        raise Unfit(
            f"{name} is {volume_id}, which EC2 does not show as attached to {instance_id}",
            hint="see the volume in EC2; just after an attach, run `init` again",
            cause=Cause.ATTACHED_ELSEWHERE,
        )
    raise Unfit(
        f"{name} is none of the {len(attached)} EBS volumes of {instance_id}, so it cannot be "
        "enlarged",
        hint="use a filesystem on an EBS volume, not on instance store or a network disk; for a "
        "new one, omit --device",
        cause=Cause.DEVICE,
    )


def _require_usable(volume: Volume, name: str, size_bytes: int) -> None:
    """Raise Unfit if no modification could make this block device larger."""
    if size_bytes > volume.size_bytes:
        raise Unfit(
            f"{name} has {size_bytes} bytes, but {volume.id} only {volume.size_bytes}",
            hint="see `lsblk` and the volume in EC2",
            cause=Cause.SIZE,
        )
    if not volume.largest_bytes:
        raise Unfit(
            f"EC2 cannot enlarge {volume.id}, because of its type",
            hint="change its type in EC2, for example to gp3, and run `init` again",
            cause=Cause.VOLUME_KIND,
        )
    if "Multi-Attach" in volume.foreign:
        raise Unfit(
            f"{volume.id} is {volume.foreign}",
            hint="a filesystem of one host needs a volume of its own",
            cause=Cause.VOLUME_KIND,
        )


def require_free(found: OwnVolume, filesystem: str, owner: str) -> None:
    """Raise Unfit if the tags of the volume say that it is somebody else's."""
    volume, other = found.volume, found.tags.get(OWNER_TAG, "")
    if other and other != owner:
        raise Unfit(
            f"{volume.id} belongs to {other} by its tags, and not to {owner}",
            hint=f"if it was moved or restored here to stay, {_REMOVE_TAGS}",
            cause=Cause.OTHER_SETUP,
        )
    has = found.tags.get(FILESYSTEM_TAG, "")
    if has and has != filesystem:
        raise Unfit(
            f"{volume.id} belongs to the filesystem {has} by its tags, and not to {filesystem}",
            hint="of two partitions on one volume only the last can grow; if that filesystem is "
            f"gone, {_REMOVE_TAGS}",
            cause=Cause.OTHER_SETUP,
        )


def adopt(found: OwnVolume, filesystem: str, cloud: Ec2Volumes) -> bool:
    """Tag the volume as ours, unless it is; returns whether that was missing.

    Raises what EC2 answers, unless the tags are there: an answer may have been lost, and a call
    that is repeated then is denied.
    """
    owner, volume = cloud.identity.owner, found.volume
    require_free(found, filesystem, owner)
    if found.is_of(filesystem, owner):
        return False
    wanted = replace(volume, growth=GrowthId(filesystem, FIRST), adopted=True)
    try:
        cloud.claim(wanted)
    except EbsAutoscaleError as error:
        seen = cloud.refresh(volume) if error.cause is Cause.DENIED else None
        if seen and seen.growth == wanted.growth and seen.adopted:
            return True
        if error.cause is Cause.DENIED:
            error.hint = _who_may_tag(wanted, cloud)
        raise
    return True


def _who_may_tag(volume: Volume, cloud: Ec2Volumes) -> str:
    tags = cloud.requests.tags_to_adopt(volume.growth)
    pairs = " ".join(f"'Key={key},Value={value}'" for key, value in tags.items())
    return (
        "give the role all of the policy that `ebs-autoscale iam-policy --adopt --enlarge` prints, "
        "or run with other credentials `aws ec2 create-tags --region "
        f"{cloud.identity.region} --resources {volume.id} --tags {pairs}`, then run `init` again"
    )
