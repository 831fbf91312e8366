"""One growth from look to result: observe, decide, carry out; the same after a crash."""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from enum import StrEnum

from ebs_autoscale.errors import EbsAutoscaleError, Stopped, Unfit
from ebs_autoscale.model import Decision, Finish, Grow, Hold, Inventory, Reading, Refuse, Volume
from ebs_autoscale.policy.decision import LOST_HINT, decide, lost_members, settling, steps_for
from ebs_autoscale.policy.reserve import is_affordable, wanted_bytes
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import Forecast
from ebs_autoscale.resize.attach import protect, warn_if_unprotected
from ebs_autoscale.resize.ports import World
from ebs_autoscale.resize.steps import carry_out
from ebs_autoscale.resize.upkeep import adopt_predecessors
from ebs_autoscale.telemetry.events import Event, EventKind, Level


class Outcome(StrEnum):
    """How a growth ended; UNFIT is a failure that a human has to put right."""

    DONE = "done"
    HELD = "held"
    REFUSED = "refused"
    STOPPED = "stopped"
    FAILED = "failed"
    UNFIT = "unfit"


def observe(world: World) -> tuple[Reading, Inventory]:
    """Look at the filesystem and at EC2, and join what both say about each volume."""
    if lost := lost_members(world.filesystem.read()):
        raise Unfit(lost, hint=LOST_HINT, cause="missing member")
    inventory = world.cloud.inventory(world.filesystem.uuid)
    # EC2 takes its time, and what was deleted meanwhile makes the growth needless.
    reading = world.filesystem.read()
    volumes = tuple(_with_node(volume, world) for volume in inventory.volumes)
    members = [v for v in volumes if v.node and reading.has_member(v.node)]
    settled = True
    if members:
        newest = max(members, key=lambda volume: volume.growth)
        settled = not world.filesystem.needs_settling(world.rebalance, newest.node)
    return reading, replace(inventory, volumes=volumes, metadata_settled=settled)


def _with_node(volume: Volume, world: World) -> Volume:
    return replace(volume, node=world.nodes.node_of(volume)) if volume.attached_to else volume


def grow_once(
    world: World, policy: GrowthPolicy, forecast: Forecast, wanted_bytes: int | None = None
) -> Outcome:
    """Finish what was begun, else grow if that is needed or wanted; tells all by events.

    A volume that turns out not to be blank is set aside for a human and never in the way again.
    """
    set_aside: set[str] = set()
    while True:
        decision: Decision = Hold("nothing looked at yet")
        try:
            reading, inventory = observe(world)
            if world.adopt:
                inventory = adopt_predecessors(reading, inventory, world)
            decision = decide(
                reading,
                inventory,
                policy,
                forecast=forecast,
                wanted_bytes=wanted_bytes,
                set_aside=set_aside,
            )
            outcome = _execute(decision, reading, inventory, world)
            if isinstance(decision, Refuse) and wanted_bytes is None:
                _settle_all_the_same(decision, reading, inventory, world)
        except Stopped:
            _tell(
                world, EventKind.GROWTH_STOPPED, "stopped before the growth was complete", decision
            )
            return Outcome.STOPPED
        except EbsAutoscaleError as error:
            _tell(world, EventKind.GROWTH_FAILED, str(error), decision, cause=error.cause)
            if not isinstance(decision, Finish) or not _can_go_on(error, set_aside):
                return Outcome.UNFIT if isinstance(error, Unfit) else Outcome.FAILED
            set_aside.add(decision.volume_id)
        else:
            if outcome is not Outcome.REFUSED:
                _keep_reserve(world, policy, forecast)
            return outcome


# A human has to look at these volumes; growing goes on without them, but not for ever:
# when volume after volume turns out so, buying more is no answer.
FOR_A_HUMAN = frozenset({"not blank", "in use", "claimed", "size", "attached elsewhere"})
SET_ASIDE_MAX = 2


def _can_go_on(error: EbsAutoscaleError, set_aside: AbstractSet[str]) -> bool:
    """Whether a growth that cannot be finished may be left for now, and another volume bought.

    One that hangs may be left so only once: when EC2 attaches nothing at all, buying
    volume after volume would not help.
    """
    if error.cause == "stuck attach":
        return not set_aside
    return error.cause in FOR_A_HUMAN and len(set_aside) < SET_ASIDE_MAX


def _tend(reading: Reading, inventory: Inventory, world: World) -> None:
    """Repair DeleteOnTermination of members, and name what only a human can judge."""
    for volume in inventory.volumes:
        if volume.state == "error":
            what = f"{volume.id} of growth {volume.growth} is in state error and still costs money"
            world.warn(volume, f"{what}; look at it in EC2 and delete it", "volume error")
        elif (
            world.delete_on_termination
            and not volume.delete_on_termination
            and volume.attached_to == inventory.instance_id
            and volume.node
            and reading.has_member(volume.node)
        ):
            warn_if_unprotected(volume, protect(volume, world), world)


def _keep_reserve(world: World, policy: GrowthPolicy, forecast: Forecast) -> None:
    """Hold the emergency reserve while space is comfortable.

    One that is missing is told with each look and is no alarm that lasts: growths do without.
    """
    try:
        reading = world.filesystem.read()
        wanted = wanted_bytes(world.reserve_bytes, reading)
        if wanted == reading.reserve_bytes or not is_affordable(wanted, reading, policy, forecast):
            return
        if done := world.filesystem.keep_reserve(wanted):
            world.emit(Event(kind=EventKind.TENDED, sentence=done))
    except EbsAutoscaleError as error:
        sentence = f"no emergency reserve is held: {error}"
        world.emit(Event(kind=EventKind.TENDED, sentence=sentence, level=Level.WARNING))


def _settle_all_the_same(
    refusal: Refuse, reading: Reading, inventory: Inventory, world: World
) -> None:
    """Do for metadata what can be done without a volume; the refusal stays the last word."""
    if left := settling(reading, inventory):
        carry_out(steps_for(left), _volume_of(left, inventory), inventory, world)
        _tell_refusal(refusal, world)


def _execute(decision: Decision, reading: Reading, inventory: Inventory, world: World) -> Outcome:
    """Space first: what else is to be done about volumes waits, but is told before the end is."""
    match decision:
        case Hold(reason):
            _tend(reading, inventory, world)
            _tell(world, EventKind.DECIDED, f"hold: {reason}", decision)
            return Outcome.HELD
        case Refuse():
            _tend(reading, inventory, world)
            _tell_refusal(decision, world)
            return Outcome.REFUSED
    what = "finish" if isinstance(decision, Finish) else "grow"
    _tell(world, EventKind.DECIDED, f"{what}: {decision.reason}", decision)
    began = world.clock.now_seconds()
    try:
        carry_out(steps_for(decision), _volume_of(decision, inventory), inventory, world)
    except EbsAutoscaleError:
        _tend(reading, inventory, world)
        raise
    seconds = round(world.clock.now_seconds() - began, 3)
    _tend(reading, inventory, world)
    sentence = f"growth {decision.growth} is complete after {seconds:.1f} s"
    _tell(world, EventKind.GROWTH_DONE, sentence, decision, seconds=seconds)
    return Outcome.DONE


def _volume_of(decision: Grow | Finish, inventory: Inventory) -> Volume | None:
    if isinstance(decision, Grow):
        return None
    return next(volume for volume in inventory.volumes if volume.id == decision.volume_id)


def _tell_refusal(refusal: Refuse, world: World) -> None:
    sentence = f"refused by {refusal.limit}: {refusal.reason}; {refusal.hint}"
    _tell(world, EventKind.GROWTH_REFUSED, sentence, refusal, cause=refusal.limit)


_LOUD = {EventKind.GROWTH_FAILED: Level.ERROR, EventKind.GROWTH_REFUSED: Level.WARNING}


def _tell(
    world: World, kind: EventKind, sentence: str, decision: Decision, **fields: str | float
) -> None:
    fields["decision"] = type(decision).__name__.lower()
    if isinstance(decision, Grow | Finish):
        fields["growth"] = str(decision.growth)
    if isinstance(decision, Finish):
        fields["stage"] = decision.stage
    level = _LOUD.get(kind, Level.INFO)
    world.emit(Event(kind=kind, sentence=sentence, level=level, fields=fields))
