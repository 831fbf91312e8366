"""What the loop has learned by looking: the last readings, and the forecast made of them."""

from collections import deque
from dataclasses import replace

from ebs_autoscale.model import Reading
from ebs_autoscale.policy.shortage import (
    FILL_RATE_WINDOWS_SECONDS,
    Forecast,
    fill_rate,
    sustained_rate,
)


class Experience:
    """Readings of the longest window, and what a growth takes here; starts from the prior."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self.forecast = Forecast()

    def add(self, reading: Reading) -> None:
        """Take the newest reading into account."""
        self._readings.append(reading)
        oldest = reading.taken_at_seconds - max(FILL_RATE_WINDOWS_SECONDS)
        self.forget_before(oldest)
        self.forecast = Forecast(
            fill_bytes_per_second=fill_rate(self._readings),
            sustained_bytes_per_second=sustained_rate(self._readings),
            growth_seconds=self.forecast.growth_seconds,
            used_bytes=reading.used_bytes,
        )

    def learn_growth(self, seconds: float) -> None:
        """A growth took so long; one quick one is no promise, so it counts by half."""
        learned = max(seconds, (self.forecast.growth_seconds + seconds) / 2)
        self.forecast = replace(self.forecast, growth_seconds=learned)

    def forget_before(self, seconds: float) -> None:
        """Leave out what was read before this moment."""
        while self._readings and self._readings[0].taken_at_seconds < seconds:
            self._readings.popleft()

    def forget_readings(self) -> None:
        """What was read is of no use any more; what growths took is."""
        self._readings.clear()
