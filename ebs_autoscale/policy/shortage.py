"""When space is short, and how soon to look again. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import ceil, floor, inf

from ebs_autoscale.model import GIB, MIB, Inodes, Reading
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.health import FULL_BYTES
from ebs_autoscale.policy.settings import AUTO_LEAD_TIME, GrowthPolicy, LadderStep
from ebs_autoscale.units import format_size

LEAD_TIME_MARGIN = 2.0

# The fastest fill the poll delay must outrun before a rate has been seen: a 2 GB/s
# gp3 volume behind the page cache.
ASSUMED_FILL_BYTES_PER_SECOND = 2 * GIB

# Where that writer could fill everything before a volume arrives, what is lost before its first
# bytes are seen counts: a twentieth of the quickest growth on EC2 (4 to 5 s).
REACTION_SECONDS = 0.25

# Small-file writers were measured to burn metadata at up to 30 MB/s, and every run that
# ended in metadata ENOSPC went through 128 MiB at least 5 s before.
METADATA_HEADROOM_MIN_BYTES = 256 * MIB
METADATA_BYTES_PER_SECOND = 30_000_000

# One process was measured to create 58,000 empty files on ext4 in a second of CPU time, two at once
# no more than that each.
INODES_PER_SECOND = 100_000

# A filesystem too small to ever have so much of either is judged by this share of its own.
SMALL_SHARE = 1 / 20

# With less data than this, some writers fail already, and a rate no longer shows: data goes by
# chunks.
ALMOST_FULL_SHARE = 1 / 1000
ALMOST_FULL_BYTES = 16 * MIB


class Resource(Enum):
    """What can run short."""

    DATA = "data"
    METADATA = "metadata"
    INODES = "inodes"


@dataclass(frozen=True, slots=True)
class Shortage:
    """A need for a growth, with the figures that show it."""

    of: Resource
    sentence: str


def shortage_of(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> Shortage | None:
    """Why space is short; None while there is enough. Every judgement of shortage is this one."""
    data = next(_data_shortages(reading, policy, forecast), None)
    if data:
        return Shortage(Resource.DATA, f"{describe_available(reading)}, {data}")
    min_bytes = _metadata_min_bytes(reading, lead_time_seconds(policy, forecast))
    if reading.metadata_room_bytes < min_bytes:
        headroom = format_size(int(reading.metadata_room_bytes))
        return Shortage(
            Resource.METADATA,
            f"metadata headroom is {headroom}, less than {format_size(int(min_bytes))} "
            f"({describe_available(reading)})",
        )
    if inodes := _inode_shortage(reading, policy, forecast):
        return Shortage(Resource.INODES, f"{inodes} ({describe_available(reading)})")
    return None


def _inode_shortage(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> str:
    inodes, least = reading.inodes, min_inodes(reading, policy, forecast)
    if inodes is None or inodes.available >= least:
        return ""
    lead, rate = lead_time_seconds(policy, forecast), forecast.inodes_per_second
    if not rate or rate * lead < least:
        return f"{describe_inodes(inodes)}, less than {ceil(least)}"
    left = max(1.0, inodes.available / rate)
    return (
        f"{describe_inodes(inodes)}, used up in {left:.0f} s at {rate:.0f} new files a second; "
        f"enlarging the volume may take {lead:.0f} s"
    )


def _data_shortages(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> Iterator[str]:
    percent = available_percent_floor(reading, policy)
    if reading.available_percent < percent:
        yield f"less than {percent:g} %"
    min_bytes = policy.threshold.available_min_of(reading.size_bytes)
    if reading.available_bytes < min_bytes:
        yield f"less than {format_size(min_bytes)}"
    lead = lead_time_seconds(policy, forecast)
    written = _written_bytes(reading, forecast, lead)
    if reading.available_bytes < written:
        rate = written / lead
        left = reading.available_bytes / rate
        speed = f"{rate / MIB:.0f} MiB/s"
        growth = "adding a volume" if reading.kind.takes_devices else "enlarging the volume"
        yield f"full in {max(1.0, left):.0f} s at {speed}; {growth} may take {lead:.0f} s"


def _written_bytes(reading: Reading, forecast: Forecast, lead_seconds: float) -> float:
    """What will be written within the lead time, as far as is possible."""
    rate = forecast.fill_bytes_per_second
    return forecast.bounded(rate, lead_seconds, used_bytes=reading.used_bytes)


def seconds_until_full(reading: Reading, forecast: Forecast) -> float:
    """How long programs can go on writing as they do; infinite while none does, 0 once it is full.

    A full filesystem shows no rate: its writers fail.
    """
    almost_full_bytes = max(ALMOST_FULL_BYTES, reading.size_bytes * ALMOST_FULL_SHARE)
    if reading.available_bytes <= almost_full_bytes or reading.metadata_room_bytes <= FULL_BYTES:
        return 0.0
    inodes, files_left = reading.inodes, inf
    if inodes:
        if inodes.available <= inodes.total * ALMOST_FULL_SHARE:
            return 0.0
        rate = forecast.inodes_per_second
        files_left = inodes.available / rate if rate > 0 else inf
    rate = forecast.fill_bytes_per_second
    return min(reading.available_bytes / rate if rate > 0 else inf, files_left)


def describe_available(reading: Reading) -> str:
    """The figure that every reason begins with; never rounded up to a threshold."""
    percent = floor(10 * reading.available_percent) / 10
    return f"{percent:.1f} % ({format_size(reading.available_bytes)}) available"


def describe_inodes(inodes: Inodes) -> str:
    """How many inodes are left; never rounded up to a threshold."""
    percent = floor(1000 * inodes.available / inodes.total) / 10
    return f"{inodes.available} of {inodes.total} inodes ({percent:.1f} %) available"


def lead_time_seconds(policy: GrowthPolicy, forecast: Forecast) -> float:
    """How long before the filesystem is full a growth must start."""
    configured = policy.threshold.lead_time_seconds
    if configured is not AUTO_LEAD_TIME:
        return configured
    return LEAD_TIME_MARGIN * forecast.growth_seconds


def available_percent_floor(reading: Reading, policy: GrowthPolicy) -> float:
    """The share that must stay available: that of the ladder's step, else the threshold."""
    step = ladder_step_of(reading, policy)
    return step.available_percent if step else policy.threshold.available_percent


def ladder_step_of(reading: Reading, policy: GrowthPolicy) -> LadderStep | None:
    """The step of the ladder that this many devices have reached, if there is a ladder."""
    reached = [s for s in policy.sizing.steps if len(reading.devices) >= s.devices]
    return reached[-1] if reached else None


def _metadata_min_bytes(reading: Reading, lead_seconds: float) -> float:
    wanted = max(METADATA_HEADROOM_MIN_BYTES, METADATA_BYTES_PER_SECOND * lead_seconds)
    return min(wanted, reading.size_bytes * SMALL_SHARE)


def min_inodes(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> float:
    """How many inodes must stay available: the share of the threshold, and what files may take.

    As many files as are being created until a growth has surely ended, and of a burst that has not
    been seen yet as much as a filesystem of this size can afford.
    """
    if reading.inodes is None:
        return 0.0
    total = reading.inodes.total
    share = total * available_percent_floor(reading, policy) / 100
    lead = lead_time_seconds(policy, forecast)
    burst = min(INODES_PER_SECOND * lead, total * SMALL_SHARE)
    return max(share, burst, forecast.inodes_per_second * lead)


def poll_delay_seconds(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> float:
    """Seconds until the next reading: how long the space above the trigger lasts, within bounds.

    Where a writer that has not been seen yet could fill everything before a volume arrives, it is
    seen in REACTION_SECONDS.
    """
    lead = lead_time_seconds(policy, forecast)
    trigger = max(
        reading.size_bytes * available_percent_floor(reading, policy) / 100,
        policy.threshold.available_min_of(reading.size_bytes),
        _written_bytes(reading, forecast, lead),
    )
    fastest = max(ASSUMED_FILL_BYTES_PER_SECOND, forecast.fill_bytes_per_second)
    metadata = reading.metadata_room_bytes - _metadata_min_bytes(reading, lead)
    available = reading.inodes.available if reading.inodes else inf
    inodes = available - min_inodes(reading, policy, forecast)
    lasts = min(
        (reading.available_bytes - trigger) / fastest,
        max(reading.available_bytes / fastest - forecast.growth_seconds, REACTION_SECONDS),
        metadata / METADATA_BYTES_PER_SECOND,
        inodes / max(INODES_PER_SECOND, forecast.inodes_per_second),
    )
    return min(max(lasts, policy.polling.min_seconds), policy.polling.max_seconds)
