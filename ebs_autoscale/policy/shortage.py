"""When space is low, how soon it will be, and when to look again. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ebs_autoscale.model import GIB, Reading
from ebs_autoscale.policy.settings import AUTO_LEAD_TIME, GrowthPolicy, LadderStep

MIB = 1024**2

# create 1.5 s + attach 2 s + node 0.5 s at the median, 4 + 10 + 5 s at the 99th
# percentile (EBS CSI driver's measurements); what our own growths took replaces it.
GROWTH_SECONDS_PRIOR = 20.0
LEAD_TIME_MARGIN = 2.0

# The fastest fill the poll delay must outrun before a rate has been seen: a 2 GB/s
# gp3 volume behind the page cache.
ASSUMED_FILL_BYTES_PER_SECOND = 2 * GIB

# Where that writer could fill all before help arrives, what is lost before its first bytes are
# seen counts: a twentieth of the quickest growth on EC2 (4 to 5 s).
REACTION_SECONDS = 0.25

# A burst shows in the shortest window, a steady writer in the longest one.
FILL_RATE_WINDOWS_SECONDS = (0.5, 2.0, 10.0)

# What the page cache swallows in an instant is no trend: the shortest window counts only
# once it has taken this share of what is left. It then costs as much of the highest
# rate that can be survived, and makes no difference to any lower one.
EVIDENCE_SHARE = 1 / 20

# What is booked in one step (a fallocate, a reflink, one delete undone) is no rate: the largest
# step of a window counts for no more than so many of the second largest. A writer that
# began a twentieth of an interval before the first look is still seen in full at the second.
LARGEST_STEP_MOST = 20

# Small-file writers were measured to burn metadata at up to 30 MB/s, and every run that
# ended in metadata ENOSPC went through 128 MiB at least 5 s before.
METADATA_HEADROOM_MIN_BYTES = 256 * MIB
METADATA_BYTES_PER_SECOND = 30_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the loop has learned: how fast it fills, and how long a growth takes here.

    `fill_bytes_per_second` is the peak, which says when to act; `sustained_bytes_per_second`
    the trend, which says how much is worth buying. Both were seen up to the moment at which
    `used_bytes` were used; once less is used than that, they are no longer true.
    """

    fill_bytes_per_second: float = 0.0
    sustained_bytes_per_second: float = 0.0
    growth_seconds: float = GROWTH_SECONDS_PRIOR
    used_bytes: int = 0

    def after(self, reading: Reading) -> "Forecast":
        """What is left of the forecast at a later reading."""
        if reading.used_bytes >= self.used_bytes:
            return self
        return replace(self, fill_bytes_per_second=0.0, sustained_bytes_per_second=0.0)


def fill_rate(readings: Sequence[Reading]) -> float:
    """Bytes per second being used up: the fastest of a short, a middle and a long look back.

    The short one makes it quick, the long one remembers a peak over a pause, and one large step
    is none. Used space, not available space, is compared: a growth must not look like a delete.
    """
    if not readings:
        return 0.0
    now = readings[-1]
    rates = [0.0]
    for window in FILL_RATE_WINDOWS_SECONDS:
        since = next(r for r in readings if now.taken_at_seconds - r.taken_at_seconds <= window)
        elapsed = now.taken_at_seconds - since.taken_at_seconds
        used_bytes = _written_bytes(readings, since.taken_at_seconds)
        shortest = window == FILL_RATE_WINDOWS_SECONDS[0]
        if shortest and used_bytes < EVIDENCE_SHARE * now.available_bytes:
            continue
        # Under half a window one write-back burst would pass for a trend.
        if elapsed >= window / 2:
            rates.append(used_bytes / elapsed)
    return max(rates)


def _written_bytes(readings: Sequence[Reading], since_seconds: float) -> float:
    """What was used up since a moment, deletes deducted and one step alone left out."""
    inside = [r.used_bytes for r in readings if r.taken_at_seconds >= since_seconds]
    steps = sorted(later - earlier for earlier, later in pairwise(inside))
    if not steps:
        return 0.0
    second = max(steps[-2], 0) if len(steps) > 1 else 0
    return inside[-1] - inside[0] - max(0, steps[-1] - LARGEST_STEP_MOST * second)


def sustained_rate(readings: Sequence[Reading]) -> float:
    """Bytes per second being used up in both halves of the longest window, the lesser of the two.

    Zero for what came all at once: one fallocate or one copy is no promise of another.
    """
    if not readings:
        return 0.0
    now, window = readings[-1], FILL_RATE_WINDOWS_SECONDS[-1]
    middle, first = (
        next(r for r in readings if now.taken_at_seconds - r.taken_at_seconds <= seconds)
        for seconds in (window / 2, window)
    )
    recent = now.taken_at_seconds - middle.taken_at_seconds
    earlier = middle.taken_at_seconds - first.taken_at_seconds
    if min(recent, earlier) < window / 4:
        return 0.0
    rates = (
        (now.used_bytes - middle.used_bytes) / recent,
        (middle.used_bytes - first.used_bytes) / earlier,
    )
    return max(0.0, min(rates))


def lead_time_seconds(policy: GrowthPolicy, forecast: Forecast) -> float:
    """How long before the end help must be called."""
    configured = policy.threshold.lead_time_seconds
    if configured is not AUTO_LEAD_TIME:
        return configured
    return LEAD_TIME_MARGIN * forecast.growth_seconds


def available(reading: Reading) -> str:
    """The figure that every reason begins with."""
    return f"{reading.available_percent:.1f} % ({gib(reading.available_bytes)} GiB) available"


def available_percent_floor(reading: Reading, policy: GrowthPolicy) -> float:
    """The share that must stay available: the ladder's rung, else the threshold."""
    rung = rung_of(reading, policy)
    return rung.available_percent if rung else policy.threshold.available_percent


def shortage(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> str:
    """Why space is low, with the numbers; empty while it is comfortable."""
    return data_shortage(reading, policy, forecast) or _metadata_shortage(reading, policy, forecast)


def data_shortage(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> str:
    """Why there is too little for content, with the numbers; empty while there is enough."""
    now = available(reading)
    percent = available_percent_floor(reading, policy)
    if reading.available_percent < percent:
        return f"{now}, less than {percent:g} %"
    floor = policy.threshold.available_min_bytes
    if reading.available_bytes < floor:
        return f"{now}, less than {gib(floor)} GiB"
    lead = lead_time_seconds(policy, forecast)
    rate = forecast.fill_bytes_per_second
    if rate > 0 and lead > 0 and reading.available_bytes / rate < lead:
        left = reading.available_bytes / rate
        speed = f"{rate / MIB:.0f} MiB/s"
        return f"{now}, full in {left:.0f} s at {speed}, help takes up to {lead:.0f} s"
    return ""


def _metadata_shortage(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> str:
    floor = _metadata_floor_bytes(reading, lead_time_seconds(policy, forecast))
    if reading.metadata_headroom_bytes >= floor:
        return ""
    return (
        f"metadata can take only {reading.metadata_headroom_bytes / MIB:.0f} MiB more, "
        f"less than {floor / MIB:.0f} MiB ({available(reading)})"
    )


def _metadata_floor_bytes(reading: Reading, lead_seconds: float) -> float:
    floor = max(METADATA_HEADROOM_MIN_BYTES, METADATA_BYTES_PER_SECOND * lead_seconds)
    # A filesystem too small to ever have that headroom is judged by its size instead.
    return min(floor, reading.size_bytes / 20)


def poll_delay_seconds(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> float:
    """Time until the next reading: what the headroom above the trigger lasts, within bounds.

    Where a writer that has not been seen yet could fill all before help arrives, it is
    seen in REACTION_SECONDS.
    """
    lead = lead_time_seconds(policy, forecast)
    trigger = max(
        reading.size_bytes * available_percent_floor(reading, policy) / 100,
        policy.threshold.available_min_bytes,
        forecast.fill_bytes_per_second * lead,
    )
    fastest = max(ASSUMED_FILL_BYTES_PER_SECOND, forecast.fill_bytes_per_second)
    metadata = reading.metadata_headroom_bytes - _metadata_floor_bytes(reading, lead)
    lasts = min(
        (reading.available_bytes - trigger) / fastest,
        max(reading.available_bytes / fastest - forecast.growth_seconds, REACTION_SECONDS),
        metadata / METADATA_BYTES_PER_SECOND,
    )
    return min(max(lasts, policy.polling.min_seconds), policy.polling.max_seconds)


def rung_of(reading: Reading, policy: GrowthPolicy) -> LadderStep | None:
    """The rung of the ladder that so many members have reached, if there is a ladder."""
    reached = [s for s in policy.sizing.steps if len(reading.members) >= s.members]
    return reached[-1] if reached else None


def gib(size_bytes: float) -> str:
    """A size in GiB as people write it: `3.5`, `20`."""
    return f"{size_bytes / GIB:.1f}".removesuffix(".0")
