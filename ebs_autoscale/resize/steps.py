"""Carry out a plan step by step."""

from functools import partial
from typing import assert_never

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Reaction, Transient, Unfit
from ebs_autoscale.model import (
    AddDevice,
    AttachVolume,
    BalanceMetadata,
    CreateVolume,
    Observation,
    Step,
    Volume,
)
from ebs_autoscale.resize.attach import Attached, attach
from ebs_autoscale.resize.ports import World
from ebs_autoscale.telemetry import Event, EventKind


def carry_out(
    plan: tuple[Step, ...], volume: Volume | None, seen: Observation, world: World
) -> Attached:
    """Do the steps in order; each is safe to repeat, so a failed plan is simply planned again.

    `volume` is that of an unfinished growth, None for a new one; returns it, and its block device,
    as the steps leave them. Raises Stopped, Transient, Unfit or CommandFailed. The only thing that
    is undone on the way out is a volume that was created here and that the instance has no
    attachment slot for.
    """
    is_new = volume is None
    at = Attached(volume, seen.nodes.get(volume.id, "")) if volume else None
    for number, step in enumerate(plan, start=1):
        # A requested stop takes effect here at the latest, between two steps.
        world.clock.sleep(0)
        began = world.clock.now_seconds()
        event = partial(
            Event, growth=str(step.growth), step=step.kind, number=number, steps=len(plan)
        )
        world.emit(event(kind=EventKind.STEP_STARTED, sentence=step.title))
        try:
            at, done = _perform(step, at, seen, world)
        except Unfit as error:
            if is_new and at and error.cause.reaction is Reaction.DELETE_NEW_VOLUME:
                _delete_new(at.volume, error, world)
            raise
        seconds = round(world.clock.now_seconds() - began, 3)
        sentence = f"{done} ({seconds:.1f} s)"
        world.emit(
            event(kind=EventKind.STEP_DONE, sentence=sentence, volume=at.volume.id, seconds=seconds)
        )
    if at is None:
        raise ValueError("a plan has steps, or a volume")
    return at


def _delete_new(volume: Volume, no_slot: Unfit, world: World) -> None:
    """Delete a volume that was created a moment ago and never attached: nothing can be on it.

    That it cannot be deleted is told beside the lack of a slot, never instead of it: the wait
    for slots is long, since each try creates a volume.
    """
    try:
        world.cloud.delete(volume)
    except EbsAutoscaleError as error:
        sentence = f"{volume.id} has no attachment slot and could not be deleted: {error.what}"
        world.warn(volume, sentence, no_slot)
        return
    world.warn(volume, f"deleted {volume.id}: the instance has no attachment slot for it", no_slot)


def _perform(
    step: Step, at: Attached | None, seen: Observation, world: World
) -> tuple[Attached, str]:
    """The volume as the step leaves it, and what was done in a few words."""
    if isinstance(step, CreateVolume):
        created = world.cloud.create(step.growth, step.size_bytes, seen.inventory)
        return Attached(created, ""), f"created {created.id}"
    if at is None:
        raise Transient(
            f"the volume of growth {step.growth} no longer exists", cause=Cause.NOT_VISIBLE
        )
    match step:
        case AttachVolume():
            attached = attach(at.volume, seen.inventory, world)
            return attached, f"attached {attached.volume.id} as {attached.node}"
        case AddDevice():
            _add(at, world)
            return at, f"added {at.node} to the filesystem"
        case BalanceMetadata():
            return at, _balance(at.volume, world)
        case _:
            assert_never(step)


def _add(at: Attached, world: World) -> None:
    try:
        world.filesystem.add_device(
            at.node,
            verified=partial(
                world.block_devices.verified_blank, at.node, size_bytes=at.volume.size_bytes
            ),
            tell=partial(world.progress, at.volume),
        )
    except Unfit as error:
        if at.volume.id in error.what:
            raise
        what = f"{at.volume.id}: {error.what}"
        raise Unfit(what, hint=error.hint, cause=error.cause) from error


def _balance(volume: Volume, world: World) -> str:
    """Balance metadata; a failure leaves the growth usable, so it is told and tried again later."""
    try:
        return world.filesystem.balance_metadata(
            world.rebalance,
            stopping=lambda: world.clock.stopping,
            tell=partial(world.progress, volume),
        )
    except EbsAutoscaleError as error:
        unbalanced = Transient(error.what, hint=error.hint, cause=Cause.UNBALANCED)
        sentence = f"metadata is not balanced after growth {volume.growth}: {error.what}"
        world.warn(volume, sentence, unbalanced)
        return "metadata was not balanced"
