"""The transitions of volumes and of the instance after EC2 has accepted a request.

Each function begins a transition and schedules its end; a `stuck` transition has no end. At
its end, a transition first checks whether the volume is still in the same state.
"""

from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from ec2_sandbox.errors import SandboxError
from ec2_sandbox.settings import Span
from ec2_sandbox.world.state import (
    Attachment,
    AttachmentState,
    InstanceState,
    Modification,
    ModificationState,
    Shape,
    Volume,
    VolumeState,
    World,
)

# How often a busy detach checks whether the device is still in use.
_BUSY_CHECK_SECONDS = 1.0


class CreateEnding(Enum):
    """How the creation of a volume ends: it may vanish, fail, or be deleted by somebody."""

    AVAILABLE = auto()
    VANISHED = auto()
    ERROR = auto()
    DELETED = auto()


def begin_create(
    world: World, volume: Volume, *, ending: CreateEnding = CreateEnding.AVAILABLE, stuck: bool
) -> None:
    """Create a volume, which becomes available unless another ending is wanted."""
    settings = world.settings
    volume.visible_at = world.now + world.draw(settings.visibility_seconds)
    volume.steady_at = volume.visible_at + world.draw(settings.flicker_seconds)
    world.volumes[volume.id] = volume
    endings = {
        CreateEnding.AVAILABLE: partial(_become_available, volume),
        CreateEnding.VANISHED: partial(_vanish, world, volume),
        CreateEnding.ERROR: partial(_become_error, volume),
        CreateEnding.DELETED: partial(_become_deleted, world, volume),
    }
    _later(world, settings.create_seconds, endings[ending], stuck=stuck)


def begin_attach(
    world: World,
    volume: Volume,
    attachment: Attachment,
    *,
    stuck: bool,
    ghost: bool,
    undone: bool = False,
) -> None:
    """Attach a volume and show its block device, unless it is a `ghost`.

    If it is `undone`, somebody detaches it at once.
    """
    volume.state = VolumeState.IN_USE
    volume.attachment = attachment
    if stuck:
        return
    seconds = world.draw(world.settings.attach_seconds)
    if not ghost:
        device_seconds = seconds + world.draw(world.settings.device_seconds)
        world.timeline.after(device_seconds, partial(_show, world, volume, attachment))
    world.timeline.after(seconds, partial(_become_attached, attachment))
    if undone:
        undo = partial(begin_detach, world, volume, force=False, stuck=False)
        world.timeline.after(seconds, undo)


def begin_detach(world: World, volume: Volume, *, force: bool, stuck: bool) -> None:
    """Detach a volume; while its device is in use, only by force."""
    if (attachment := volume.attachment) is None:
        return
    attachment.state = AttachmentState.DETACHING
    ending = partial(_detach, world, volume, attachment, force=force)
    _later(world, world.settings.detach_seconds, ending, stuck=stuck)


def begin_delete(world: World, volume: Volume, *, stuck: bool) -> None:
    """Delete a volume; its content is discarded at once."""
    volume.state = VolumeState.DELETING
    _try(world, volume, "remove", partial(world.devices.discard, volume.id))
    _later(world, world.settings.delete_seconds, partial(_vanish, world, volume), stuck=stuck)


def begin_modify(
    world: World, volume: Volume, target: Shape, *, stuck: bool, ghost: bool, failed: bool
) -> Modification:
    """Modify a volume, unless that is to end `failed`; a new size is usable from `optimizing` on.

    The block device of a `ghost` grows only when the volume is attached again.
    """
    modification = Modification(
        original=volume.shape,
        target=target,
        started_at=world.now,
        visible_at=world.now + world.draw(world.settings.visibility_seconds),
    )
    volume.modifications.append(modification)
    if stuck:
        return modification
    seconds = world.draw(world.settings.modify_seconds)
    if failed:
        ending = partial(_end_modification, world, modification, ModificationState.FAILED)
    else:
        ending = partial(_become_optimizing, world, volume, modification, ghost=ghost)
        modification.shown_at = world.now + seconds + world.draw(world.settings.size_seconds)
    world.timeline.after(seconds, ending)
    return modification


def begin_terminate(world: World, *, stuck: bool) -> None:
    """Terminate the instance; its volumes are deleted or detached by DeleteOnTermination."""
    if world.instance.state is InstanceState.RUNNING:
        world.instance.state = InstanceState.SHUTTING_DOWN
        _later(world, world.settings.terminate_seconds, partial(_terminate, world), stuck=stuck)


def _later(world: World, span: Span, ending: Callable[[], None], *, stuck: bool) -> None:
    if not stuck:
        world.timeline.after(world.draw(span), ending)


def _try(world: World, volume: Volume, what: str, act: Callable[[], None]) -> None:
    """Change a block device; a failure of the host is reported and does not stop the sandbox."""
    try:
        act()
    except (SandboxError, OSError) as error:
        world.report_problem(f"cannot {what} the block device of {volume.id}: {error}")


def _become_available(volume: Volume) -> None:
    if volume.state is VolumeState.CREATING:
        volume.state = VolumeState.AVAILABLE


def _become_error(volume: Volume) -> None:
    if volume.state is VolumeState.CREATING:
        volume.state = VolumeState.ERROR


def _become_deleted(world: World, volume: Volume) -> None:
    _become_available(volume)
    begin_delete(world, volume, stuck=False)


def _vanish(world: World, volume: Volume) -> None:
    _try(world, volume, "remove", partial(world.devices.discard, volume.id))
    world.volumes.pop(volume.id, None)


def _become_attached(attachment: Attachment) -> None:
    if attachment.state is AttachmentState.ATTACHING:
        attachment.state = AttachmentState.ATTACHED


def _show(world: World, volume: Volume, attachment: Attachment) -> None:
    wanted = (AttachmentState.ATTACHING, AttachmentState.ATTACHED)
    if volume.attachment is not attachment or attachment.state not in wanted:
        return
    appear = partial(
        world.devices.appear,
        volume.id,
        size_bytes=volume.size_bytes,
        device_name=attachment.device,
        content=volume.snapshot.content if volume.snapshot else {},
    )
    _try(world, volume, "show", appear)


def _detach(world: World, volume: Volume, attachment: Attachment, *, force: bool) -> None:
    if volume.attachment is not attachment:
        return
    if not force and world.devices.is_held(volume.id):
        attachment.state = AttachmentState.BUSY
        again = partial(_detach, world, volume, attachment, force=False)
        world.timeline.after(_BUSY_CHECK_SECONDS, again)
        return
    _try(world, volume, "hide", partial(world.devices.disappear, volume.id))
    volume.attachment = None
    volume.state = VolumeState.AVAILABLE


def _become_optimizing(
    world: World, volume: Volume, modification: Modification, *, ghost: bool
) -> None:
    modification.state = ModificationState.OPTIMIZING
    modification.optimizing_at = world.now
    modification.optimizing_seconds = world.draw(world.settings.optimize_seconds)
    volume.shape = modification.target
    if not ghost:
        growing = partial(_grow, world, volume, volume.size_bytes)
        _later(world, world.settings.growth_seconds, growing, stuck=False)
    ending = partial(_end_modification, world, modification, ModificationState.COMPLETED)
    world.timeline.after(modification.optimizing_seconds, ending)


def _grow(world: World, volume: Volume, size_bytes: int) -> None:
    _try(world, volume, "enlarge", partial(world.devices.grow, volume.id, size_bytes))


def _end_modification(world: World, modification: Modification, state: ModificationState) -> None:
    modification.state = state
    modification.ended_at = world.now


def _terminate(world: World) -> None:
    world.instance.state = InstanceState.TERMINATED
    for volume, attachment in world.attached():
        _detach(world, volume, attachment, force=True)
        if attachment.delete_on_termination:
            begin_delete(world, volume, stuck=False)
