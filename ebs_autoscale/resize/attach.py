"""From a created volume to its own block device on this instance."""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ebs_autoscale.ec2.absence import Absence, AttachmentLook, lost
from ebs_autoscale.ec2.requests import choose_device_name
from ebs_autoscale.errors import Cause, EbsAutoscaleError, NameTaken, Transient, Unfit
from ebs_autoscale.model import DEAD_VOLUME_STATES, Inventory, Volume
from ebs_autoscale.resize.ports import World
from ebs_autoscale.volumes import (
    ATTACH_STUCK_AFTER_SECONDS,
    LOOK_BACKOFF,
    LOOK_MAX_SECONDS,
    wait_attached,
    wait_available,
    wait_detached,
)

# A volume whose device is here can be of use at once, and DeleteOnTermination can be repaired.
MAPPING_PATIENCE_SECONDS = 15.0
NODE_POLL_SECONDS = 0.2
# "Most" attaches take 1 to 4 s, the block device another 0.5 s at most (EBS CSI driver).
NODE_USUALLY_HERE_SECONDS = 5.0

# Looks at the attachment after a failed step; enough for `Absence` to be sure.
_LOOKS_AFTER_FAILURE = 5
_LOOK_AFTER_FAILURE_SECONDS = 1.0

# A name under which an attach hung stays bad on Xen until a reboot: one other is tried.
ATTACH_TRIES = 2

# "Attachment point is already in use" can be true invisibly, for names mapped in the AMI.
NAMES_TRIED_MAX = 5


class Attached(NamedTuple):
    """A volume and the kernel name of its verified block device, empty while there is none.

    `is_requested` if this run attached it, not somebody else before or meanwhile.
    """

    volume: Volume
    node: str
    is_requested: bool = False


def attach(volume: Volume, inventory: Inventory, world: World, *, is_new: bool) -> Attached:
    """Attach the volume and return it with its own block device.

    DeleteOnTermination is set at once on a volume that this run created (`is_new`); what is on
    others is not known yet. An attachment that is stuck, or brings no device, is detached and tried
    under another name. Safe to repeat from whatever an earlier run left. Raises Transient, Unfit or
    Stopped.
    """
    volume = wait_available(world.cloud, volume, world.clock, partial(world.progress, volume))
    # A volume attached before this run may be in the filesystem even if its node is unknown.
    may_be_device = volume.attachment_state not in {"", "attaching"}
    is_requested = False
    refused: set[str] = set()
    for _ in range(ATTACH_TRIES):
        if not volume.attached_to:
            volume, is_requested = _request_attach(volume, inventory, world, refused)
            may_be_device = not is_requested
        if volume.attached_to != inventory.instance_id:
            raise Unfit(
                f"{volume.id} of growth {volume.growth} is attached to {volume.attached_to}",
                hint="detach it there, or remove its ebs-autoscale tags",
                cause=Cause.ATTACHED_ELSEWHERE,
            )
        if attached := _wait_usable(volume, world, is_new=is_new):
            return attached._replace(is_requested=is_requested)
        if may_be_device:
            raise Transient(
                f"{volume.id} is attached as {volume.device_name}, but its block device is missing",
                hint="see `lsblk`, and `dmesg` for NVMe errors; "
                "detach it if it is not a device of the filesystem",
                cause=Cause.STUCK_ATTACH,
            )
        refused.add(volume.device_name)
        volume = _detach_stuck(volume, world)
    raise Transient(
        f"{volume.id} could not be attached as {' or '.join(sorted(refused))}",
        hint="see the volume's attachment in EC2, `lsblk`, and `dmesg` for NVMe errors",
        cause=Cause.STUCK_ATTACH,
    )


def _wait_usable(volume: Volume, world: World, *, is_new: bool) -> Attached | None:
    """The volume with its block device once EC2 says attached; None when it is stuck.

    Raises Transient when it was detached meanwhile, Unfit when it is gone.
    """
    # The block device shows for free that the attach has come through: from then on EC2 has a
    # mapping to set DeleteOnTermination on. A late device must not delay that for long.
    failure: EbsAutoscaleError | None = None
    if _wait_node(volume, world, NODE_USUALLY_HERE_SECONDS):
        failure = _set_if_wanted(volume, world) if is_new else None
    else:
        world.progress(volume, f"the block device of {volume.id} has not appeared yet")
    attached = wait_attached(world.cloud, volume, world.clock, partial(world.progress, volume))
    if attached is None:
        return None
    if is_new:
        # What was set is read back with this look; what is not there is set again, unless denied.
        if not isinstance(failure, Unfit) or attached.delete_on_termination:
            failure = _set_if_wanted(attached, world)
        warn_if_not_deleted(attached, failure, world)
    attachment = AttachmentLook(world.cloud, attached, world.clock.now_seconds)
    deadline = world.clock.now_seconds() + ATTACH_STUCK_AFTER_SECONDS
    while not (node := _wait_node(attached, world, NODE_USUALLY_HERE_SECONDS)):
        if world.clock.now_seconds() > deadline:
            return None
        attachment.look()
    return Attached(attached, node)


def require_attached(volume: Volume, world: World) -> None:
    """Raise Transient if the volume was detached meanwhile, and Unfit if it is gone.

    Tells why a step failed: without its volume no step can succeed. Where EC2 does not say, the
    step's own error is the better one.
    """
    attachment = AttachmentLook(world.cloud, volume, world.clock.now_seconds)
    for _ in range(_LOOKS_AFTER_FAILURE):
        try:
            seen = attachment.look()
        except EbsAutoscaleError as error:
            if error.cause in {Cause.VOLUME_LOST, Cause.VOLUME_DETACHED}:
                raise
            return
        if seen and seen.attachment_state == "attached":
            return
        world.clock.sleep(_LOOK_AFTER_FAILURE_SECONDS)


def _detach_stuck(volume: Volume, world: World) -> Volume:
    """Detach a volume that never came to us, so that it can be attached anew."""
    node = world.block_devices.node_of(volume)
    if node and world.filesystem.read().has_device(node):
        raise Unfit(
            f"{volume.id} is a device of the filesystem ({node}): not detaching it",
            cause=Cause.NOT_DETACHED,
        )
    what = f"attachment of {volume.id} as {volume.device_name} is stuck"
    stuck = Transient(what, cause=Cause.STUCK_ATTACH)
    world.warn(volume, f"{what}, detaching", stuck)
    world.cloud.detach(volume)
    if seen := wait_detached(world.cloud, volume, world.clock):
        return seen
    raise lost(volume, "gone")


def _request_attach(
    volume: Volume, inventory: Inventory, world: World, stuck: AbstractSet[str]
) -> tuple[Volume, bool]:
    """The volume as attaching under a name that EC2 took, and whether this request did it.

    Somebody else may have been faster, under another name. Names that were stuck come last.
    """
    taken = inventory.device_names | world.block_devices.names_present()
    refused = set(stuck)
    for _ in range(NAMES_TRIED_MAX):
        name = choose_device_name(taken, avoid=refused)
        if name is None:
            break
        try:
            world.cloud.attach(volume, name, inventory)
        except NameTaken:
            refused.add(name)
            continue
        except Transient as error:
            seen = _attached_before(volume, error, world)
            return seen, seen.device_name == name
        requested = replace(
            volume,
            attached_to=inventory.instance_id,
            device_name=name,
            attachment_state="attaching",
        )
        return requested, True
    raise Transient(
        f"no device name left for {volume.id}: EC2 rejected {', '.join(sorted(refused)) or 'none'}",
        cause=Cause.NAME_TAKEN,
    )


def _attached_before(volume: Volume, refusal: Transient, world: World) -> Volume:
    """The volume as EC2 shows it, after it refused to attach it because of the volume's state.

    It is attached already where the answer to the first call was lost, or by somebody else. Raises
    `refusal` where this explains nothing, and Unfit when the volume is gone.
    """
    if refusal.cause not in {Cause.STATE, Cause.NOT_VISIBLE}:
        raise refusal
    absence = Absence(world.clock.now_seconds)
    for _ in range(_LOOKS_AFTER_FAILURE):
        seen = world.cloud.refresh(volume)
        if seen and seen.attached_to:
            return seen
        if seen and seen.state in DEAD_VOLUME_STATES:
            raise lost(volume, seen.state)
        if absence.lasts(absent=seen is None) and volume.age_seconds is not None:
            raise lost(volume, "gone")
        if seen:
            break
        world.clock.sleep(_LOOK_AFTER_FAILURE_SECONDS)
    raise refusal


def _wait_node(volume: Volume, world: World, patience_seconds: float) -> str:
    """Kernel name of the volume's own device, empty when it does not show; asks EC2 nothing."""
    deadline = world.clock.now_seconds() + patience_seconds
    while not (node := world.block_devices.node_of(volume)):
        if world.clock.now_seconds() > deadline:
            break
        world.progress(volume, f"waiting for the block device of {volume.id}")
        world.clock.sleep(NODE_POLL_SECONDS)
    return node


def _set_if_wanted(volume: Volume, world: World) -> EbsAutoscaleError | None:
    if world.delete_on_termination and not volume.delete_on_termination:
        return set_delete_on_termination(volume, world, patience_seconds=MAPPING_PATIENCE_SECONDS)
    return None


def protect(volume: Volume, world: World, *, patience_seconds: float = 0.0) -> None:
    """Set DeleteOnTermination of a device, if it is wanted and not set; tells why it is not."""
    if world.delete_on_termination and not volume.delete_on_termination:
        failure = set_delete_on_termination(volume, world, patience_seconds=patience_seconds)
        warn_if_not_deleted(volume, failure, world)


def set_delete_on_termination(
    volume: Volume, world: World, *, patience_seconds: float
) -> EbsAutoscaleError | None:
    """Set DeleteOnTermination, or return why not: a volume in service outweighs that.

    Waits only for the mapping, which this call may not see for a moment after the attach.
    """
    deadline = world.clock.now_seconds() + patience_seconds
    delay = 0.5
    while True:
        try:
            world.cloud.set_delete_on_termination(volume)
        except EbsAutoscaleError as error:
            is_early = error.cause is Cause.MAPPING_NOT_VISIBLE
            if not is_early or world.clock.now_seconds() >= deadline:
                return error
        else:
            return None
        world.clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)


def warn_if_not_deleted(volume: Volume, failure: EbsAutoscaleError | None, world: World) -> None:
    """Tell why DeleteOnTermination is not set, if it is not; each later look repairs it."""
    if failure is None:
        return
    sentence = f"{volume.id} will not be deleted with the instance: {failure.what}"
    if not isinstance(failure, Unfit):
        failure = Transient(failure.what, hint=failure.hint, cause=Cause.UNPROTECTED)
    world.warn(volume, sentence, failure)
