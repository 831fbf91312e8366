"""What a growth does about a volume that it cannot use: begin again, replace it, or give up."""

from collections.abc import Mapping
from dataclasses import replace

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Reaction
from ebs_autoscale.model import Observation, Volume
from ebs_autoscale.policy import Tried, unfinished
from ebs_autoscale.resize.ports import World

# How many volumes a growth leaves to the operator before it gives up: when volume after volume
# turns out so, creating more is no answer.
SET_ASIDE_MAX = 2

# How often a growth attaches a volume again that somebody detaches.
REPEATS_MAX = 2

_REPLACED_MAX = {
    Reaction.SET_ASIDE: SET_ASIDE_MAX,
    Reaction.SET_ASIDE_ONCE: 1,
    Reaction.REPLACE: 1,
}

# What is on a volume that this run did not create shows that it is nobody's unfinished growth.
_IS_FOREIGN = frozenset({Cause.NOT_BLANK, Cause.IN_USE, Cause.ATTACHED_ELSEWHERE})


def after_failure(
    error: EbsAutoscaleError,
    volume: Volume,
    seen: Observation,
    tried: Tried,
    world: World,
) -> Tried | None:
    """What was tried in vain, if the growth goes on after this failure; None where it ends.

    `volume` is that of the failed step. A volume that this run created and that never was of any
    use is deleted, also where the growth ends.
    """
    reaction, is_new = error.cause.reaction, volume.id in tried.created
    if reaction is Reaction.REPEAT:
        again = replace(tried, repeats=tried.repeats + 1)
        return again if again.repeats <= REPEATS_MAX else None
    is_deleted = False
    if is_new and _is_useless(reaction):
        is_deleted = delete_new(volume, error, world)
    if reaction not in _REPLACED_MAX:
        return None
    tried = replace(
        tried,
        undeleted=tried.undeleted | ({volume.id} if _is_useless(reaction) else set()),
        set_aside=tried.set_aside | {volume.id},
        ordinal=max(tried.ordinal, volume.growth.ordinal),
    )
    if error.cause in _IS_FOREIGN and not is_new:
        return tried
    others = set() if is_deleted else _alike(error.cause, volume, seen, tried, world)
    if len(tried.in_vain | others) >= _REPLACED_MAX[reaction]:
        return None
    return replace(tried, in_vain=tried.in_vain | {volume.id})


def _is_useless(reaction: Reaction) -> bool:
    """Whether the failed volume was never usable here, so that nothing can be on it."""
    return reaction in {Reaction.REPLACE, Reaction.DELETE_NEW_VOLUME}


def delete_new(volume: Volume, failure: EbsAutoscaleError, world: World) -> bool:
    """Delete a volume that this run created and that was never of use; whether EC2 accepted it.

    That it cannot be deleted is told beside the failure, never instead of it. EC2 deletes no
    volume that is attached.
    """
    try:
        world.cloud.delete(volume)
    except EbsAutoscaleError as error:
        sentence = f"{volume.id} could not be deleted: {error.what}"
        world.tell(volume, sentence, cause=failure.cause, hint=error.hint or failure.hint)
        return False
    sentence = f"deleted {volume.id}, which was of no use: {failure.what}"
    world.tell(volume, sentence, cause=failure.cause, hint=failure.hint)
    return True


def delete_leftovers(created: Mapping[str, Volume], tried: Tried, world: World) -> None:
    """Delete at the end of a run what it created in vain and could not delete at once.

    EC2 refuses that while a volume is still being created.
    """
    for volume_id in tried.undeleted & created.keys():
        try:
            seen = world.cloud.refresh(created[volume_id])
            if seen and seen.state in {"available", "error"}:
                world.cloud.delete(seen)
        except EbsAutoscaleError:
            # The next look reports what is left.
            continue


def _alike(cause: Cause, volume: Volume, seen: Observation, tried: Tried, world: World) -> set[str]:
    """Volumes of earlier growths that are stuck in the same way, so that replacing has not helped.

    Without them each run would create another volume. What is not blank was never stuck.
    """
    stuck = _now(volume, world)
    return {
        other.id
        for other in unfinished(seen)
        if other.id not in tried.set_aside
        and (other.state, other.attachment_state) == (stuck.state, stuck.attachment_state)
        and (cause in _IS_FOREIGN or not _is_foreign(other, seen, world))
    }


def written_to(seen: Observation, world: World) -> list[str]:
    """Volumes of growths, attached here, that something wrote to before they were added.

    Copies and adopted volumes are not set to be deleted with the instance, and on those that were
    removed from the filesystem its UUID is left.
    """
    was_device_of = world.block_devices.was_device_of
    return [
        volume.id
        for volume in unfinished(seen)
        if (node := seen.nodes.get(volume.id))
        and volume.delete_on_termination
        # First: only what responds can be read here.
        and _is_foreign(volume, seen, world)
        and not was_device_of(node, seen.reading.filesystem)
    ]


def _now(volume: Volume, world: World) -> Volume:
    try:
        return world.cloud.refresh(volume) or volume
    except EbsAutoscaleError:
        return volume


def _is_foreign(volume: Volume, seen: Observation, world: World) -> bool:
    """Whether something is on this attached volume, or uses it."""
    node = seen.nodes.get(volume.id)
    if node is None:
        return False
    verified = world.block_devices.verified_blank
    try:
        with verified(node, size_bytes=volume.size_bytes, volume_id=volume.id):
            return False
    except EbsAutoscaleError as error:
        return error.cause in _IS_FOREIGN
