"""What to do about an observation, and the steps that it takes. Pure."""

from math import inf

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import (
    GIB,
    AddDevice,
    AttachVolume,
    BalanceMetadata,
    CreateVolume,
    Decision,
    Finish,
    Grow,
    GrowthId,
    Hold,
    Observation,
    Refuse,
    Stage,
    Step,
    Volume,
)
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.ownership import NOTHING_TRIED, Tried, limited, next_growth, waiting
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.policy.shortage import describe_available, shortage_of
from ebs_autoscale.policy.sizing import Size, next_size
from ebs_autoscale.units import counted, format_size


def stage_of(volume: Volume, seen: Observation) -> Stage:
    """How far the growth behind this volume has come, from what EC2 and the kernel show."""
    if seen.is_device(volume):
        balanced = seen.metadata_balanced or volume != seen.newest_device
        return Stage.BALANCED if balanced else Stage.ADDED
    attached = (
        volume.attached_to == seen.inventory.instance_id and volume.attachment_state == "attached"
    )
    return Stage.ATTACHED if attached and volume.id in seen.nodes else Stage.CREATED


def decide(
    seen: Observation,
    policy: GrowthPolicy,
    *,
    forecast: Forecast,
    wanted_bytes: int | None = None,
    tried: Tried = NOTHING_TRIED,
) -> Decision:
    """What to do now, and why.

    `wanted_bytes` is an operator's explicit request for a growth (0: of the usual size);
    it passes the same limits. An unfinished growth is finished before anything is created, unless
    its volume was tried in vain.
    """
    if volume := waiting(seen, tried):
        stage = stage_of(volume, seen)
        reason = f"growth {volume.growth} stopped at {stage}: {volume.id} is {volume.state}"
        return Finish(growth=volume.growth, volume_id=volume.id, stage=stage, reason=reason)
    forecast = forecast.after(seen.reading)
    if wanted_bytes is not None:
        reason = "requested by an operator"
    elif shortage := shortage_of(seen.reading, policy, forecast):
        reason = shortage.sentence
    else:
        return unbalanced_metadata(seen) or Hold(describe_available(seen.reading))
    volumes = limited(seen, tried)
    slots_free = seen.inventory.slots_free
    if refusal := _refused(volumes, slots_free, policy.limits, reason=reason):
        return refusal
    size = Size(wanted_bytes, "") if wanted_bytes else next_size(seen.reading, policy, forecast)
    growth = next_growth(seen, tried)
    return _sized(volumes, policy, growth, reason=reason, size=size)


def describe(decision: Decision) -> str:
    """The decision as a person reads it, a refusal's hint left out."""
    if isinstance(decision, Refuse):
        return f"refused by {decision.limit.value}: {decision.reason}"
    return f"{decision.kind}: {decision.reason}"


def unbalanced_metadata(seen: Observation) -> Finish | None:
    """What is left of the newest growth while metadata is not balanced; None when it is."""
    newest = seen.newest_device
    if seen.metadata_balanced or newest is None:
        return None
    return Finish(
        growth=newest.growth,
        volume_id=newest.id,
        stage=Stage.ADDED,
        reason="metadata is not balanced yet",
    )


def _refused(
    volumes: list[Volume], slots_free: int | None, limits: Limits, *, reason: str
) -> Refuse | None:
    """The limit that forbids any growth now."""
    count = len(volumes)
    if limits.volumes is not None and count >= limits.volumes:
        return Refuse(
            limit=Cause.LIMIT_VOLUMES,
            reason=f"{reason}, but {count} of {counted(limits.volumes, 'volume')} exist already",
            hint="raise limits.volumes",
        )
    if slots_free is not None and slots_free <= 0:
        return Refuse(
            limit=Cause.LIMIT_VOLUMES,
            reason=f"{reason}, but the instance has no free attachment slot",
            hint="use a larger instance type, or detach volumes that are not needed",
        )
    ages = [volume.age_seconds for volume in volumes if volume.age_seconds is not None]
    # EC2's clock can be ahead of ours.
    since = max(0.0, min(ages, default=inf))
    if since < limits.cooldown_seconds:
        wait = limits.cooldown_seconds - since
        return Refuse(
            limit=Cause.LIMIT_COOLDOWN,
            reason=f"{reason}, but the last volume was created {since:.0f} s ago",
            hint=f"the cooldown ends in {wait:.0f} s",
        )
    return None


def _sized(
    volumes: list[Volume], policy: GrowthPolicy, growth: GrowthId, *, reason: str, size: Size
) -> Decision:
    """The growth of this size, capped by limits.total, or why EC2 or that limit forbids it."""
    sizing, limits = policy.sizing, policy.limits
    managed_bytes = sum(volume.size_bytes for volume in volumes)
    if not sizing.sold_min_bytes <= size.size_bytes <= sizing.sold_max_bytes:
        sold = f"{format_size(sizing.sold_min_bytes)} to {format_size(sizing.sold_max_bytes)}"
        return Refuse(
            limit=Cause.VOLUME_TYPE,
            reason=f"{reason}, but volumes of the configured type and IOPS can have {sold}, "
            f"not {format_size(size.size_bytes)}",
            hint="request another size, or change volume.type or volume.iops",
        )
    room = (limits.total_bytes - managed_bytes) // GIB * GIB
    if room < sizing.sold_min_bytes:
        return Refuse(
            limit=Cause.LIMIT_TOTAL,
            reason=f"{reason}, but managed volumes already total "
            f"{format_size(managed_bytes)} of {format_size(limits.total_bytes)}; the "
            f"smallest volume of the configured type is {format_size(sizing.sold_min_bytes)}",
            hint="raise limits.total",
        )
    granted = min(size.size_bytes, room)
    if size.why:
        reason += f"; {format_size(size.size_bytes)}: {size.why}"
    if granted < size.size_bytes:
        reason += f"; capped by limits.total ({format_size(size.size_bytes)} wanted)"
    return Grow(growth=growth, size_bytes=granted, reason=reason)


def steps_for(decision: Decision) -> tuple[Step, ...]:
    """The steps still missing, in their order; none when there is nothing to do."""
    match decision:
        case Grow(growth=growth, size_bytes=size):
            return (CreateVolume(growth=growth, size_bytes=size), *_steps_after(0, growth))
        case Finish(growth=growth, stage=stage):
            done = {Stage.CREATED: 0, Stage.ATTACHED: 1, Stage.ADDED: 2}
            return _steps_after(done.get(stage, 3), growth)
        case _:
            return ()


def _steps_after(done: int, growth: GrowthId) -> tuple[Step, ...]:
    """The steps that follow the creation, without the first `done` of them."""
    after_create: tuple[Step, ...] = (
        AttachVolume(growth=growth),
        AddDevice(growth=growth),
        BalanceMetadata(growth=growth),
    )
    return after_create[done:]
