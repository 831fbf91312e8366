"""What a growth does besides growing: adopt, repair DeleteOnTermination, hold the reserve."""

from dataclasses import replace

from ebs_autoscale.errors import EbsAutoscaleError, Problem
from ebs_autoscale.model import Observation, Volume
from ebs_autoscale.policy import (
    Forecast,
    GrowthPolicy,
    Tried,
    is_reserve_affordable,
    next_growth,
    unused_volumes,
    waiting,
    wanted_reserve_bytes,
)
from ebs_autoscale.resize.attach import protect
from ebs_autoscale.resize.ports import World
from ebs_autoscale.telemetry import Event, EventKind, Level


def adopt_predecessors(seen: Observation, world: World) -> Observation:
    """Tag as ours the volumes of the older script: devices of this filesystem, and loose ones.

    From then on they are volumes like any other: counted by the limits and deleted with the
    instance. Of the loose ones one at a time is adopted, attached, and added if it is verified
    blank; until then nothing shows that it is not needed elsewhere. Those restored or copied,
    attached elsewhere, or used by something else here are left alone; once EC2 refuses to tag one,
    the rest waits for the next look. Returns the observation with those adopted, if that is wanted.
    """
    if not world.adopt:
        return seen
    found = {
        volume: world.block_devices.node_of(volume) if volume.attached_to else ""
        for volume in world.cloud.predecessors()
    }
    # Devices first: the ordinal of a volume that waits is above theirs.
    for volume, node in sorted(found.items(), key=lambda item: not item[1]):
        is_loose = volume.state == "available" and not volume.attached_to and not volume.foreign
        is_next = is_loose and seen.reading.kind.takes_devices and waiting(seen) is None
        if not is_next and not seen.reading.has_device(node):
            continue
        claimed = replace(volume, growth=next_growth(seen))
        try:
            world.cloud.claim(claimed)
        except EbsAutoscaleError as error:
            # The growth matters more than adoption, and EC2 would refuse the others as well.
            world.warn(volume, f"{volume.id} could not be adopted: {error.what}", error)
            break
        world.tell(claimed, f"adopted {volume.id} of the older script")
        seen = _with(seen, claimed, node)
    return seen


def _with(seen: Observation, volume: Volume, node: str) -> Observation:
    inventory = replace(seen.inventory, volumes=(*seen.inventory.volumes, volume))
    nodes = {**seen.nodes, volume.id: node} if node else seen.nodes
    return replace(seen, inventory=inventory, nodes=nodes)


def look_after_volumes(seen: Observation, tried: Tried, world: World) -> None:
    """Repair DeleteOnTermination of devices; report volumes that are not used, and copies.

    Whether the one volume of XFS or ext4 outlives the instance is up to whoever created it: `init`,
    which sets it, or an operator, whose data it has had before.
    """
    for volume in seen.inventory.volumes if seen.reading.kind.takes_devices else ():
        if volume.attached_to == seen.inventory.instance_id and seen.is_device(volume):
            protect(volume, world)
    if problem := unused_volumes(seen, tried):
        _warn(problem, world)
    if problem := _copies(world):
        _warn(problem, world)


def _copies(world: World) -> Problem | None:
    """The block devices that the next mount might take instead of the filesystem's own."""
    problems = world.find_copies(world.filesystem.uuid)
    if not problems:
        return None
    sentence = "; ".join(problem.sentence for problem in problems)
    return replace(problems[0], sentence=sentence)


def _warn(problem: Problem, world: World) -> None:
    world.emit(
        Event(
            kind=EventKind.WARNING,
            sentence=problem.sentence,
            hint=problem.hint,
            level=Level.WARNING,
            cause=problem.cause,
        )
    )


def keep_reserve(world: World, policy: GrowthPolicy, forecast: Forecast) -> None:
    """Hold the emergency reserve while there is plenty of space.

    Growths do without it: one that cannot be held is told, and told again with the next look.
    """
    try:
        reading = world.filesystem.read()
        wanted = wanted_reserve_bytes(world.reserve_bytes, reading)
        if wanted == reading.reserve_bytes:
            return
        if not is_reserve_affordable(wanted, reading, policy, forecast):
            return
        if done := world.filesystem.keep_reserve(wanted):
            world.emit(Event(kind=EventKind.TENDED, sentence=done))
    except EbsAutoscaleError as error:
        sentence = f"cannot keep the emergency reserve: {error.what}"
        world.emit(
            Event(
                kind=EventKind.TENDED,
                sentence=sentence,
                hint=error.hint,
                level=Level.WARNING,
                cause=error.cause,
            )
        )
