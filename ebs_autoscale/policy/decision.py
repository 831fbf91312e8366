"""What to do about an observation, and the steps that it takes. Pure."""

from ebs_autoscale.model import (
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
from ebs_autoscale.policy.limits import priced, refused, sized
from ebs_autoscale.policy.ownership import NOTHING_TRIED, Tried, limited, next_growth, waiting
from ebs_autoscale.policy.settings import GrowthPolicy
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
    if volume := waiting(seen, tried):
        stage = stage_of(volume, seen)
        reason = f"growth {volume.growth} stopped at {stage}: {volume.id} is {volume.state}"
        return Finish(growth=volume.growth, volume_id=volume.id, stage=stage, reason=reason)
    forecast = forecast.after(seen.reading)
    price = seen.inventory.price
    if wanted_bytes is not None:
        what = f"{priced(wanted_bytes, price)}, " if wanted_bytes else ""
        reason = f"{what}requested by an operator"
    elif shortage := shortage_of(seen.reading, policy, forecast):
        reason = shortage.sentence
    else:
        return unbalanced_metadata(seen) or Hold(describe_available(seen.reading))
    volumes = limited(seen, tried)
    if refusal := refused(volumes, seen.inventory.slots_free, policy.limits, reason=reason):
        return refusal
    size = Size(wanted_bytes) if wanted_bytes else next_size(seen.reading, policy, forecast)
    growth = next_growth(seen, tried)
    return sized(size, volumes, policy, growth, price=price, reason=reason)


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
