"""Response elements of the EC2 API, rendered from the world."""

from collections.abc import Mapping
from typing import Any

from ec2_sandbox.world.state import (
    Attachment,
    AttachmentState,
    InstanceState,
    Modification,
    ModificationState,
    Volume,
    World,
)

Element = dict[str, Any]

# EC2 API reference, InstanceState
_STATE_CODES = {
    InstanceState.RUNNING: 16,
    InstanceState.SHUTTING_DOWN: 32,
    InstanceState.TERMINATED: 48,
}


def tag_list(tags: Mapping[str, str]) -> list[Element] | None:
    """The tag set; absent when there are no tags, as in EC2."""
    return [{"Key": key, "Value": value} for key, value in tags.items()] or None


def volume(world: World, each: Volume) -> Element:
    """A Volume."""
    return {
        "VolumeId": each.id,
        "Size": each.shown_gib(world.now),
        "SnapshotId": each.snapshot.id if each.snapshot else "",
        "AvailabilityZone": world.settings.zone,
        "OutpostArn": each.outpost_arn or None,
        "State": each.state,
        "CreateTime": world.timeline.clock.moment(each.created_at),
        "Attachments": [attachment(world, each, each.attachment)] if each.attachment else [],
        "Tags": tag_list(each.tags),
        "VolumeType": each.shape.type,
        "Iops": each.shape.iops,
        "Throughput": each.shape.throughput,
        "Encrypted": each.encrypted,
        "KmsKeyId": each.kms_key_arn,
        "MultiAttachEnabled": False,
    }


def attachment(
    world: World, each: Volume, link: Attachment, state: AttachmentState | None = None
) -> Element:
    """A VolumeAttachment, in the given `state` where a call has just changed it."""
    return {
        "VolumeId": each.id,
        "InstanceId": world.instance.id,
        "Device": link.device,
        "State": state or link.state,
        "AttachTime": world.timeline.clock.moment(link.attached_at),
        "DeleteOnTermination": link.delete_on_termination,
        "EbsCardIndex": link.card if world.settings.ebs_cards > 1 else None,
    }


def modification(world: World, volume_id: str, each: Modification) -> Element:
    """A VolumeModification."""
    moment = world.timeline.clock.moment
    return {
        "VolumeId": volume_id,
        "ModificationState": each.state,
        "TargetSize": each.target.size_gib,
        "TargetIops": each.target.iops,
        "TargetVolumeType": each.target.type,
        "TargetThroughput": each.target.throughput,
        "OriginalSize": each.original.size_gib,
        "OriginalIops": each.original.iops,
        "OriginalVolumeType": each.original.type,
        "OriginalThroughput": each.original.throughput,
        "OriginalMultiAttachEnabled": False,
        "TargetMultiAttachEnabled": False,
        "Progress": _progress(world, each),
        "StartTime": moment(each.started_at),
        "EndTime": moment(each.ended_at) if each.ended_at is not None else None,
    }


def _progress(world: World, each: Modification) -> int:
    """How much of the optimizing is done, in percent."""
    match each.state:
        case ModificationState.COMPLETED:
            return 100
        case ModificationState.OPTIMIZING:
            passed = world.now - each.optimizing_at
            return min(99, int(100 * passed / max(1.0, each.optimizing_seconds)))
        case _:
            return 0


def instance(world: World) -> Element:
    """The Instance."""
    settings = world.settings
    return {
        "InstanceId": world.instance.id,
        "ImageId": settings.image_id,
        "InstanceType": settings.instance_type,
        "State": instance_state(world.instance.state),
        "LaunchTime": world.timeline.clock.moment(0.0),
        "Placement": {"AvailabilityZone": settings.zone, "Tenancy": "default"},
        "Architecture": "x86_64",
        "Hypervisor": "xen",  # EC2 reports xen for Nitro instances as well
        "VirtualizationType": "hvm",
        "RootDeviceName": settings.root_device,
        "RootDeviceType": "ebs",
        "OutpostArn": settings.outpost_arn or None,
        "PrivateIpAddress": private_ip(0),
        "BlockDeviceMappings": [_mapping(world, *pair) for pair in world.attached()],
        "NetworkInterfaces": [_interface(world, n) for n in range(settings.network_interfaces)],
        "Tags": tag_list(world.instance.tags),
    }


def instance_state(state: InstanceState) -> Element:
    """An InstanceState."""
    return {"Code": _STATE_CODES[state], "Name": state}


def mac_address(index: int) -> str:
    """The MAC address of a network interface."""
    return f"02:00:00:00:00:{index:02x}"


def private_ip(index: int) -> str:
    """The IP address of a network interface."""
    return f"10.0.0.{10 + index}"


def instance_type(world: World) -> Element:
    """The InstanceTypeInfo of the instance, with the attachment limits of the settings."""
    settings = world.settings
    nitro = settings.block_devices != "xen"
    limit = settings.attachment_limit
    return {
        "InstanceType": settings.instance_type,
        "CurrentGeneration": True,
        "BareMetal": False,
        "Hypervisor": "nitro" if nitro else "xen",
        "InstanceStorageSupported": False,
        "EbsInfo": {
            "EbsOptimizedSupport": "default",
            "EncryptionSupport": "supported",
            "NvmeSupport": "required" if nitro else "unsupported",
            "MaximumEbsAttachments": limit,
            "AttachmentLimitType": settings.attachment_limit_type if limit is not None else None,
            "MaximumEbsCards": settings.ebs_cards,
            "EbsCards": [{"EbsCardIndex": card} for card in range(settings.ebs_cards)],
        },
        "NetworkInfo": {"MaximumNetworkInterfaces": 3},
    }


def _mapping(world: World, each: Volume, link: Attachment) -> Element:
    shown = attachment(world, each, link)
    ebs = {
        key: shown[key] for key in ("VolumeId", "AttachTime", "DeleteOnTermination", "EbsCardIndex")
    }
    return {"DeviceName": link.device, "Ebs": {**ebs, "Status": _mapping_status(link.state)}}


def _mapping_status(state: AttachmentState) -> str:
    # AttachmentStatus in DescribeInstances has no `busy`.
    return AttachmentState.DETACHING if state is AttachmentState.BUSY else state


def _interface(world: World, index: int) -> Element:
    return {
        "NetworkInterfaceId": f"eni-{index:017x}",
        "MacAddress": mac_address(index),
        "PrivateIpAddress": private_ip(index),
        "OwnerId": world.settings.account_id,
        "Status": "in-use",
        "Attachment": {"DeviceIndex": index, "Status": "attached"},
    }
