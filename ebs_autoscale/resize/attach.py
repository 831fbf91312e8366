"""From a bought volume to its own block device on this instance."""

from collections.abc import Set as AbstractSet
from dataclasses import replace

from ebs_autoscale.ec2.attachment_names import choose_device_name
from ebs_autoscale.errors import EbsAutoscaleError, NameTaken, Transient, Unfit
from ebs_autoscale.model import Inventory, Volume
from ebs_autoscale.policy.decision import DEAD_STATES
from ebs_autoscale.resize.ports import World

# Creation takes 1.5 s at the median, 4 s at the 99th percentile (EBS CSI driver): a look before
# the median mostly costs a call and, by the wait for the next look, time.
FIRST_LOOK_AFTER_CREATE_SECONDS = 2.0
CREATE_PATIENCE_SECONDS = 120.0

# A healthy attach takes seconds. One that is still "attaching" after this long stays so
# until detached; the EBS CSI driver waits the same time.
ATTACH_STUCK_AFTER_SECONDS = 90.0
# A volume whose device is here can be of use at once, and its protection can be repaired.
PROTECT_PATIENCE_SECONDS = 15.0
NODE_POLL_SECONDS = 0.2
# "Most" attaches take 1 to 4 s, the node another 0.5 s at most (EBS CSI driver).
NODE_USUALLY_HERE_SECONDS = 5.0

LOOK_BACKOFF = 1.5
LOOK_MAX_SECONDS = 5.0

# A name under which an attach hung stays bad on Xen until a reboot: one other is tried.
ATTACH_TRIES = 2
# Most detaches take 1 to 4 s; `busy` can last for ever.
DETACH_PATIENCE_SECONDS = 60.0

# "Attachment point is already in use" can be true invisibly, for names mapped in the AMI.
NAMES_TRIED_MAX = 5


def attach(volume: Volume, inventory: Inventory, world: World) -> Volume:
    """Attach the volume, tie its life to the instance's, and return it with its own node.

    An attach that hangs, or brings no device, is taken back and tried under another name.
    Safe to repeat from whatever an earlier run left. Raises Transient, Unfit or Stopped.
    """
    volume = _wait_available(volume, world)
    # What was attached before this run may be a member whose node cannot be told now.
    may_be_member = volume.attachment_state not in {"", "attaching"}
    refused: set[str] = set()
    for _ in range(ATTACH_TRIES):
        if not volume.attached_to:
            volume = _ask_to_attach(volume, inventory, world, refused)
        if volume.attached_to != inventory.instance_id:
            raise Unfit(
                f"{volume.id} of growth {volume.growth} is attached to {volume.attached_to}",
                hint="detach it there, or take its ebs-autoscale tags away",
                cause="attached elsewhere",
            )
        if arrived := _arrived(volume, world):
            return arrived
        if may_be_member:
            raise Transient(
                f"{volume.id} is attached as {volume.device_name}, but no block device shows it",
                hint="see `lsblk`, and `dmesg` for NVMe errors; detach it if it is no member",
                cause="stuck attach",
            )
        refused.add(volume.device_name)
        volume = _take_back(volume, world)
    raise Transient(
        f"{volume.id} could not be attached as {' or '.join(sorted(refused))}",
        hint="see the volume's attachment in EC2, `lsblk`, and `dmesg` for NVMe errors",
        cause="stuck attach",
    )


def _arrived(volume: Volume, world: World) -> Volume | None:
    """The volume with its node once EC2 says attached; None when it hangs."""
    # The node tells for nothing that the attach has come through: from then on EC2 has a mapping
    # to set DeleteOnTermination on. A node that is late must not delay that for long.
    failure: EbsAutoscaleError | None = None
    if _wait_node(volume, world, NODE_USUALLY_HERE_SECONDS):
        failure = _protect_if_wanted(volume, world)
    else:
        world.progress(volume, f"the block device of {volume.id} is late")
    attached = _wait_attached(volume, world)
    if attached is None:
        return None
    # What was set is read back with this look; what is not there is set again, unless denied.
    if not isinstance(failure, Unfit) or attached.delete_on_termination:
        failure = _protect_if_wanted(attached, world)
    warn_if_unprotected(attached, failure, world)
    node = _wait_node(attached, world, ATTACH_STUCK_AFTER_SECONDS)
    return replace(attached, node=node) if node else None


def _take_back(volume: Volume, world: World) -> Volume:
    """Detach a volume that never came to us, so that it can be attached anew."""
    node = world.nodes.node_of(volume)
    if node and world.filesystem.read().has_member(node):
        raise Unfit(f"{volume.id} is a member as {node} and is not detached", cause="state")
    world.warn(volume, f"{volume.id} hangs as {volume.device_name}: detaching it", "stuck attach")
    world.cloud.detach(volume)
    deadline = world.clock.now_seconds() + DETACH_PATIENCE_SECONDS
    delay = 1.0
    while True:
        world.clock.sleep(delay)
        seen = world.cloud.refresh(volume)
        if seen and seen.state == "available":
            return seen
        if world.clock.now_seconds() > deadline:
            raise Transient(
                f"{volume.id} does not come loose from {volume.device_name}",
                hint="detach it by force, or delete it, in EC2",
                cause="stuck attach",
            )
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)


def _wait_available(volume: Volume, world: World) -> Volume:
    """The volume once it is available or in use; creation may fail without a word from EC2."""
    deadline = world.clock.now_seconds() + CREATE_PATIENCE_SECONDS
    delay = FIRST_LOOK_AFTER_CREATE_SECONDS
    seen: Volume | None = volume
    while seen is None or seen.state not in {"available", "in-use"}:
        state = seen.state if seen else "not visible yet"
        if state in DEAD_STATES:
            raise Unfit(
                f"{volume.id} of growth {volume.growth} is {state}",
                hint="EC2 could not create it, or somebody deleted it; the next try buys another",
                cause="volume lost",
            )
        if world.clock.now_seconds() > deadline:
            raise Transient(
                f"{volume.id} is still {state} after {CREATE_PATIENCE_SECONDS:.0f} s",
                hint="if it stays so, check the rights on the KMS key",
                cause="slow create",
            )
        world.progress(volume, f"waiting for {volume.id} to become available ({state})")
        world.clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
        seen = world.cloud.refresh(volume)
    return seen


def _ask_to_attach(
    volume: Volume, inventory: Inventory, world: World, hung: AbstractSet[str]
) -> Volume:
    """The volume as attaching under a name that EC2 took; names that hung come last."""
    taken = inventory.device_names | world.nodes.names_present()
    refused = set(hung)
    for _ in range(NAMES_TRIED_MAX):
        name = choose_device_name(taken, avoid=refused)
        if name is None:
            break
        try:
            world.cloud.attach(volume, name)
        except NameTaken:
            refused.add(name)
            continue
        except Transient as error:
            # A repetition of a call whose answer was lost: EC2 says that it is done.
            seen = world.cloud.refresh(volume) if error.cause == "state" else None
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
        f"no device name for {volume.id}: EC2 refused {', '.join(sorted(refused)) or 'none'}",
        cause="name taken",
    )


def _wait_node(volume: Volume, world: World, patience_seconds: float) -> str:
    """Kernel name of the volume's own node, empty when it does not show; asks EC2 nothing."""
    deadline = world.clock.now_seconds() + patience_seconds
    while not (node := world.nodes.node_of(volume)):
        if world.clock.now_seconds() > deadline:
            break
        world.progress(volume, f"waiting for the block device of {volume.id}")
        world.clock.sleep(NODE_POLL_SECONDS)
    return node


def _protect_if_wanted(volume: Volume, world: World) -> EbsAutoscaleError | None:
    if world.delete_on_termination and not volume.delete_on_termination:
        return protect(volume, world, patience_seconds=PROTECT_PATIENCE_SECONDS)
    return None


def protect(
    volume: Volume, world: World, *, patience_seconds: float = 0.0
) -> EbsAutoscaleError | None:
    """Set DeleteOnTermination, or return why not: a volume in service outweighs that.

    Only for the mapping is waited: EC2 may not show it to this call for a moment after the attach.
    """
    deadline = world.clock.now_seconds() + patience_seconds
    delay = 0.5
    while True:
        try:
            world.cloud.delete_on_termination(volume)
        except EbsAutoscaleError as error:
            if error.cause != "mapping not visible" or world.clock.now_seconds() >= deadline:
                return error
        else:
            return None
        world.clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)


def warn_if_unprotected(volume: Volume, failure: EbsAutoscaleError | None, world: World) -> None:
    """Tell the failure to protect the volume, if there was one; each later look repairs it."""
    if failure:
        cause = failure.cause if isinstance(failure, Unfit) else "unprotected"
        world.warn(volume, f"{volume.id} will outlive this instance: {failure}", cause)


def _wait_attached(volume: Volume, world: World) -> Volume | None:
    """The volume once EC2 says that it is attached to us; None when that takes too long."""
    deadline = world.clock.now_seconds() + ATTACH_STUCK_AFTER_SECONDS
    delay = 0.5
    while True:
        seen = world.cloud.refresh(volume)
        if seen and seen.attached_to == volume.attached_to and seen.attachment_state == "attached":
            return seen
        state = seen.attachment_state or seen.state if seen else "not visible"
        if world.clock.now_seconds() > deadline:
            return None
        world.progress(volume, f"waiting for {volume.id} to be attached ({state})")
        world.clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
