"""One growth from look to result: observe, decide, carry out; the same after a crash."""

from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

from ebs_autoscale.errors import EbsAutoscaleError, Reaction, Stopped, Unfit
from ebs_autoscale.model import (
    Decision,
    Finish,
    Grow,
    Hold,
    Observation,
    Refuse,
    Volume,
)
from ebs_autoscale.policy import (
    Forecast,
    GrowthPolicy,
    decide,
    describe,
    missing_device,
    steps_for,
    unbalanced_metadata,
)
from ebs_autoscale.resize.ports import World
from ebs_autoscale.resize.steps import carry_out
from ebs_autoscale.resize.upkeep import (
    adopt_predecessors,
    keep_reserve,
    look_after_volumes,
    warn_of_copies,
)
from ebs_autoscale.telemetry import Event, EventKind, Level

# How many volumes a growth leaves to the operator before it gives up: when volume after volume
# turns out so, creating more is no answer.
SET_ASIDE_MAX = 2


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

    Raises Unfit where a device is missing or was not fully added: no growth can help then.
    """
    if lost := missing_device(world.filesystem.read()):
        raise Unfit(lost.sentence, hint=lost.hint, cause=lost.cause)
    warn_of_copies(world)
    inventory = world.cloud.inventory(world.filesystem.uuid)
    # EC2 takes its time, and what was deleted meanwhile makes the growth needless.
    reading = world.filesystem.read()
    found = {v.id: world.block_devices.node_of(v) for v in inventory.volumes if v.attached_to}
    nodes = {volume_id: node for volume_id, node in found.items() if node}
    world.filesystem.verify_devices({node: volume_id for volume_id, node in nodes.items()})
    newest = Observation(reading=reading, inventory=inventory, nodes=nodes).newest_device
    balanced = newest is None or not world.filesystem.needs_balance(
        world.rebalance, nodes[newest.id]
    )
    return Observation(
        reading=reading, inventory=inventory, nodes=nodes, metadata_balanced=balanced
    )


def grow_once(
    world: World, policy: GrowthPolicy, forecast: Forecast, wanted_bytes: int | None = None
) -> Outcome:
    """Finish an unfinished growth, else grow if that is needed or wanted; tells all by events.

    `wanted_bytes` is a size that an operator wants, 0 for the usual one, None for only if needed.
    A volume that only an operator can judge is set aside and not in the way again.
    """
    set_aside: set[str] = set()
    while True:
        decision: Decision = Hold("nothing looked at yet")
        try:
            seen = observe(world)
            if world.adopt:
                seen = adopt_predecessors(seen, world)
            decision = decide(
                seen, policy, forecast=forecast, wanted_bytes=wanted_bytes, set_aside=set_aside
            )
            outcome = _execute(decision, seen, world)
            if isinstance(decision, Refuse) and wanted_bytes is None:
                _balance_all_the_same(decision, seen, world)
        except Stopped:
            sentence = "stopped before the growth was complete"
            _tell(world, EventKind.GROWTH_STOPPED, sentence, decision)
            return Outcome.STOPPED
        except EbsAutoscaleError as error:
            _tell_failure(error, decision, world)
            if not isinstance(decision, Finish) or not _can_go_on(error, set_aside):
                return Outcome.UNFIT if isinstance(error, Unfit) else Outcome.FAILED
            set_aside.add(decision.volume_id)
        else:
            if outcome is not Outcome.REFUSED:
                keep_reserve(world, policy, forecast)
            return outcome


def _can_go_on(error: EbsAutoscaleError, set_aside: AbstractSet[str]) -> bool:
    """Whether a growth that cannot be finished may be left for now, and another volume created.

    A stuck attachment may be left so only once: when EC2 attaches nothing at all, creating
    volume after volume would not help.
    """
    match error.cause.reaction:
        case Reaction.SET_ASIDE_ONCE:
            return not set_aside
        case Reaction.SET_ASIDE:
            return len(set_aside) < SET_ASIDE_MAX
    return False


def _execute(decision: Decision, seen: Observation, world: World) -> Outcome:
    """Space first: volumes are looked after once the steps are done, before the end is told."""
    match decision:
        case Hold():
            look_after_volumes(seen, world)
            _tell(world, EventKind.DECIDED, describe(decision), decision)
            return Outcome.HELD
        case Refuse():
            look_after_volumes(seen, world)
            _tell_refusal(decision, world)
            return Outcome.REFUSED
    _tell(world, EventKind.DECIDED, describe(decision), decision)
    began = world.clock.now_seconds()
    try:
        carry_out(steps_for(decision), _volume_of(decision, seen), seen, world)
    except EbsAutoscaleError:
        look_after_volumes(seen, world)
        raise
    seconds = round(world.clock.now_seconds() - began, 3)
    look_after_volumes(seen, world)
    sentence = f"growth {decision.growth} is complete after {seconds:.1f} s"
    _tell(world, EventKind.GROWTH_DONE, sentence, decision, seconds=seconds)
    return Outcome.DONE


def _balance_all_the_same(refusal: Refuse, seen: Observation, world: World) -> None:
    """Do for metadata what can be done without a volume; the refusal stays the last word."""
    if left := unbalanced_metadata(seen):
        carry_out(steps_for(left), _volume_of(left, seen), seen, world)
        _tell_refusal(refusal, world)


def _volume_of(decision: Grow | Finish, seen: Observation) -> Volume | None:
    if isinstance(decision, Grow):
        return None
    return next(v for v in seen.inventory.volumes if v.id == decision.volume_id)


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


def _tell_failure(error: EbsAutoscaleError, decision: Decision, world: World) -> None:
    _tell(
        world,
        EventKind.GROWTH_FAILED,
        error.what,
        decision,
        hint=error.hint,
        cause=error.cause,
        level=Level.ERROR,
    )


def _tell(world: World, kind: EventKind, sentence: str, decision: Decision, **fields: Any) -> None:
    if isinstance(decision, Grow | Finish):
        fields["growth"] = str(decision.growth)
    if isinstance(decision, Finish):
        fields["stage"] = decision.stage
    world.emit(Event(kind=kind, sentence=sentence, decision=decision.kind, **fields))
