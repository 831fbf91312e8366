"""Which volume to enlarge and to what size, and what an enlargement still lacks. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.model import (
    GIB,
    SLACK_BYTES,
    Enlarge,
    Enlargement,
    FilesystemKind,
    Finish,
    Observation,
    Price,
    Reading,
    Refuse,
    Stage,
    Volume,
)
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.limits import Full, granted, room_in
from ebs_autoscale.policy.ownership import NOTHING_TRIED, Tried, expected, limited, may_be_device
from ebs_autoscale.policy.settings import GrowthMethod, GrowthPolicy
from ebs_autoscale.policy.sizing import Size, lasting_size, next_size
from ebs_autoscale.units import format_duration, format_size

# EC2 API reference, ModifyVolume, since January 2026.
MODIFICATIONS_PER_DAY = 4
DAY_SECONDS = 24 * 3600.0

# Before it is completed there is no other modification. "Minutes to hours" (EBS User Guide); full
# volumes of 125 GiB were seen to take 6 to 24 hours.
COMPLETION_SECONDS = 600.0

# Passes by itself: another try is worth it without anybody's doing.
_PASSING = frozenset({Cause.MODIFICATIONS, Cause.SLOW_MODIFICATION, Cause.MODIFICATION_FAILED})

_DETACH_HINT = "detach volumes that are not needed, to have room for another one"
_MOVE_HINT = "move the data to a larger volume, or to a filesystem of several volumes (BTRFS)"


def own_devices(seen: Observation) -> list[Volume]:
    """The volumes that are ours and devices now: no others are enlarged.

    A filesystem of one device may be on any volume that has our tags: `init` sets them, and a root
    volume always comes from a snapshot.
    """
    is_sole = not seen.reading.kind.takes_devices
    ours = (v for v in seen.inventory.volumes if seen.is_device(v) and (is_sole or not v.foreign))
    return sorted(ours, key=lambda volume: volume.growth)


def misfit_of(method: GrowthMethod, kind: FilesystemKind) -> Problem | None:
    """Why a filesystem of this kind never grows with this `growth.method`; None if it does."""
    if kind.takes_devices or method is not GrowthMethod.ADD:
        return None
    what = f"growth.method is {method}, and {kind} cannot have more than one device"
    return Problem(Cause.METHOD, what, "set growth.method to auto")


def sole_volume_problem(seen: Observation, policy: GrowthPolicy) -> Problem | None:
    """What keeps a filesystem that has one device for good from growing; None where nothing does.

    Limits of all volumes and EC2's own are left to the growth.
    """
    if seen.reading.kind.takes_devices:
        return None
    if not own_devices(seen):
        return _unknown_volume(seen)
    return next(_obstacles(seen, policy, NOTHING_TRIED), None)


def _unknown_volume(seen: Observation) -> Problem:
    """What is not ours is never modified, nor what is ours and seems to be elsewhere."""
    names = ", ".join(device.label for device in seen.reading.devices)
    if volume := next((v for v in seen.inventory.volumes if may_be_device(v, seen)), None):
        what = f"{volume.id} is {volume.attachment_state}, and EC2 does not say that it is {names}"
        hint = "where it is being detached, attach it again"
        return Problem(Cause.STATE, what, hint, volume.id)
    return Problem(
        Cause.METHOD,
        f"{names} is not a volume with the tags of ebs-autoscale",
        f"run `ebs-autoscale init {seen.reading.mountpoint}`, which tags the volume or says why it "
        "must not",
    )


def unused_devices(reading: Reading) -> Mapping[str, int]:
    """The block devices that have become larger than what the filesystem uses, and their sizes."""
    return {each.name: each.capacity_bytes for each in reading.devices if each.unused_bytes}


def unfinished_enlargement(seen: Observation, tried: Tried) -> Finish | None:
    """What is left to do where a volume is larger than its device, or about to be.

    By whom it was enlarged makes no difference: the space is there, and paid for.
    """
    for volume in own_devices(seen):
        device = seen.device_of(volume)
        if device is None or volume.id in tried.not_enlarged:
            continue
        # EC2 may list a new size before it can be used, or long after.
        for stage, size_bytes in (
            (Stage.ENLARGED, device.capacity_bytes),
            (Stage.MODIFYING, expected(volume).size_bytes),
        ):
            if size_bytes - device.size_bytes >= SLACK_BYTES:
                used, size = format_size(device.size_bytes), format_size(size_bytes)
                return Finish(
                    growth=Enlargement(volume.growth, size_bytes),
                    volume_id=volume.id,
                    stage=stage,
                    reason=f"{volume.id} is {stage}: the filesystem has {used} of {size}",
                )
    return None


def enlarge(
    seen: Observation,
    policy: GrowthPolicy,
    tried: Tried,
    size: Size,
    *,
    no_other: Full | None,
    reason: str,
) -> Enlarge | Refuse:
    """The enlargement of the volume best suited, or why there is none.

    The smallest one: so volumes stay alike, which data on several of them needs, they take turns,
    so that the few modifications of a day last, and EC2 is done soonest. `no_other` is why there
    can be no new volume, None where there is to be none.
    """
    volumes, problems = own_devices(seen), list(_obstacles(seen, policy, tried))
    in_the_way = {problem.volume for problem in problems}
    able = [volume for volume in volumes if volume.id not in in_the_way]
    if not able:
        if seen.reading.kind.takes_devices:
            return _refusal(problems, no_other, reason)
        return _refusal_of_sole(next(iter(problems), _unknown_volume(seen)), reason)
    because = f"{reason}, and {no_other.why}" if no_other else reason
    room = {volume.id: room_in(volume, policy.sizing) for volume in able}
    roomy = [volume for volume in able if room[volume.id] >= size.size_bytes]
    volume = min(roomy or able, key=lambda v: v.size_bytes if roomy else -room[v.id])
    allowed = granted(
        size,
        limited(seen, tried),
        policy,
        price=_price_of_more(volume, seen.inventory.price),
        reason=because,
        enlarged=volume,
    )
    if isinstance(allowed, Refuse):
        return allowed
    target_bytes = -(-volume.size_bytes // GIB) * GIB + allowed.size_bytes
    best = "the smallest" if roomy else "the one with most room"
    chosen = f"{volume.id}, {best} of {len(able)}," if len(able) > 1 else volume.id
    return Enlarge(
        volume=volume,
        target_bytes=target_bytes,
        reason=f"{allowed.reason}; {chosen} is enlarged from "
        f"{format_size(volume.size_bytes)} to {format_size(target_bytes)}",
        instead_of_new=no_other is not None,
        usd_per_month=allowed.usd_per_month,
    )


def without(volumes: Sequence[Volume], problem: Problem, tried: Tried) -> Tried:
    """What was tried, when none of these can be enlarged because of this problem."""
    more = {volume.id: replace(problem, volume=volume.id) for volume in volumes}
    return replace(tried, not_enlarged={**tried.not_enlarged, **more})


def enlarging_size(seen: Observation, policy: GrowthPolicy, forecast: Forecast) -> Size:
    """The usual size, and more if the trend would use up all modifications before the day is over.

    A trend of some seconds is worth what it writes until EC2 can have completed the modification,
    or as much as there is already. Where a modification was needed within the day, it is worth
    more, for the rest of the day: how many were used up EC2 does not say.
    """
    volumes = own_devices(seen)
    count, size_bytes = max(1, len(volumes)), seen.reading.size_bytes
    changes = (volume.modification for volume in volumes if volume.modification)
    ages = (each.age_seconds for each in changes if each.age_seconds is not None)
    age = min(ages, default=inf)
    seconds, most_bytes = DAY_SECONDS / MODIFICATIONS_PER_DAY, size_bytes
    if age < DAY_SECONDS:
        seconds = max(seconds, DAY_SECONDS - age)
        most_bytes *= MODIFICATIONS_PER_DAY
    room_bytes = max((room_in(volume, policy.sizing) for volume in volumes), default=0)
    if room_bytes >= GIB:
        policy = replace(policy, sizing=replace(policy.sizing, max_bytes=room_bytes))
    lasting = partial(lasting_size, seen.reading, forecast)
    scarce = "since a volume can be modified four times a day"
    slow = "since a modification takes that long to be completed"
    return next_size(
        seen.reading,
        policy,
        forecast,
        lasting(seconds=seconds / count, max_bytes=most_bytes, why=scarce),
        lasting(seconds=COMPLETION_SECONDS / count, max_bytes=policy.sizing.max_bytes, why=slow),
    )


def _obstacles(seen: Observation, policy: GrowthPolicy, tried: Tried) -> Iterator[Problem]:
    """Why each volume that cannot be enlarged now cannot."""
    for volume in own_devices(seen):
        change = volume.modification
        if problem := tried.not_enlarged.get(volume.id):
            yield problem
        elif not volume.largest_bytes:
            what = f"EC2 cannot enlarge the type of {volume.id}"
            hint = "" if seen.reading.kind.takes_devices else _MOVE_HINT
            yield Problem(Cause.METHOD, what, hint, volume.id)
        elif room_in(volume, policy.sizing) < GIB:
            what = f"{volume.id} cannot have more than {format_size(volume.size_bytes)}"
            hint = "raise growth.max"
            if volume.size_bytes >= volume.largest_bytes:
                hint = _DETACH_HINT if seen.reading.kind.takes_devices else _MOVE_HINT
            yield Problem(Cause.LIMIT_SIZE, what, hint, volume.id)
        elif change and change.is_running:
            what = f"the modification of {volume.id} is not completed ({change.state})"
            yield Problem(Cause.MODIFICATIONS, what, volume=volume.id)


def _refusal(problems: Sequence[Problem], no_other: Full | None, reason: str) -> Refuse:
    """Under the limit that keeps new volumes away, unless the obstacle passes by itself."""
    why = "; ".join(dict.fromkeys(problem.sentence for problem in problems))
    hints = list(dict.fromkeys(problem.hint for problem in problems if problem.hint))
    if no_other is None:
        why = why or "none of its devices is a volume that ebs-autoscale has created"
        what = f"{reason}, but growth.method is {GrowthMethod.ENLARGE}, and {why}"
        hints = hints or ["set growth.method to auto"]
    else:
        what = no_other.refusal(reason).reason + (f", and {why}" if why else "")
        hints = [no_other.hint, *hints]
    limit = Cause.LIMIT_VOLUMES if no_other else Cause.METHOD
    if any(problem.cause in _PASSING for problem in problems):
        limit = Cause.MODIFICATIONS
        hints = [_retried(), *hints]
    return Refuse(limit=limit, reason=what, hint="; or ".join(hints))


def _retried() -> str:
    """When a refusal by EC2 that passes is retried."""
    wait = Cause.MODIFICATIONS.backoff
    first, last, urgent = map(
        format_duration, (wait.first_seconds, wait.max_seconds, wait.urgent_seconds)
    )
    return f"the daemon tries again after {first} to {last}, or {urgent} while space runs out"


def _refusal_of_sole(problem: Problem, reason: str) -> Refuse:
    """Under the limit that keeps the only volume of the filesystem from being enlarged."""
    hints = [_retried()] if problem.cause in _PASSING else []
    return Refuse(
        limit=problem.cause,
        reason=f"{reason}, but {problem.sentence}",
        hint="; or ".join(filter(None, (*hints, problem.hint))),
    )


def _price_of_more(volume: Volume, price: Price | None) -> Price | None:
    """What a GiB more of this volume costs; its performance is paid for already."""
    if price is None or volume.usd_per_gib is None:
        return None
    return Price(usd_per_gib=volume.usd_per_gib, basis=price.basis)
