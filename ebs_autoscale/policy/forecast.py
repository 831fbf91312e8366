"""How fast the filesystem fills, from the latest readings, and how long a growth takes here."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ebs_autoscale.model import Reading
from ebs_autoscale.policy.peaks import Peaks

# create 1.5 s + attach 2 s + block device 0.5 s at the median, 4 + 10 + 5 s at the 99th
# percentile (EBS CSI driver's measurements); what our own growths took replaces it.
GROWTH_SECONDS_PRIOR = 20.0

# A burst shows in the shortest window, a steady writer in the longest one.
FILL_RATE_WINDOWS_SECONDS = (0.5, 2.0, 10.0)

# A burst that fits into the page cache is no trend, so the shortest window counts only once it
# has used this share of the available space. This lowers the highest write rate that can be
# survived by the same share, and makes no difference below it.
EVIDENCE_SHARE = 1 / 20

# What is booked in one step (a fallocate, a reflink, one delete undone) is no rate: the largest
# step of a window counts for no more than this many times the second largest. A writer that
# began a twentieth of an interval before the first look is still seen in full at the second.
LARGEST_STEP_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the loop has learned: how fast the filesystem fills, and how long a growth takes here.

    `fill_bytes_per_second` is the peak, which says when to act; `sustained_bytes_per_second`
    the trend, which says how much is worth creating. Both were seen up to the moment at which
    `used_bytes` were used; once less is used than that, they are no longer true.
    `devices_bytes_per_second` is the most that the devices take, None where that is not known or
    was exceeded; `cache_bytes` is what the page cache can take besides. `ceiling_bytes` is what
    usage stayed below so far as it came back down again and again, None where it did not, and
    `ceiling_bytes_per_second` how fast that rises. `inodes_per_second` is the peak for them.
    """

    fill_bytes_per_second: float = 0.0
    sustained_bytes_per_second: float = 0.0
    growth_seconds: float = GROWTH_SECONDS_PRIOR
    used_bytes: int = 0
    devices_bytes_per_second: float | None = None
    cache_bytes: int = 0
    ceiling_bytes: int | None = None
    ceiling_bytes_per_second: float = 0.0
    inodes_per_second: float = 0.0

    def after(self, reading: Reading) -> "Forecast":
        """What is left of the forecast at a later reading."""
        if reading.used_bytes >= self.used_bytes:
            return self
        return replace(self, fill_bytes_per_second=0.0, sustained_bytes_per_second=0.0)

    def bounded(
        self,
        bytes_per_second: float,
        seconds: float,
        *,
        used_bytes: int,
        new_device_bytes_per_second: float | None = 0.0,
    ) -> float:
        """How many bytes can be written in these seconds at this rate, as far as is possible.

        Never more than the page cache and the devices take, nor than usage rose to so far where
        that came back down again and again. `used_bytes` are used now; the throughput of a new
        device is None when it is not known.
        """
        written = bytes_per_second * seconds
        devices, new = self.devices_bytes_per_second, new_device_bytes_per_second
        if devices is not None and new is not None:
            written = min(written, self.cache_bytes + (devices + new) * seconds)
        if self.ceiling_bytes is not None and used_bytes <= self.ceiling_bytes:
            ceiling = self.ceiling_bytes + self.ceiling_bytes_per_second * seconds
            written = min(written, ceiling - used_bytes)
        return written


class FillHistory:
    """The readings of the longest window, and what a growth takes here; starts from the prior."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self._peaks = Peaks()
        self._throughputs: Mapping[str, float | None] = {}
        # What must be in the page cache if programs wrote it and the devices took all they can.
        self._cached_bytes = 0.0
        self.forecast = Forecast()

    def add(self, reading: Reading, lead_seconds: float) -> None:
        """Take the newest reading into account."""
        devices = self._devices_bytes_per_second(reading)
        self._peaks.add(reading, lead_seconds)
        ceiling = self._peaks.ceiling(reading.taken_at_seconds)
        self._readings.append(reading)
        self.forget_before(reading.taken_at_seconds - max(FILL_RATE_WINDOWS_SECONDS))
        self.forecast = Forecast(
            fill_bytes_per_second=fill_rate(self._readings),
            sustained_bytes_per_second=sustained_rate(self._readings),
            growth_seconds=self.forecast.growth_seconds,
            used_bytes=reading.used_bytes,
            devices_bytes_per_second=devices,
            cache_bytes=max(0, reading.cache_bytes - reading.dirty_bytes),
            ceiling_bytes=ceiling.used_bytes,
            ceiling_bytes_per_second=ceiling.bytes_per_second,
            inodes_per_second=fill_rate(self._readings, inodes_of) if reading.inodes else 0.0,
        )

    def _devices_bytes_per_second(self, reading: Reading) -> float | None:
        """The most that the devices take; None if it is not known, or if more was written.

        Space that is used up without being written (by fallocate) gives itself away by being more
        than the page cache can hold besides what the devices took; so does a device that is faster
        than EC2 said.
        """
        known = self._throughputs
        self._throughputs = {each.name: known.get(each.name) for each in reading.devices}
        throughputs = [each for each in self._throughputs.values() if each is not None]
        if len(throughputs) < len(reading.devices):
            self._cached_bytes = 0.0
            return None
        total = sum(throughputs)
        if self._readings:
            last = self._readings[-1]
            elapsed = reading.taken_at_seconds - last.taken_at_seconds
            rise = reading.used_bytes - last.used_bytes
            self._cached_bytes = max(0.0, self._cached_bytes + rise - total * elapsed)
        return None if self._cached_bytes > reading.cache_bytes else total

    def learn_throughput(self, device: str, bytes_per_second: float) -> None:
        """The device with this kernel name takes no more than this."""
        self._throughputs = {**self._throughputs, device: bytes_per_second}

    def learn_growth(self, seconds: float) -> None:
        """A growth took this long; one quick growth is no promise, so it counts by half."""
        learned = max(seconds, (self.forecast.growth_seconds + seconds) / 2)
        self.forecast = replace(self.forecast, growth_seconds=learned)

    def forget_before(self, seconds: float) -> None:
        """Leave out what was read before this moment."""
        while self._readings and self._readings[0].taken_at_seconds < seconds:
            self._readings.popleft()

    def forget_readings(self) -> None:
        """Readings are of no use after a gap; how long growths took still is."""
        self._readings.clear()
        self._peaks = Peaks()
        self._cached_bytes = 0.0


def space_of(reading: Reading) -> tuple[int, int]:
    """The bytes that are used, and those that are available."""
    return reading.used_bytes, reading.available_bytes


def inodes_of(reading: Reading) -> tuple[int, int]:
    """The inodes that are used, and those that are available."""
    inodes = reading.inodes
    return (inodes.total - inodes.available, inodes.available) if inodes else (0, 0)


def fill_rate(
    readings: Sequence[Reading], level: Callable[[Reading], tuple[int, int]] = space_of
) -> float:
    """Bytes per second being used up: the fastest of a short, a middle and a long look back.

    The short one makes it quick, the long one remembers a peak over a pause, and one large step
    is none. Used space, not available space, is compared: a growth must not look like a delete.
    With another `level` than that of space, its units per second.
    """
    if not readings:
        return 0.0
    now = readings[-1]
    rates = [0.0]
    for window in FILL_RATE_WINDOWS_SECONDS:
        since = next(r for r in readings if now.taken_at_seconds - r.taken_at_seconds <= window)
        elapsed = now.taken_at_seconds - since.taken_at_seconds
        used = _used_up(readings, since.taken_at_seconds, level)
        shortest = window == FILL_RATE_WINDOWS_SECONDS[0]
        if shortest and used < EVIDENCE_SHARE * level(now)[1]:
            continue
        # Under half a window one write-back burst would pass for a trend.
        if elapsed >= window / 2:
            rates.append(used / elapsed)
    return max(rates)


def _used_up(
    readings: Sequence[Reading], since_seconds: float, level: Callable[[Reading], tuple[int, int]]
) -> float:
    """What was used up since a moment, deletes deducted and one step alone left out."""
    inside = [level(each)[0] for each in readings if each.taken_at_seconds >= since_seconds]
    steps = sorted(later - earlier for earlier, later in pairwise(inside))
    if not steps:
        return 0.0
    second = max(steps[-2], 0) if len(steps) > 1 else 0
    return inside[-1] - inside[0] - max(0, steps[-1] - LARGEST_STEP_MAX * second)


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
