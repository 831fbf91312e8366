"""From a volume that is to be larger to a device of the filesystem that is."""

from dataclasses import replace
from functools import partial

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Problem, Transient
from ebs_autoscale.model import (
    GIB,
    Decision,
    Enlarge,
    Modification,
    Observation,
    Volume,
)
from ebs_autoscale.policy import (
    Forecast,
    GrowthPolicy,
    Tried,
    decide,
    expected,
    own_devices,
    without,
)
from ebs_autoscale.resize.attach import NODE_POLL_SECONDS
from ebs_autoscale.resize.ports import World
from ebs_autoscale.units import format_size
from ebs_autoscale.volumes import LOOK_BACKOFF, LOOK_MAX_SECONDS

# "Usually seconds" (EBS User Guide, monitoring the progress of volume modifications). Another
# volume is enlarged long before a writer can have filled the filesystem.
MODIFY_PATIENCE_SECONDS = 60.0
FIRST_LOOK_AFTER_MODIFY_SECONDS = 2.0

# The kernel is told of the new size by the NVMe controller (Linux 4.2), within a second.
DEVICE_PATIENCE_SECONDS = 15.0

# What EC2 refuses for this volume it may do for another one. Whatever else it answers is the same
# for all volumes, or no answer at all.
_OF_ONE_VOLUME = frozenset(
    {
        Cause.MODIFICATIONS,
        Cause.SLOW_MODIFICATION,
        Cause.MODIFICATION_FAILED,
        Cause.OLD_SIZE,
        Cause.RESIZE,
        Cause.STATE,
        Cause.NOT_VISIBLE,
        Cause.VOLUME_KIND,
        Cause.REQUEST,
        Cause.UNKNOWN_CODE,
    }
)


def decide_on(
    seen: Observation,
    policy: GrowthPolicy,
    world: World,
    *,
    forecast: Forecast,
    wanted_bytes: int | None,
    tried: Tried,
) -> tuple[Observation, Decision]:
    """The decision, and the observation it is made on: with modifications once they matter.

    Raises what EC2 answers, unless it denies to show them where volumes need not be enlarged.
    """
    judge = partial(decide, policy=policy, forecast=forecast, wanted_bytes=wanted_bytes)
    decision = judge(seen, tried=tried)
    if not isinstance(decision, Enlarge) or seen.inventory.shows_modifications:
        return seen, decision
    devices = own_devices(seen)
    try:
        seen = seen.with_volumes(*world.cloud.with_modifications(devices))
    except EbsAutoscaleError as error:
        if not is_optional(error, decision):
            raise
        tried = without(devices, Problem.of_error(error), tried)
    seen = replace(seen, inventory=replace(seen.inventory, shows_modifications=True))
    return seen, judge(seen, tried=tried)


def is_optional(error: EbsAutoscaleError, decision: Decision) -> bool:
    """Whether the role may not enlarge volumes, and need not: the refusal then says how it may."""
    return error.cause is Cause.DENIED and isinstance(decision, Enlarge) and decision.instead_of_new


def after_failed_enlargement(
    error: EbsAutoscaleError,
    decision: Decision,
    volume: Volume,
    seen: Observation,
    tried: Tried,
) -> Tried | None:
    """What was tried in vain, if the growth goes on without it; None where it ends."""
    problem = Problem.of_error(error)
    if is_optional(error, decision):
        return without(own_devices(seen), problem, tried)
    if not seen.reading.kind.takes_devices and error.cause is not Cause.MODIFICATIONS:
        # There is no other volume to try, so that it ends under its own cause, with its back-off.
        return None
    return without([volume], problem, tried) if error.cause in _OF_ONE_VOLUME else None


def is_part_of_refusal(error: EbsAutoscaleError, decision: Decision) -> bool:
    """Whether there is no more to tell of it than a refusal does, should it come to that."""
    is_passing = isinstance(decision, Enlarge) and error.cause is Cause.MODIFICATIONS
    return is_passing or is_optional(error, decision)


def enlarge(volume: Volume, node: str, target_bytes: int, world: World) -> Volume:
    """Have EC2 enlarge the volume, and return it once its new size can be used.

    A modification that is under way already, since an answer was lost or somebody else was faster,
    is waited for instead. Raises Transient, Unfit or Stopped.
    """
    if world.block_devices.size_of(node) >= target_bytes:
        return volume.enlarged(target_bytes)
    if expected(volume).size_bytes >= target_bytes:
        change = _change_to(target_bytes, volume, world)
    else:
        change = _begin(volume, target_bytes, world)
    _wait_usable(volume, node, change, world)
    return volume.enlarged(change.target_bytes)


def _change_to(target_bytes: int, volume: Volume, world: World) -> Modification:
    """The modification that has led, or leads, to this size."""
    done = Modification(state="completed", target_bytes=target_bytes)
    try:
        (seen,) = world.cloud.with_modifications([volume])
    except EbsAutoscaleError as error:
        # It was somebody else's, and we may not look: the block device will tell.
        if error.cause is not Cause.DENIED:
            raise
        return done
    change = seen.modification
    return change if change and change.target_bytes >= target_bytes else done


def _begin(volume: Volume, target_bytes: int, world: World) -> Modification:
    try:
        return world.cloud.enlarge(volume, target_bytes)
    except EbsAutoscaleError as error:
        change = _change_under_way(volume, world) if error.cause is Cause.MODIFICATIONS else None
        if change is None:
            raise
        return change


def _change_under_way(volume: Volume, world: World) -> Modification | None:
    """The modification that keeps EC2 from another one, if it brings space."""
    (seen,) = world.cloud.with_modifications([volume])
    change = seen.modification
    is_coming = change and change.is_modifying and change.target_bytes > volume.size_bytes
    return change if is_coming else None


def _wait_usable(volume: Volume, node: str, change: Modification, world: World) -> None:
    """Wait until EC2 says so or the block device shows it, which costs no call."""
    began = world.clock.now_seconds()
    look_at, delay = began + FIRST_LOOK_AFTER_MODIFY_SECONDS, FIRST_LOOK_AFTER_MODIFY_SECONDS
    target_bytes = change.target_bytes
    while change.is_modifying and world.block_devices.size_of(node) < target_bytes:
        now = world.clock.now_seconds()
        if now - began >= MODIFY_PATIENCE_SECONDS:
            raise Transient(
                f"the modification of {volume.id} to {target_bytes // GIB} GiB has not ended after "
                f"{MODIFY_PATIENCE_SECONDS:.0f} s",
                hint="nothing to do: its space is used once it is there",
                cause=Cause.SLOW_MODIFICATION,
            )
        if now >= look_at:
            (seen,) = world.cloud.with_modifications([volume])
            # EC2 may still show the one before.
            if seen.modification and seen.modification.target_bytes >= target_bytes:
                change = seen.modification
            delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
            look_at = now + delay
            continue
        world.progress(volume, f"waiting for {volume.id} to be enlarged ({change.state})")
        world.clock.sleep(NODE_POLL_SECONDS)
    if change.state == "failed":
        raise Transient(
            f"EC2 could not enlarge {volume.id} to {target_bytes // GIB} GiB",
            hint="see the volume's modification in EC2; it is tried again",
            cause=Cause.MODIFICATION_FAILED,
        )


def resize_device(volume: Volume, node: str, target_bytes: int, world: World) -> None:
    """Extend the device in the filesystem, once the kernel shows at least this size of its volume.

    That may be less than EC2 says: what is there is used.

    Raises Transient, Unfit or Stopped.
    """
    deadline = world.clock.now_seconds() + DEVICE_PATIENCE_SECONDS
    while (size_bytes := world.block_devices.size_of(node)) < target_bytes:
        if world.clock.now_seconds() >= deadline:
            raise Transient(
                f"{node} still has {format_size(size_bytes)}, but {volume.id} has "
                f"{format_size(target_bytes)}",
                hint="see `lsblk` and `dmesg`; reboot the instance if its kernel does not notice",
                cause=Cause.OLD_SIZE,
            )
        world.progress(volume, f"waiting for {node} to show the new size of {volume.id}")
        world.clock.sleep(NODE_POLL_SECONDS)
    if done := world.filesystem.resize_device(node, tell=partial(world.progress, volume)):
        world.tell(volume, done)
