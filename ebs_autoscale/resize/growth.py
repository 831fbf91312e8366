"""One growth from look to result: observe, decide, carry out; the same after a crash."""

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Reaction, Stopped, Unfit
from ebs_autoscale.model import (
    GIB,
    Decision,
    Enlarge,
    Enlargement,
    Finish,
    Grow,
    Hold,
    Observation,
    Refuse,
    Stage,
    Volume,
)
from ebs_autoscale.policy import (
    NOTHING_TRIED,
    Forecast,
    GrowthPolicy,
    Managed,
    Tried,
    describe,
    failed,
    managed,
    missing_device,
    steps_for,
    unbalanced_metadata,
)
from ebs_autoscale.resize.enlarge import (
    after_failed_enlargement,
    decide_on,
    is_part_of_refusal,
)
from ebs_autoscale.resize.ports import World
from ebs_autoscale.resize.replacement import after_failure, delete_leftovers, written_to
from ebs_autoscale.resize.steps import carry_out
from ebs_autoscale.resize.upkeep import (
    adopt_predecessors,
    keep_reserve,
    look_after_volumes,
)
from ebs_autoscale.telemetry import Event, EventKind, Level
from ebs_autoscale.units import counted

# So many new volumes that ended in the same way, growth after growth, are enough.
SPOILED_MAX = 3


class Outcome(Enum):
    """How a growth ended; UNFIT is a failure that an operator has to put right."""

    DONE = "done"
    HELD = "held"
    REFUSED = "refused"
    STOPPED = "stopped"
    FAILED = "failed"
    UNFIT = "unfit"


def observe(world: World) -> Observation:
    """Look at the filesystem and at EC2, and join what both say about each volume.

    Raises Unfit where a device is missing or was not fully added: no growth can help then. Before
    EC2 is asked for more, it is known that this host can use it.
    """
    if lost := missing_device(world.filesystem.read()):
        raise Unfit(lost.sentence, hint=lost.hint, cause=lost.cause)
    usable_bytes = world.filesystem.require_growable()
    inventory = world.cloud.inventory(world.filesystem.uuid)
    # EC2 takes its time, and what was deleted meanwhile makes the growth needless.
    reading = world.filesystem.read()
    # A device of another instance may have the name of one here.
    here = [v for v in inventory.volumes if v.attached_to == inventory.instance_id]
    found = {volume.id: world.block_devices.node_of(volume) for volume in here}
    nodes = {volume_id: node for volume_id, node in found.items() if node}
    world.filesystem.verify_devices({node: volume_id for volume_id, node in nodes.items()})
    newest = Observation(reading=reading, inventory=inventory, nodes=nodes).newest_device
    balanced = newest is None or not world.filesystem.needs_balance(
        world.rebalance, nodes[newest.id]
    )
    seen = Observation(
        reading=reading, inventory=inventory, nodes=nodes, metadata_balanced=balanced
    )
    return (
        seen
        if usable_bytes is None
        else seen.with_volumes(
            *(
                volume.limited(usable_bytes)
                for volume in inventory.volumes
                if seen.is_device(volume)
            )
        )
    )


def grow_once(
    world: World, policy: GrowthPolicy, forecast: Forecast, wanted_bytes: int | None = None
) -> Outcome:
    """Finish an unfinished growth, else grow if that is needed or wanted; tells all by events.

    `wanted_bytes` is a size that an operator wants, 0 for the usual one, None for only if needed.
    A volume that cannot be used is replaced within bounds, see `after_failure`.
    """
    created: dict[str, Volume] = {}
    tried = NOTHING_TRIED
    while True:
        decision: Decision = Hold("nothing looked at yet")
        seen: Observation | None = None
        try:
            seen = observe(world)
            for each in filter(seen.is_device, seen.inventory.volumes):
                world.tell_throughput(each, seen.nodes[each.id])
            seen = adopt_predecessors(seen, world)
            seen, decision = decide_on(
                seen, policy, world, forecast=forecast, wanted_bytes=wanted_bytes, tried=tried
            )
            outcome = _execute(decision, seen, tried, world, created)
            if isinstance(decision, Refuse) and wanted_bytes is None:
                _balance_all_the_same(decision, seen, world)
        except Stopped:
            sentence = "stopped before the growth was complete"
            _tell(world, EventKind.GROWTH_STOPPED, sentence, decision)
            return Outcome.STOPPED
        except EbsAutoscaleError as error:
            tried = replace(tried, created=frozenset(created))
            volume = _failed_volume(decision, seen, created)
            then = _after(error, decision, volume, seen, tried, world)
            _tell_failure(error, decision, volume, world, goes_on=then is not None)
            if then is None:
                delete_leftovers(created, tried, world)
                return Outcome.UNFIT if isinstance(error, Unfit) else Outcome.FAILED
            tried = then
        else:
            delete_leftovers(created, tried, world)
            if outcome is not Outcome.REFUSED:
                keep_reserve(world, policy, forecast)
            return outcome


def _after(
    error: EbsAutoscaleError,
    decision: Decision,
    volume: Volume | None,
    seen: Observation | None,
    tried: Tried,
    world: World,
) -> Tried | None:
    """What was tried in vain, if the growth goes on after this failure; None where it ends."""
    if seen is None or volume is None:
        return None
    if isinstance(decision, Enlarge | Finish) and isinstance(decision.growth, Enlargement):
        return after_failed_enlargement(error, decision, volume, seen, tried)
    return after_failure(error, volume, seen, tried, world)


def _failed_volume(
    decision: Decision, seen: Observation | None, created: Mapping[str, Volume]
) -> Volume | None:
    """The volume of the growth that failed, found or created; None where there was none yet."""
    if isinstance(decision, Enlarge | Finish) and seen:
        return _volume_of(decision, seen)
    if isinstance(decision, Grow):
        return next((v for v in created.values() if v.growth == decision.growth), None)
    return None


def _execute(
    decision: Decision,
    seen: Observation,
    tried: Tried,
    world: World,
    created: dict[str, Volume],
) -> Outcome:
    """Space first: volumes are looked after once the steps are done, before the end is told."""
    _tell_inventory(managed(seen, tried), world)
    match decision:
        case Hold():
            look_after_volumes(seen, tried, world)
            _tell(world, EventKind.DECIDED, describe(decision), decision)
            return Outcome.HELD
        case Refuse():
            look_after_volumes(seen, tried, world)
            _tell_refusal(decision, world)
            return Outcome.REFUSED
    _tell(world, EventKind.DECIDED, describe(decision), decision)
    began = world.clock.now_seconds()
    try:
        if isinstance(decision, Grow):
            _require_few_spoiled(seen, world)
        steps = steps_for(decision, seen.reading.kind)
        at = carry_out(steps, _volume_of(decision, seen), seen, world, created)
    except EbsAutoscaleError:
        look_after_volumes(seen, tried, world)
        raise
    seconds = round(world.clock.now_seconds() - began, 3)
    look_after_volumes(seen, tried, world)
    now = managed(seen.with_volumes(at.volume), tried, created)
    _tell_inventory(now, world)
    sentence = f"growth {decision.growth} is complete after {seconds:.1f} s"
    added_bytes, usd = _added(decision, at.volume, seen)
    fields = {
        "seconds": seconds,
        "volume": at.volume.id,
        "size_bytes": added_bytes,
        "added_usd_per_month": usd,
        **_cost_fields(now),
    }
    _tell(world, EventKind.GROWTH_DONE, sentence, decision, **fields)
    return Outcome.DONE


def _added(
    decision: Grow | Enlarge | Finish, volume: Volume, seen: Observation
) -> tuple[int, float | None]:
    """The capacity that a growth has added, and what it costs a month, as far as it is known."""
    device = seen.device_of(volume)
    if device is None or not isinstance(decision.growth, Enlargement):
        return volume.size_bytes, volume.usd_per_month
    added_bytes = decision.growth.target_bytes - device.size_bytes
    usd = volume.usd_per_gib
    return added_bytes, None if usd is None else added_bytes / GIB * usd


def _require_few_spoiled(seen: Observation, world: World) -> None:
    """Raise Unfit when volume after volume was created and could not be used, nor deleted.

    A growth begins with the volume that waits, so that other failures show again before another
    volume is created. These two kinds leave no volume that waits.
    """
    errors = [volume.id for volume in failed(seen)]
    if len(errors) >= SPOILED_MAX:
        raise Unfit(
            f"no more volumes are created: {', '.join(errors)} ended in state error",
            hint="delete them, and check the role's permissions on the KMS key and to delete "
            "volumes",
            cause=Cause.VOLUME_LOST,
        )
    written = written_to(seen, world)
    if len(written) >= SPOILED_MAX:
        raise Unfit(
            f"no more volumes are created: something on this host wrote to {', '.join(written)} "
            "before they could be added",
            hint="stop what formats new disks, such as a udev rule or a boot script, then detach "
            "and delete these volumes",
            cause=Cause.NOT_BLANK,
        )


def _balance_all_the_same(refusal: Refuse, seen: Observation, world: World) -> None:
    """Do for metadata what can be done without a volume; the refusal stays the last word."""
    if left := unbalanced_metadata(seen):
        carry_out(steps_for(left), _volume_of(left, seen), seen, world)
        _tell_refusal(refusal, world)


def _volume_of(decision: Grow | Enlarge | Finish, seen: Observation) -> Volume | None:
    if isinstance(decision, Grow):
        return None
    if isinstance(decision, Enlarge):
        return decision.volume
    volume = next(v for v in seen.inventory.volumes if v.id == decision.volume_id)
    if isinstance(decision.growth, Enlargement) and decision.stage is Stage.ENLARGED:
        # EC2 may not list the new size yet.
        return volume.enlarged(decision.growth.target_bytes)
    return volume


def _tell_inventory(now: Managed, world: World) -> None:
    """Tell what EC2 lists, for the daemon, which does not ask EC2 itself."""
    world.emit(
        Event(
            kind=EventKind.INVENTORY,
            sentence=f"EC2 lists {counted(now.volumes, 'managed volume')}",
            level=Level.DEBUG,
            volumes=now.volumes,
            size_bytes=now.size_bytes,
            orphans=now.orphans,
            slots_free=now.slots_free,
            **_cost_fields(now),
        )
    )


def _cost_fields(now: Managed) -> dict[str, Any]:
    return {"usd_per_month": round(now.cost.usd_per_month, 2), "cost": now.cost.words}


def _tell_refusal(refusal: Refuse, world: World) -> None:
    _tell(
        world,
        EventKind.GROWTH_REFUSED,
        describe(refusal),
        refusal,
        hint=refusal.hint,
        cause=refusal.limit,
        level=Level.WARNING,
    )


def _tell_failure(
    error: EbsAutoscaleError,
    decision: Decision,
    volume: Volume | None,
    world: World,
    *,
    goes_on: bool,
) -> None:
    """Tell why a growth failed, or goes on without this volume, which it may leave to a human."""
    if goes_on and is_part_of_refusal(error, decision):
        return
    is_made_good = goes_on and error.cause.reaction in {Reaction.REPEAT, Reaction.REPLACE}
    kind = EventKind.WARNING if goes_on else EventKind.GROWTH_FAILED
    _tell(
        world,
        EventKind.TENDED if is_made_good else kind,
        error.what,
        decision,
        hint=error.hint,
        cause=error.cause,
        level=Level.WARNING if is_made_good else Level.ERROR,
        **({"volume": volume.id} if volume else {}),
    )


def _tell(world: World, kind: EventKind, sentence: str, decision: Decision, **fields: Any) -> None:
    if isinstance(decision, Grow | Enlarge | Finish):
        fields["growth"] = str(decision.growth)
    if isinstance(decision, Finish):
        fields["stage"] = decision.stage
    world.emit(Event(kind=kind, sentence=sentence, decision=decision.kind, **fields))
