"""How large the next volume is, and why. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil

from ebs_autoscale.model import GIB, MIB, Inodes, Reading
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import (
    AVAILABLE_MIN_BYTES,
    AVAILABLE_MIN_SHARE,
    GrowthPolicy,
)
from ebs_autoscale.policy.shortage import (
    SMALL_SHARE,
    available_percent_floor,
    ladder_step_of,
    lead_time_seconds,
)
from ebs_autoscale.units import counted, format_duration, format_size

# One lead time until this volume has surely arrived, one more until the next one has.
LEADS_TO_COVER = 2


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, and the words that say where it comes from; none if it was requested."""

    size_bytes: int
    why: str = ""

    @property
    def is_requested(self) -> bool:
        """Whether an operator wants exactly this size."""
        return not self.why


def next_size(reading: Reading, policy: GrowthPolicy, forecast: Forecast, *more: Size) -> Size:
    """The size of the next volume, in whole GiB, before `limits.total` caps it.

    The configured size, but never less than one volume needs to end the shortage, nor than what
    will be written until the growth after it has arrived, at a rate that has lasted: attachment
    slots and deletions are scarce, so one larger volume is better than several small ones.
    All within `growth.min` and `growth.max`. `more` is what else may ask for a larger one.
    """
    candidates = (*_candidates(reading, policy, forecast), *more)
    wanted = max(candidates, key=lambda size: size.size_bytes)
    size = _whole_gib(wanted.size_bytes)
    smallest = _whole_gib(policy.sizing.min_bytes)
    # Rounded down: a volume must never exceed growth.max.
    largest = max(policy.sizing.max_bytes // GIB, 1) * GIB
    if size > largest:
        return Size(largest, f"capped by growth.max ({format_size(size)} wanted: {wanted.why})")
    if size < smallest:
        why = f"raised to growth.min ({format_size(size)} wanted: {wanted.why})"
        return Size(min(smallest, largest), why)
    return Size(size, wanted.why)


def _candidates(reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> Iterator[Size]:
    """The configured size, then what may ask for more; of equals the first counts."""
    sizing = policy.sizing
    if step := ladder_step_of(reading, policy):
        devices = counted(step.devices, "device")
        yield Size(step.size_bytes, f"from growth.steps, for {devices} or more")
    elif sizing.fixed_bytes is not None:
        yield Size(sizing.fixed_bytes, "growth.size")
    else:
        share = int(reading.size_bytes * sizing.percent / 100)
        yield Size(share, f"{sizing.percent:g} % of the current size")
    seconds = LEADS_TO_COVER * lead_time_seconds(policy, forecast)
    written = partial(
        forecast.bounded,
        seconds=seconds,
        used_bytes=reading.used_bytes,
        new_device_bytes_per_second=sizing.sold_bytes_per_second,
    )
    sustained, peak = (
        written(rate)
        for rate in (forecast.sustained_bytes_per_second, forecast.fill_bytes_per_second)
    )
    until = "another volume can be added" if reading.kind.takes_devices else "more can be added"
    yield _written(sustained, seconds, max_bytes=sizing.sold_max_bytes, until=until)
    # A new burst may end at once, so it asks for no more than the current size. Doubling gives
    # the next growth as much time as this one had.
    yield _written(peak, seconds, max_bytes=reading.size_bytes, until=until)
    percent = available_percent_floor(reading, policy)
    yield Size(
        _missing_bytes(reading, percent, policy.threshold.available_min_bytes),
        "the least that ends the shortage",
    )
    if reading.inodes:
        missing = _bytes_for_inodes(reading.inodes, percent, reading)
        yield Size(missing, "the least that ends the shortage of inodes")
        created = forecast.inodes_per_second * seconds
        yield Size(
            int(min(created / reading.inodes.total, 1.0) * reading.size_bytes),
            f"{forecast.inodes_per_second:.0f} new files a second for {seconds:.0f} s",
        )


def lasting_size(
    reading: Reading, forecast: Forecast, *, seconds: float, max_bytes: int, why: str
) -> Size:
    """What the trend needs for this long, where more space can be had no sooner."""
    rate = forecast.sustained_bytes_per_second
    written = forecast.bounded(rate, seconds, used_bytes=reading.used_bytes)
    speed = f"{written / seconds / MIB:.0f} MiB/s"
    return Size(int(min(written, max_bytes)), f"{speed} for {format_duration(seconds)}, {why}")


def _written(written_bytes: float, seconds: float, *, max_bytes: int, until: str) -> Size:
    speed = f"{written_bytes / seconds / MIB:.0f} MiB/s" if seconds else ""
    return Size(
        int(min(written_bytes, max_bytes)),
        f"{speed} for {seconds:.0f} s, until {until}",
    )


def _missing_bytes(reading: Reading, percent: float, min_bytes: int | None) -> int:
    """What has to be added so that neither floor is crossed any more."""
    missing = (AVAILABLE_MIN_BYTES if min_bytes is None else min_bytes) - reading.available_bytes
    missing = int(missing / _gains(reading)[1])
    if min_bytes is None:
        missing = min(missing, _missing_for(100 * AVAILABLE_MIN_SHARE, reading))
    return max(missing, _missing_for(percent, reading)) if percent < 100 else missing


def _missing_for(percent: float, reading: Reading) -> int:
    """What has to be added so that this share is available.

    The added bytes count for the whole as well as for what is available. With a share
    of 100 % nothing would ever be enough, nor with what ext4 never makes available.
    """
    below = reading.size_bytes * percent / 100 - reading.available_bytes
    larger, available = _gains(reading)
    share = percent / 100
    return int(below / max(available - larger * share, (1 - share) / 2))


def _gains(reading: Reading) -> tuple[float, float]:
    """What each byte more makes the filesystem larger by, and what it makes available.

    Measured on ext4: 0.98 and 0.93, since it has tables of inodes and, for root, a reserve that
    grow as it does. XFS loses a hundredth. Of BTRFS a new device is all available.
    """
    size_bytes = reading.size_bytes
    if reading.kind.takes_devices or not size_bytes:
        return 1.0, 1.0
    larger = min(1.0, size_bytes / max(1, sum(each.size_bytes for each in reading.devices)))
    usable = min(1.0, (reading.used_bytes + reading.available_bytes) / size_bytes)
    return larger, max(larger * usable, 0.1)


def _bytes_for_inodes(inodes: Inodes, percent: float, reading: Reading) -> int:
    """What has to be added so that this share of inodes is available: they grow as it does.

    At least the share that a burst of new files may take, see `min_inodes`.
    """
    share = max(percent / 100, SMALL_SHARE)
    if share >= 1:
        return 0
    missing = (inodes.total * share - inodes.available) / (1 - share)
    # The tables of inodes themselves are no part of what statvfs counts.
    size_bytes = max(reading.size_bytes, sum(each.size_bytes for each in reading.devices))
    return ceil(missing * size_bytes / inodes.total)


def _whole_gib(size_bytes: int) -> int:
    return -(-size_bytes // GIB) * GIB
