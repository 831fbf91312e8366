"""How fast the filesystem fills, from the latest readings, and how long a growth takes here."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ebs_autoscale.model import Reading

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


class FillHistory:
    """The readings of the longest window, and what a growth takes here; starts from the prior."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self.forecast = Forecast()

    def add(self, reading: Reading) -> None:
        """Take the newest reading into account."""
        self._readings.append(reading)
        self.forget_before(reading.taken_at_seconds - max(FILL_RATE_WINDOWS_SECONDS))
        self.forecast = Forecast(
            fill_bytes_per_second=fill_rate(self._readings),
            sustained_bytes_per_second=sustained_rate(self._readings),
            growth_seconds=self.forecast.growth_seconds,
            used_bytes=reading.used_bytes,
        )

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
