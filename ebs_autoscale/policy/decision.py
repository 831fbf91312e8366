"""Every judgement, no effect: thresholds, forecast, sizing, limits, stages, poll delay."""

from collections.abc import Set as AbstractSet
from math import inf

from ebs_autoscale.model import (
    GIB,
    AddDevice,
    AttachVolume,
    CreateVolume,
    Decision,
    Finish,
    Grow,
    GrowthId,
    Hold,
    Inventory,
    Reading,
    Refuse,
    Settle,
    Stage,
    Step,
    Volume,
)
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import Forecast, available, gib, shortage
from ebs_autoscale.policy.sizing import Size, next_size

# EC2 volumes in these states are gone or can never be used again.
DEAD_STATES = frozenset({"deleting", "deleted", "error"})

LOST_HINT = "nothing is bought: unmount it and bring the volume back, or restore the data"


def lost_members(reading: Reading) -> str:
    """Which members the kernel has lost, in a sentence; empty while all are there.

    Data with the `single` profile is on them: nothing bought can repair that.
    """
    lost = [str(m.devid) for m in reading.members if m.missing or not m.name]
    if not lost:
        return ""
    return f"{reading.mountpoint} has lost its member with devid {', '.join(lost)}"


def stage_of(volume: Volume, reading: Reading, inventory: Inventory) -> Stage:
    """How far the growth behind this volume has come, from what EC2 and the kernel show."""
    if volume.node and reading.has_member(volume.node):
        newest = max(
            (v.growth for v in inventory.volumes if v.node and reading.has_member(v.node)),
        )
        settled = inventory.metadata_settled or volume.growth != newest
        return Stage.SETTLED if settled else Stage.MEMBER
    attached = volume.attached_to == inventory.instance_id and volume.attachment_state == "attached"
    # Without DeleteOnTermination the attach step is not over; repeating it is harmless.
    protected = volume.delete_on_termination
    return Stage.ATTACHED if attached and protected and volume.node else Stage.CREATED


def unfinished(
    reading: Reading, inventory: Inventory, set_aside: AbstractSet[str] = frozenset()
) -> Volume | None:
    """The oldest volume of ours not yet in the filesystem; `set_aside` waits for a human."""
    candidates = [
        volume
        for volume in inventory.volumes
        if volume.state not in DEAD_STATES
        and volume.id not in set_aside
        and stage_of(volume, reading, inventory) in {Stage.CREATED, Stage.ATTACHED}
    ]
    return min(candidates, key=lambda volume: volume.growth, default=None)


def next_growth(reading: Reading, inventory: Inventory) -> GrowthId:
    """The id of the next growth; never one that was seen before.

    The member count guards against a tag search that does not show the newest volume yet.
    """
    seen = [volume.growth.ordinal for volume in inventory.volumes]
    return GrowthId(reading.filesystem, max([0, len(reading.members) - 1, *seen]) + 1)


def decide(
    reading: Reading,
    inventory: Inventory,
    policy: GrowthPolicy,
    *,
    forecast: Forecast,
    wanted_bytes: int | None = None,
    set_aside: AbstractSet[str] = frozenset(),
) -> Decision:
    """What to do now, and why.

    `wanted_bytes` is an operator's explicit wish for a growth (0: of the usual size);
    it passes the same limits. What was begun is finished before anything is bought.
    """
    if volume := unfinished(reading, inventory, set_aside):
        stage = stage_of(volume, reading, inventory)
        reason = f"growth {volume.growth} stopped at {stage}: {volume.id} is {volume.state}"
        return Finish(growth=volume.growth, volume_id=volume.id, stage=stage, reason=reason)
    forecast = forecast.after(reading)
    reason = shortage(reading, policy, forecast)
    if wanted_bytes is not None:
        reason = "asked for by an operator"
    if reason:
        return _grow_within_limits(
            reading, inventory, policy, forecast, reason=reason, wanted_bytes=wanted_bytes or 0
        )
    return settling(reading, inventory) or Hold(available(reading))


def settling(reading: Reading, inventory: Inventory) -> Finish | None:
    """What is left of the newest growth when its metadata is not settled; None when it is."""
    if inventory.metadata_settled:
        return None
    members = [v for v in inventory.volumes if reading.has_member(v.node)]
    newest = max(members, key=lambda volume: volume.growth)
    return Finish(
        growth=newest.growth,
        volume_id=newest.id,
        stage=Stage.MEMBER,
        reason="metadata is not settled yet",
    )


def _grow_within_limits(
    reading: Reading,
    inventory: Inventory,
    policy: GrowthPolicy,
    forecast: Forecast,
    *,
    reason: str,
    wanted_bytes: int,
) -> Decision:
    limits = policy.limits
    if limits.volumes is not None and len(inventory.volumes) >= limits.volumes:
        count = f"{len(inventory.volumes)} of {limits.volumes} volumes are in use"
        return Refuse(limit="limits.volumes", reason=f"{reason}, but {count}", hint="raise it")
    if inventory.slots_free is not None and inventory.slots_free <= 0:
        return Refuse(
            limit="limits.volumes",
            reason=f"{reason}, but the instance has no attachment slot left",
            hint="use a larger instance type or detach what is not needed",
        )
    created = inventory.seconds_since_last_create
    # EC2's clock can be ahead of ours.
    since = inf if created is None else max(0.0, created)
    if since < limits.cooldown_seconds:
        wait = limits.cooldown_seconds - since
        return Refuse(
            limit="limits.cooldown",
            reason=f"{reason}, but the last volume is only {since:.0f} s old",
            hint=f"growth is allowed again in {wait:.0f} s",
        )
    size = next_size(reading, policy, forecast) if not wanted_bytes else Size(wanted_bytes, "")
    return _sized(reading, inventory, policy, reason=reason, size=size)


def _sized(
    reading: Reading, inventory: Inventory, policy: GrowthPolicy, *, reason: str, size: Size
) -> Decision:
    """The growth of this size, trimmed to what is left, or why EC2 or a limit forbids it."""
    sizing, limits = policy.sizing, policy.limits
    if not sizing.sold_min_bytes <= size.size_bytes <= sizing.sold_max_bytes:
        sold = f"{gib(sizing.sold_min_bytes)} to {gib(sizing.sold_max_bytes)} GiB"
        return Refuse(
            limit="volume.type",
            reason=f"{reason}, but volumes of this type have {sold}, not {gib(size.size_bytes)}",
            hint="ask for another size",
        )
    room = (limits.total_bytes - inventory.managed_bytes) // GIB * GIB
    if room < sizing.sold_min_bytes:
        return Refuse(
            limit="limits.total",
            reason=f"{reason}, but managed volumes already have {gib(inventory.managed_bytes)} "
            f"of {gib(limits.total_bytes)} GiB, and the smallest volume of the configured kind "
            f"has {gib(sizing.sold_min_bytes)} GiB",
            hint="raise it",
        )
    trimmed = min(size.size_bytes, room)
    if size.why:
        reason += f"; {gib(size.size_bytes)} GiB: {size.why}"
    if trimmed < size.size_bytes:
        reason += f"; {gib(size.size_bytes)} GiB trimmed to what limits.total leaves"
    return Grow(growth=next_growth(reading, inventory), size_bytes=trimmed, reason=reason)


def steps_for(decision: Decision) -> tuple[Step, ...]:
    """The steps still missing, in their order; none when there is nothing to do."""
    match decision:
        case Grow(growth=growth, size_bytes=size):
            return (CreateVolume(growth=growth, size_bytes=size), *_steps_from(growth, 1))
        case Finish(growth=growth, stage=stage):
            done = {Stage.ABSENT: 0, Stage.CREATED: 1, Stage.ATTACHED: 2, Stage.MEMBER: 3}
            return _steps_from(growth, done.get(stage, 4))
        case _:
            return ()


def _steps_from(growth: GrowthId, done: int) -> tuple[Step, ...]:
    after_create: tuple[Step, ...] = (
        AttachVolume(growth=growth),
        AddDevice(growth=growth),
        Settle(growth=growth),
    )
    return after_create[max(done - 1, 0) :]
