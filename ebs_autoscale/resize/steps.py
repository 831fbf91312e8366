"""Carry out a plan step by step."""

from functools import partial
from typing import assert_never

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import (
    AddDevice,
    AttachVolume,
    BalanceMetadata,
    CreateVolume,
    EnlargeVolume,
    Observation,
    ResizeDevice,
    Step,
    Volume,
)
from ebs_autoscale.resize.attach import (
    MAPPING_PATIENCE_SECONDS,
    Attached,
    attach,
    protect,
    require_attached,
)
from ebs_autoscale.resize.enlarge import enlarge, resize_device
from ebs_autoscale.resize.ports import World
from ebs_autoscale.telemetry import Event, EventKind
from ebs_autoscale.units import format_size

# Whatever looks at new block devices, such as blkid or a partition scan, is done with one by then.
_CLAIM_PATIENCE_SECONDS = 3.0
_CLAIM_POLL_SECONDS = 0.5


def carry_out(
    plan: tuple[Step, ...],
    volume: Volume | None,
    seen: Observation,
    world: World,
    created: dict[str, Volume] | None = None,
) -> Attached:
    """Do the steps in order; each is safe to repeat, so a failed plan is simply planned again.

    `volume` is that of an unfinished growth, None for a new one; returns it, and its block device,
    as the steps leave them. `created` has the volumes that this run created, by id, and gets a new
    one. Raises Stopped, Transient, Unfit or CommandFailed.
    """
    created = {} if created is None else created
    at = Attached(volume, seen.nodes.get(volume.id, "")) if volume else None
    for number, step in enumerate(plan, start=1):
        # A requested stop takes effect here at the latest, between two steps.
        world.clock.sleep(0)
        began = world.clock.now_seconds()
        event = partial(
            Event, growth=str(step.growth), step=step.kind, number=number, steps=len(plan)
        )
        world.emit(event(kind=EventKind.STEP_STARTED, sentence=step.title))
        at, done = _perform(step, at, seen, world, created)
        seconds = round(world.clock.now_seconds() - began, 3)
        sentence = f"{done} ({seconds:.1f} s)"
        world.emit(
            event(kind=EventKind.STEP_DONE, sentence=sentence, volume=at.volume.id, seconds=seconds)
        )
    if at is None:
        raise ValueError("a plan has steps, or a volume")
    return at


def _perform(
    step: Step,
    at: Attached | None,
    seen: Observation,
    world: World,
    created: dict[str, Volume],
) -> tuple[Attached, str]:
    """The volume as the step leaves it, and what was done in a few words."""
    if isinstance(step, CreateVolume):
        volume = world.cloud.create(step.growth, step.size_bytes, seen.inventory)
        # In any other state it is what an earlier run created: its token was known.
        if volume.state == "creating":
            created[volume.id] = volume
        return Attached(volume, ""), f"created {volume.id}"

    if at is None:
        raise Transient(
            f"the volume of growth {step.growth} no longer exists", cause=Cause.NOT_VISIBLE
        )
    match step:
        case AttachVolume():
            is_new = at.volume.id in created
            attached = attach(at.volume, seen.inventory, world, is_new=is_new)
            return attached, f"attached {attached.volume.id} as {attached.node}"
        case AddDevice():
            _add_device(at, world, is_new=at.volume.id in created)
            return at, f"added {at.node}, {at.volume.id}, to the filesystem"
        case EnlargeVolume(growth=growth):
            enlarged = enlarge(at.volume, at.node, growth.target_bytes, world)
            size = format_size(enlarged.size_bytes)
            return at._replace(volume=enlarged), f"enlarged {at.volume.id} to {size}"
        case ResizeDevice(growth=growth):
            resize_device(at.volume, at.node, growth.target_bytes, world)
            world.tell_throughput(at.volume, at.node)
            return at, f"extended the filesystem on {at.node}, {at.volume.id}"
        case BalanceMetadata():
            return at, _balance(at.volume, world)
        case _:
            assert_never(step)


def _add_device(at: Attached, world: World, *, is_new: bool) -> None:
    try:
        _add(at, world)
    except Unfit as error:
        if error.cause is Cause.NOT_BLANK and at.is_requested and not is_new:
            _put_back(at.volume, error, world)
        raise
    world.tell_throughput(at.volume, at.node)
    if not is_new:
        # Only now is it known to be ours to delete.
        protect(at.volume, world, patience_seconds=MAPPING_PATIENCE_SECONDS)


def _add(at: Attached, world: World) -> None:
    """Add the block device; a failure for lack of the volume is told as such."""
    volume = at.volume
    verified = partial(
        world.block_devices.verified_blank,
        at.node,
        size_bytes=volume.size_bytes,
        volume_id=volume.id,
    )
    tell = partial(world.progress, volume)
    deadline = world.clock.now_seconds() + _CLAIM_PATIENCE_SECONDS
    while True:
        try:
            world.filesystem.add_device(at.node, verified=verified, tell=tell)
        except EbsAutoscaleError as error:
            is_over = world.clock.now_seconds() >= deadline
            if error.cause is not Cause.CLAIMED or is_over:
                require_attached(volume, world)
                if not isinstance(error, Unfit) or volume.id in error.what:
                    raise
                what = f"{volume.id}: {error.what}"
                raise Unfit(what, hint=error.hint, cause=error.cause) from error
            tell(error.what)
            world.clock.sleep(_CLAIM_POLL_SECONDS)
        else:
            return


def _put_back(volume: Volume, error: Unfit, world: World) -> None:
    """Detach a volume that this run attached only to see what is on it: it is somebody else's."""
    try:
        world.cloud.detach(volume)
    except EbsAutoscaleError as failure:
        sentence = f"{volume.id} stays attached: {failure.what}"
        world.tell(volume, sentence, cause=error.cause, hint=failure.hint)
    else:
        world.tell(volume, f"detached {volume.id}, which is not blank", cause=error.cause)


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
