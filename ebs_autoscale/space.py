"""When space is low, how soon it will be, and how much to add. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from ebs_autoscale.model import GIB, Reading
from ebs_autoscale.rules import AUTO_LEAD_TIME, GrowthPolicy, LadderStep

# create 1.5 s + attach 2 s + node 0.5 s at the median, 4 + 10 + 5 s at the 99th
# percentile (EBS CSI driver's measurements); what our own growths took replaces it.
GROWTH_SECONDS_PRIOR = 20.0
LEAD_TIME_MARGIN = 2.0

# The fastest fill the poll delay must outrun before a rate has been seen: a 2 GB/s
# gp3 volume behind the page cache.
ASSUMED_FILL_BYTES_PER_SECOND = 2 * GIB

# A burst shows in the short window, a steady writer in the long one.
FILL_RATE_WINDOWS_SECONDS = (2.0, 10.0)

# Small-file writers were measured to burn metadata at up to 30 MB/s, and every run that
# ended in metadata ENOSPC went through 128 MiB at least 5 s before.
METADATA_HEADROOM_MIN_BYTES = 256 * 1024**2
METADATA_BYTES_PER_SECOND = 30_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the loop has learned: how fast it fills, and how long a growth takes here."""

    fill_bytes_per_second: float = 0.0
    growth_seconds: float = GROWTH_SECONDS_PRIOR


def fill_rate(readings: Sequence[Reading]) -> float:
    """Bytes per second being used up, the faster of a short and a long look back.

    Used space, not available space, is compared: a growth in between must not look like a delete.
    """
    if not readings:
        return 0.0
    now = readings[-1]
    rates = [0.0]
    for window in FILL_RATE_WINDOWS_SECONDS:
        inside = [r for r in readings if now.taken_at_seconds - r.taken_at_seconds <= window]
        elapsed = now.taken_at_seconds - inside[0].taken_at_seconds
        # Under half a window one write-back burst would pass for a trend.
        if elapsed >= window / 2:
            rates.append((_used_bytes(now) - _used_bytes(inside[0])) / elapsed)
    return max(rates)


def _used_bytes(reading: Reading) -> int:
    return reading.size_bytes - reading.available_bytes


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
    rung = _rung(reading, policy)
    return rung.available_percent if rung else policy.threshold.available_percent


def shortage(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> str:
    """Why space is low, with the numbers; empty while it is comfortable."""
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
        return f"{now}, full in {left:.0f} s at this rate, help takes up to {lead:.0f} s"
    metadata_floor = max(METADATA_HEADROOM_MIN_BYTES, METADATA_BYTES_PER_SECOND * lead)
    # A filesystem too small to ever have that headroom is judged by its size instead.
    metadata_floor = min(metadata_floor, reading.size_bytes / 20)
    if reading.metadata_headroom_bytes < metadata_floor:
        return (
            f"metadata can take only {reading.metadata_headroom_bytes / 1024**2:.0f} MiB more, "
            f"less than {metadata_floor / 1024**2:.0f} MiB ({now})"
        )
    return ""


def poll_delay_seconds(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> float:
    """Time until the next reading: what the headroom above the trigger lasts, within bounds."""
    lead = lead_time_seconds(policy, forecast)
    trigger = max(
        reading.size_bytes * available_percent_floor(reading, policy) / 100,
        policy.threshold.available_min_bytes,
        forecast.fill_bytes_per_second * lead,
    )
    fastest = max(ASSUMED_FILL_BYTES_PER_SECOND, forecast.fill_bytes_per_second)
    lasts = (reading.available_bytes - trigger) / fastest
    return min(max(lasts, policy.polling.min_seconds), policy.polling.max_seconds)


def next_size_bytes(reading: Reading, policy: GrowthPolicy) -> int:
    """Size of the next volume in whole GiB, before `limits.total` trims it."""
    sizing = policy.sizing
    if rung := _rung(reading, policy):
        wanted: float = rung.size_bytes
    elif sizing.fixed_bytes is not None:
        wanted = sizing.fixed_bytes
    else:
        wanted = reading.size_bytes * sizing.percent / 100
    clamped = int(min(max(wanted, sizing.min_bytes), sizing.max_bytes))
    return -(-clamped // GIB) * GIB


def _rung(reading: Reading, policy: GrowthPolicy) -> LadderStep | None:
    reached = [s for s in policy.sizing.steps if len(reading.members) >= s.members]
    return reached[-1] if reached else None


def gib(size_bytes: float) -> str:
    """A size in GiB as people write it: `3.5`, `20`."""
    return f"{size_bytes / GIB:.1f}".removesuffix(".0")
