"""From a created volume to its own block device on this instance."""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ebs_autoscale.ec2.requests import choose_device_name
from ebs_autoscale.errors import Cause, EbsAutoscaleError, NameTaken, Transient, Unfit
from ebs_autoscale.model import Inventory, Volume
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

# A name under which an attach hung stays bad on Xen until a reboot: one other is tried.
ATTACH_TRIES = 2

# "Attachment point is already in use" can be true invisibly, for names mapped in the AMI.
NAMES_TRIED_MAX = 5


class Attached(NamedTuple):
    """A volume and the kernel name of its verified block device, empty while there is none."""

    volume: Volume
    node: str


def attach(volume: Volume, inventory: Inventory, world: World) -> Attached:
    """Attach the volume, set DeleteOnTermination, and return it with its own block device.

    An attachment that is stuck, or brings no device, is detached and tried under another name.
    Safe to repeat from whatever an earlier run left. Raises Transient, Unfit or Stopped.
    """
    volume = wait_available(world.cloud, volume, world.clock, partial(world.progress, volume))
    # A volume attached before this run may be in the filesystem even if its node is unknown.
    may_be_device = volume.attachment_state not in {"", "attaching"}
    refused: set[str] = set()
    for _ in range(ATTACH_TRIES):
        if not volume.attached_to:
            volume = _request_attach(volume, inventory, world, refused)
        if volume.attached_to != inventory.instance_id:
            raise Unfit(
                f"{volume.id} of growth {volume.growth} is attached to {volume.attached_to}",
                hint="detach it there, or remove its ebs-autoscale tags",
                cause=Cause.ATTACHED_ELSEWHERE,
            )
        if attached := _wait_usable(volume, world):
            return attached
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


def _wait_usable(volume: Volume, world: World) -> Attached | None:
    """The volume with its block device once EC2 says attached; None when it is stuck."""
    # The block device shows for free that the attach has come through: from then on EC2 has a
    # mapping to set DeleteOnTermination on. A late device must not delay that for long.
    failure: EbsAutoscaleError | None = None
    if _wait_node(volume, world, NODE_USUALLY_HERE_SECONDS):
        failure = _set_if_wanted(volume, world)
    else:
        world.progress(volume, f"the block device of {volume.id} has not appeared yet")
    attached = wait_attached(world.cloud, volume, world.clock, partial(world.progress, volume))
    if attached is None:
        return None
    # What was set is read back with this look; what is not there is set again, unless denied.
    if not isinstance(failure, Unfit) or attached.delete_on_termination:
        failure = _set_if_wanted(attached, world)
    warn_if_not_deleted(attached, failure, world)
    node = _wait_node(attached, world, ATTACH_STUCK_AFTER_SECONDS)
    return Attached(attached, node) if node else None


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
    raise Unfit(
        f"{volume.id} of growth {volume.growth} is gone",
        hint="it was deleted; the next growth creates another",
        cause=Cause.VOLUME_LOST,
    )


def _request_attach(
    volume: Volume, inventory: Inventory, world: World, stuck: AbstractSet[str]
) -> Volume:
    """The volume as attaching under a name that EC2 took; names that were stuck come last."""
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
            # A repetition of a call whose answer was lost: EC2 says that it is done.
            seen = world.cloud.refresh(volume) if error.cause is Cause.STATE else None
            if seen is None or not seen.attached_to:
                raise
            return seen
        return replace(
            volume,
            attached_to=inventory.instance_id,
            device_name=name,
            attachment_state="attaching",
        )
    raise Transient(
        f"no device name left for {volume.id}: EC2 rejected {', '.join(sorted(refused)) or 'none'}",
        cause=Cause.NAME_TAKEN,
    )


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


def set_delete_on_termination(
    volume: Volume, world: World, *, patience_seconds: float = 0.0
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
