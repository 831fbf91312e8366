"""Actions on attachments."""

from typing import Any

from ec2_sandbox.api import responses, validation
from ec2_sandbox.api.request import Effect, Request
from ec2_sandbox.devices.block_devices import node_name
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world import transitions
from ec2_sandbox.world.state import (
    Attachment,
    AttachmentState,
    Instance,
    InstanceState,
    ModificationState,
    Volume,
    VolumeState,
    World,
)


def instance_named(world: World, instance_id: str) -> Instance:
    """Look up the instance; raises ApiError InvalidInstanceID.NotFound."""
    if validation.well_formed(instance_id, "i") != world.instance.id:
        raise ApiError(
            "InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist"
        )
    return world.instance


def attach_volume(world: World, request: Request) -> Effect:
    """AttachVolume: attach an available volume under a free name, if a slot is free."""
    params = request.params
    card = params.get("EbsCardIndex", 0)
    if not 0 <= card < world.settings.ebs_cards:
        raise ApiError("InvalidParameterValue", f"The instance type has no EBS card {card}")
    device = validation.device_name(params["Device"])
    volume = world.volume(validation.well_formed(params["VolumeId"], "vol"))
    instance = instance_named(world, params["InstanceId"])
    if volume.attachment is not None:
        raise ApiError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.state is not VolumeState.AVAILABLE:
        raise ApiError("IncorrectState", f"{volume.id} is not 'available'.")
    _check_not_modifying(volume)
    if instance.state is not InstanceState.RUNNING:
        raise ApiError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.outpost_arn != world.settings.outpost_arn:
        raise ApiError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance "
            f"'{instance.id}'",
        )
    _check_name_is_free(world, device)
    _check_slots(world, card)
    attachment = Attachment(device=device, attached_at=world.now, card=card)
    stuck = request.stuck or _collides(world, device)

    def effect() -> dict[str, Any] | None:
        transitions.begin_attach(
            world,
            volume,
            attachment,
            stuck=stuck,
            ghost=request.ghost,
            undone=request.undone,
        )
        return _shown(world, volume, AttachmentState.ATTACHING)

    return effect


def detach_volume(world: World, request: Request) -> Effect:
    """DetachVolume: instance and device, where given, must match the attachment."""
    params = request.params
    volume = world.volume(validation.well_formed(params["VolumeId"], "vol"))
    if "InstanceId" in params:
        validation.well_formed(params["InstanceId"], "i")
    attachment = volume.attachment
    if attachment is None:
        # Sic: the message of AWS lacks the space.
        message = f"Volume '{volume.id}'is in the '{volume.state}' state."
        raise ApiError("IncorrectState", message)
    named = (params.get("InstanceId", world.instance.id), params.get("Device", attachment.device))
    if named != (world.instance.id, attachment.device):
        raise ApiError(
            "InvalidAttachment.NotFound",
            f"The volume '{volume.id}' is not attached to instance '{named[0]}' as device "
            f"'{named[1]}'.",
        )
    if attachment.device == world.settings.root_device:
        raise ApiError(
            "OperationNotPermitted",
            f"Unable to detach root volume '{attachment.device}' from instance "
            f"'{world.instance.id}'",
        )
    force = params.get("Force", False)
    if attachment.state in (AttachmentState.DETACHING, AttachmentState.BUSY) and not force:
        raise ApiError("IncorrectState", f"Volume '{volume.id}' is in the 'detaching' state.")

    def effect() -> dict[str, Any] | None:
        transitions.begin_detach(world, volume, force=force, stuck=request.stuck)
        return _shown(world, volume, AttachmentState.DETACHING)

    return effect


def modify_instance_attribute(world: World, request: Request) -> Effect:
    """ModifyInstanceAttribute: only DeleteOnTermination of attached volumes is supported."""
    params = request.params
    others = params.keys() - {"InstanceId", "BlockDeviceMappings", "DryRun"}
    if others:
        validation.refuse_unsupported(dict.fromkeys(others, True), sorted(others))
    instance_named(world, params["InstanceId"])
    wanted = [_mapping(world, each) for each in params.get("BlockDeviceMappings", [])]
    if not wanted:
        raise ApiError("InvalidParameterCombination", "No attributes specified.")

    def effect() -> None:
        for attachment, delete_on_termination in wanted:
            attachment.delete_on_termination = delete_on_termination

    return effect


def _mapping(world: World, wanted: dict[str, Any]) -> tuple[Attachment, bool]:
    device = wanted.get("DeviceName", "")
    ebs = wanted.get("Ebs", {})
    for volume, attachment in world.attached():
        # The mapping exists only once the volume is attached.
        if attachment.device == device and attachment.state is not AttachmentState.ATTACHING:
            if ebs.get("VolumeId", volume.id) != volume.id:
                break
            # EC2 API reference: "If no value is specified, the default is `true`".
            return attachment, bool(ebs.get("DeleteOnTermination", True))
    raise ApiError("InvalidInstanceAttributeValue", f"No device is currently mapped at {device}")


def _check_not_modifying(volume: Volume) -> None:
    last = volume.modification
    if last is not None and last.state is ModificationState.MODIFYING:
        # EC2 allows it once the state is `optimizing`; to detach or delete it does not mind either.
        raise ApiError(
            "OperationNotPermitted",
            f"Cannot attach volume {volume.id} when it is in modification state: MODIFYING",
        )


def _check_name_is_free(world: World, device: str) -> None:
    taken = {attachment.device for _, attachment in world.attached()}
    if device in taken or device in world.settings.hidden_device_names:
        raise ApiError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def _check_slots(world: World, card: int) -> None:
    slots = world.settings.slots
    taken = sum(attachment.card == card for _, attachment in world.attached())
    if slots is not None and taken >= slots // world.settings.ebs_cards:
        raise ApiError(
            "AttachmentLimitExceeded",
            f"You have exceeded the maximum number of attachments of instance "
            f"'{world.instance.id}': {slots}",
        )


def _collides(world: World, device: str) -> bool:
    """Whether a Xen guest already has this node, under the other name of the same device.

    EC2 accepts /dev/sdf in addition to /dev/xvdf, and the volume stays `attaching` forever.
    """
    if world.settings.block_devices != "xen":
        return False
    taken = {node_name(attachment.device) for _, attachment in world.attached()}
    return node_name(device) in taken


def _shown(world: World, volume: Volume, state: AttachmentState) -> dict[str, Any] | None:
    link = volume.attachment
    return responses.attachment(world, volume, link, state) if link else None
