"""What to do about an observation, and the steps that it takes. Pure."""

from ebs_autoscale.model import (
    AddDevice,
    AttachVolume,
    BalanceMetadata,
    CreateVolume,
    Decision,
    Enlarge,
    Enlargement,
    EnlargeVolume,
    FilesystemKind,
    Finish,
    Grow,
    GrowthId,
    Hold,
    Observation,
    Refuse,
    ResizeDevice,
    Stage,
    Step,
    Volume,
)
from ebs_autoscale.policy.enlarging import (
    enlarge,
    enlarging_size,
    misfit_of,
    unfinished_enlargement,
)
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.limits import cooling, full, granted, priced
from ebs_autoscale.policy.ownership import NOTHING_TRIED, Tried, limited, next_growth, waiting
from ebs_autoscale.policy.settings import GrowthMethod, GrowthPolicy
from ebs_autoscale.policy.shortage import describe_available, shortage_of
from ebs_autoscale.policy.sizing import Size, next_size


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
    if unused_space := unfinished_enlargement(seen, tried):
        return unused_space
    if volume := waiting(seen, tried):
        stage = stage_of(volume, seen)
        reason = f"growth {volume.growth} stopped at {stage}: {volume.id} is {volume.state}"
        return Finish(growth=volume.growth, volume_id=volume.id, stage=stage, reason=reason)
    forecast = forecast.after(seen.reading)
    if wanted_bytes is not None:
        what = f"{priced(wanted_bytes, seen.inventory.price)}, " if wanted_bytes else ""
        reason = f"{what}requested by an operator"
    elif shortage := shortage_of(seen.reading, policy, forecast):
        reason = shortage.sentence
    else:
        return unbalanced_metadata(seen) or Hold(describe_available(seen.reading))
    return _more_space(seen, policy, forecast, tried, wanted_bytes=wanted_bytes, reason=reason)


def _more_space(
    seen: Observation,
    policy: GrowthPolicy,
    forecast: Forecast,
    tried: Tried,
    *,
    wanted_bytes: int | None,
    reason: str,
) -> Grow | Enlarge | Refuse:
    """A new volume or a larger one, or the limit that forbids it."""
    volumes, method, kind = limited(seen, tried), policy.sizing.method, seen.reading.kind
    no_other = full(volumes, seen.inventory.slots_free, policy.limits)
    if not kind.takes_devices:
        if misfit := misfit_of(method, kind):
            return Refuse(
                limit=misfit.cause, reason=f"{reason}, but {misfit.sentence}", hint=misfit.hint
            )
        method, no_other = GrowthMethod.ENLARGE, None
    too_soon = cooling(volumes, policy.limits, reason=reason)
    requested = Size(wanted_bytes) if wanted_bytes else None
    if method is GrowthMethod.ENLARGE or (method is GrowthMethod.AUTO and no_other):
        size = requested or enlarging_size(seen, policy, forecast)
        instead_of = no_other if method is GrowthMethod.AUTO else None
        enlarged = enlarge(seen, policy, tried, size, no_other=instead_of, reason=reason)
        return enlarged if isinstance(enlarged, Refuse) else too_soon or enlarged
    if no_other:
        return no_other.refusal(reason)
    if too_soon:
        return too_soon
    size = requested or next_size(seen.reading, policy, forecast)
    price = seen.inventory.price
    allowed = granted(size, volumes, policy, price=price, reason=reason)
    if isinstance(allowed, Refuse):
        return allowed
    return Grow(
        growth=next_growth(seen, tried),
        size_bytes=allowed.size_bytes,
        reason=allowed.reason,
        usd_per_month=allowed.usd_per_month,
    )


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


def steps_for(decision: Decision, kind: FilesystemKind = FilesystemKind.BTRFS) -> tuple[Step, ...]:
    """The steps still missing, in their order; none when there is nothing to do.

    On a filesystem of one device metadata cannot be unbalanced.
    """
    steps = _steps_for(decision)
    if kind.takes_devices:
        return steps
    return tuple(step for step in steps if not isinstance(step, BalanceMetadata))


def _steps_for(decision: Decision) -> tuple[Step, ...]:
    match decision:
        case Grow(growth=growth, size_bytes=size):
            return (CreateVolume(growth=growth, size_bytes=size), *_steps_after(0, growth))
        case Enlarge(growth=growth) | Finish(growth=Enlargement() as growth, stage=Stage.MODIFYING):
            return (EnlargeVolume(growth=growth), *_steps_after_enlarging(growth))
        case Finish(growth=Enlargement() as growth):
            return _steps_after_enlarging(growth)
        case Finish(growth=GrowthId() as growth, stage=stage):
            done = {Stage.CREATED: 0, Stage.ATTACHED: 1, Stage.ADDED: 2}
            return _steps_after(done.get(stage, 3), growth)
        case _:
            return ()


def _steps_after_enlarging(growth: Enlargement) -> tuple[Step, ...]:
    return (ResizeDevice(growth=growth), BalanceMetadata(growth=growth))


def _steps_after(done: int, growth: GrowthId) -> tuple[Step, ...]:
    """The steps that follow the creation, without the first `done` of them."""
    after_create: tuple[Step, ...] = (
        AttachVolume(growth=growth),
        AddDevice(growth=growth),
        BalanceMetadata(growth=growth),
    )
    return after_create[done:]
