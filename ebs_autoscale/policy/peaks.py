"""How high usage rises before it comes back down: jobs that write and delete in turns. Pure."""

from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

from ebs_autoscale.model import Reading

# A rise is over once so much of it is gone again. Less is what any writer deletes beside its work.
FALL_SHARE = 1 / 2

# A rise that used less of the available space than this is no peak: it would bring no growth.
RISE_SHARE = 1 / 20

# The next rise may exceed the highest one by so much of its height and still be one of them.
MARGIN_SHARE = 1 / 2

# Enough for a job that spills every few minutes; the first spill of the next job is a new one.
REMEMBERED_SECONDS = 900.0
REMEMBERED_MAX = 8


class Ceiling(NamedTuple):
    """What usage is expected to stay below, if anything, and how fast that rises with the peaks."""

    used_bytes: int | None
    bytes_per_second: float


NO_CEILING = Ceiling(None, 0.0)


class _Peak(NamedTuple):
    at_seconds: float
    top_bytes: int
    ceiling_bytes: int


@dataclass(frozen=True, slots=True)
class _Rise:
    """A rise that has not come back down; `is_long` is whether it goes on for over a lead time."""

    began_at_seconds: float
    foot_bytes: int
    top_bytes: int
    top_at_seconds: float
    is_long: bool = False

    @property
    def height_bytes(self) -> int:
        return self.top_bytes - self.foot_bytes


class Peaks:
    """The latest rises that came back down within a lead time, found in one pass over the readings.

    A longer one says nothing about what will happen within a lead time.
    """

    def __init__(self) -> None:
        self._peaks: deque[_Peak] = deque(maxlen=REMEMBERED_MAX)
        self._rise: _Rise | None = None

    def add(self, reading: Reading, lead_seconds: float) -> None:
        """Take the newest reading into account."""
        used, now = reading.used_bytes, reading.taken_at_seconds
        rise = self._rise or _Rise(now, used, used, now)
        if used > rise.top_bytes:
            rise = replace(rise, top_bytes=used, top_at_seconds=now)
        matters = rise.height_bytes >= RISE_SHARE * reading.available_bytes
        is_over = used <= rise.top_bytes - FALL_SHARE * rise.height_bytes
        if is_over and matters and not rise.is_long:
            margin = int(MARGIN_SHARE * rise.height_bytes)
            peak = _Peak(rise.top_at_seconds, rise.top_bytes, rise.top_bytes + margin)
            self._peaks.append(peak)
        if is_over:
            rise = _Rise(now, used, used, now)
        elif now - rise.began_at_seconds > lead_seconds:
            rise = _Rise(now, used, used, now, is_long=matters)
        self._rise = rise

    def ceiling(self, now_seconds: float) -> Ceiling:
        """What usage is expected to stay below; nothing while it has not come back down."""
        while self._peaks and now_seconds - self._peaks[0].at_seconds > REMEMBERED_SECONDS:
            self._peaks.popleft()
        if not self._peaks:
            return NO_CEILING
        first, last = self._peaks[0], self._peaks[-1]
        rising = 0.0
        if last.top_bytes > first.top_bytes:
            rising = (last.top_bytes - first.top_bytes) / (last.at_seconds - first.at_seconds)
        highest = max(peak.ceiling_bytes for peak in self._peaks)
        return Ceiling(highest + int(rising * (now_seconds - last.at_seconds)), rising)
