"""Carry out a plan step by step."""

from functools import partial
from typing import assert_never

from ebs_autoscale.errors import EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import (
    AddDevice,
    AttachVolume,
    CreateVolume,
    Inventory,
    Settle,
    Step,
    Volume,
)
from ebs_autoscale.resize.attach import attach
from ebs_autoscale.resize.ports import World
from ebs_autoscale.telemetry.events import Event, EventKind


def carry_out(
    plan: tuple[Step, ...], volume: Volume | None, inventory: Inventory, world: World
) -> Volume | None:
    """Do the steps in order; each is safe to repeat, so a failed plan is simply planned again.

    `volume` is what an earlier run left, None at the beginning; returns it as the steps leave
    it. Raises Stopped, Transient,
    Unfit or CommandFailed. All that is undone on the way out is a volume that was created
    here and that the instance has no slot for.
    """
    fresh = volume is None
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
        try:
            volume, done = _perform(step, volume, inventory, world)
        except Unfit as error:
            if fresh and volume and error.cause == "slots":
                _give_back(volume, world)
            raise
        seconds = round(world.clock.now_seconds() - began, 3)
        fields = {**fields, "volume": volume.id, "seconds": seconds}
        sentence = f"{done} ({seconds:.1f} s)"
        world.emit(Event(kind=EventKind.STEP_DONE, sentence=sentence, fields=fields))
    return volume


def _give_back(volume: Volume, world: World) -> None:
    """Delete a volume that was bought a moment ago and never attached: nothing can be on it.

    That it cannot be deleted is told beside the lack of a slot, never instead of it: the wait
    for slots is long, since each look buys a volume.
    """
    try:
        world.cloud.delete(volume)
    except EbsAutoscaleError as error:
        world.warn(volume, f"{volume.id} has no slot and is not deleted: {error}", "slots")
        return
    world.warn(volume, f"deleted {volume.id} again: the instance has no slot for it", "slots")


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
            attached = attach(volume, inventory, world)
            return attached, f"attached {attached.id} as {attached.node}"
        case AddDevice():
            node, size_bytes = volume.node, volume.size_bytes
            proof = partial(world.nodes.proved_blank, node, size_bytes=size_bytes)
            world.filesystem.add_device(node, proof=proof, tell=partial(world.progress, volume))
            return volume, f"added {volume.node} to the filesystem"
        case Settle():
            return volume, _settle(volume, world)
        case _:
            assert_never(step)


def _settle(volume: Volume, world: World) -> str:
    """Settle metadata; a failure leaves the growth usable, so it is told and tried again later."""
    try:
        return world.filesystem.settle(
            world.rebalance,
            stopping=lambda: world.clock.stopping,
            tell=partial(world.progress, volume),
        )
    except EbsAutoscaleError as error:
        world.warn(volume, f"metadata is not settled after {volume.growth}: {error}", "unsettled")
        return "left metadata as it is"
