"""Carry out a plan step by step."""

from dataclasses import replace
from typing import assert_never

from ebs_autoscale.attachment_names import choose_device_name
from ebs_autoscale.errors import EbsAutoscaleError, NameTaken, Transient, Unfit
from ebs_autoscale.events import Event, EventKind, Level
from ebs_autoscale.model import (
    AddDevice,
    AttachVolume,
    CreateVolume,
    Inventory,
    Settle,
    Step,
    Volume,
)
from ebs_autoscale.policy import DEAD_STATES
from ebs_autoscale.ports import World

# csi-driver's tuned poller: creation takes 1.5 s at the median, 4 s at the 99th percentile.
FIRST_LOOK_AFTER_CREATE_SECONDS = 1.25
CREATE_PATIENCE_SECONDS = 120.0

# A healthy attach takes seconds. One that is still "attaching" after this long stays so
# until detached; the EBS CSI driver waits the same time.
ATTACH_STUCK_AFTER_SECONDS = 90.0
NODE_POLL_SECONDS = 0.2
# "Most" attaches take 1 to 4 s, the node another 0.5 s at most (EBS CSI driver).
NODE_USUALLY_HERE_SECONDS = 5.0

LOOK_BACKOFF = 1.5
LOOK_MAX_SECONDS = 5.0

# "Attachment point is already in use" can be true invisibly, for names mapped in the AMI.
NAMES_TRIED_MAX = 5


def carry_out(plan: tuple[Step, ...], inventory: Inventory, world: World) -> None:
    """Do the steps in order; each is safe to repeat, so a failed plan is simply planned again.

    Raises Stopped, Transient, Unfit or CommandFailed; nothing is undone on the way out.
    """
    volume = next((v for v in inventory.volumes if v.growth == plan[0].growth), None)
    for number, step in enumerate(plan, start=1):
        # A requested stop takes effect here at the latest, between two steps.
        world.clock.sleep(0)
        began = world.clock.now_seconds()
        fields: dict[str, str | int | float] = {
            "growth": str(step.growth),
            "step": type(step).__name__,
            "number": number,
            "steps": len(plan),
        }
        world.emit(Event(kind=EventKind.STEP_STARTED, sentence=step.title, fields=fields))
        volume, done = _perform(step, volume, inventory, world)
        seconds = round(world.clock.now_seconds() - began, 3)
        fields = {**fields, "volume": volume.id, "seconds": seconds}
        sentence = f"{done} ({seconds:.1f} s)"
        world.emit(Event(kind=EventKind.STEP_DONE, sentence=sentence, fields=fields))


def _perform(
    step: Step, volume: Volume | None, inventory: Inventory, world: World
) -> tuple[Volume, str]:
    """The volume as the step leaves it, and what was done in a few words."""
    if isinstance(step, CreateVolume):
        created = world.cloud.create(step.growth, step.size_bytes)
        return created, f"created {created.id}"
    if volume is None:
        raise Transient(f"growth {step.growth} has no volume any more", cause="not visible")
    match step:
        case AttachVolume():
            attached = _attach(volume, inventory, world)
            return attached, f"attached {attached.id} as {attached.node}"
        case AddDevice():
            if not world.filesystem.read().has_member(volume.node):
                world.nodes.require_blank(volume.node, size_bytes=volume.size_bytes)
            world.filesystem.add_device(volume.node)
            return volume, f"added {volume.node} to the filesystem"
        case Settle():
            return volume, _settle(volume, world)
        case _:
            assert_never(step)


def _settle(volume: Volume, world: World) -> str:
    """Settle metadata; a failure leaves the growth usable, so it is told and tried again later."""
    try:
        return world.filesystem.settle(world.rebalance, stopping=lambda: world.clock.stopping)
    except EbsAutoscaleError as error:
        sentence = f"metadata is not settled after {volume.growth}: {error}"
        fields = {"growth": str(volume.growth), "cause": "unsettled"}
        warning = Event(
            kind=EventKind.WARNING, sentence=sentence, level=Level.WARNING, fields=fields
        )
        world.emit(warning)
        return "left metadata as it is"


def _attach(volume: Volume, inventory: Inventory, world: World) -> Volume:
    volume = _wait_available(volume, world)
    if not volume.attached_to:
        volume = _ask_to_attach(volume, inventory, world)
    if volume.attached_to != inventory.instance_id:
        raise Unfit(
            f"{volume.id} of growth {volume.growth} is attached to {volume.attached_to}, not to us",
            hint="detach it there, or take its ebs-autoscale tags away",
            cause="attached elsewhere",
        )
    # The node tells for nothing that the attach has come through; DeleteOnTermination
    # cannot be set before, and must not wait for a node that is late.
    if not _wait_node(volume, world, NODE_USUALLY_HERE_SECONDS):
        _progress(world, volume, f"the block device of {volume.id} is late")
    if world.delete_on_termination and not volume.delete_on_termination:
        _protect(volume, world)
    attached = _wait_attached(volume, world)
    if node := _wait_node(attached, world, ATTACH_STUCK_AFTER_SECONDS):
        return replace(attached, node=node)
    raise Transient(
        f"{volume.id} is attached as {attached.device_name}, but after "
        f"{ATTACH_STUCK_AFTER_SECONDS:.0f} s no block device of it is here",
        hint="see `lsblk`, and `dmesg` for NVMe errors",
        cause="no node",
    )


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
        _progress(world, volume, f"waiting for {volume.id} to become available ({state})")
        world.clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
        seen = world.cloud.refresh(volume)
    return seen


def _ask_to_attach(volume: Volume, inventory: Inventory, world: World) -> Volume:
    taken = inventory.device_names | world.nodes.names_present()
    refused: set[str] = set()
    for _ in range(NAMES_TRIED_MAX):
        name = choose_device_name(taken, avoid=refused)
        if name is None:
            break
        try:
            world.cloud.attach(volume, name)
        except NameTaken:
            refused.add(name)
            continue
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
        _progress(world, volume, f"waiting for the block device of {volume.id}")
        world.clock.sleep(NODE_POLL_SECONDS)
    return node


def _protect(volume: Volume, world: World) -> None:
    """Set DeleteOnTermination; a volume in service matters more than a denial of this."""
    deadline = world.clock.now_seconds() + ATTACH_STUCK_AFTER_SECONDS
    delay = 0.5
    while True:
        try:
            world.cloud.delete_on_termination(volume)
        except Unfit as error:
            fields = {"volume": volume.id, "growth": str(volume.growth), "cause": error.cause}
            sentence = f"{volume.id} will outlive this instance: {error}"
            world.emit(
                Event(kind=EventKind.WARNING, sentence=sentence, level=Level.WARNING, fields=fields)
            )
            return
        except Transient as error:
            # EC2 may not show the mapping to this call for a moment after the attach.
            if error.cause != "mapping not visible" or world.clock.now_seconds() > deadline:
                raise
            world.clock.sleep(delay)
            delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
        else:
            return


def _wait_attached(volume: Volume, world: World) -> Volume:
    """The volume once EC2 says that it is attached to us."""
    deadline = world.clock.now_seconds() + ATTACH_STUCK_AFTER_SECONDS
    delay = 0.5
    while True:
        seen = world.cloud.refresh(volume)
        if seen and seen.attached_to == volume.attached_to and seen.attachment_state == "attached":
            return seen
        state = seen.attachment_state or seen.state if seen else "not visible"
        if world.clock.now_seconds() > deadline:
            raise Transient(
                f"{volume.id} is still {state} {ATTACH_STUCK_AFTER_SECONDS:.0f} s after its attach",
                cause="stuck attach",
            )
        _progress(world, volume, f"waiting for {volume.id} to be attached ({state})")
        world.clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)


def _progress(world: World, volume: Volume, sentence: str) -> None:
    fields = {"volume": volume.id, "growth": str(volume.growth)}
    world.emit(
        Event(kind=EventKind.STEP_PROGRESS, sentence=sentence, level=Level.DEBUG, fields=fields)
    )
