"""How long the loop leaves growths alone after one that brought no space, and why."""

from collections import Counter

from ebs_autoscale.clock import Clock
from ebs_autoscale.policy.backoff import retry_delay_seconds


class Waits:
    """One wait at a time, longer with each try that fails for the same cause."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._attempts: Counter[str] = Counter()
        self._until_seconds = float("-inf")
        self.cause = ""

    @property
    def left_seconds(self) -> float:
        """What is left of the wait; 0 when there is none."""
        return max(0.0, self._until_seconds - self._clock.now_seconds())

    def begin(self, cause: str) -> float:
        """Wait as the table says for this cause and so many tries; returns for how many seconds."""
        self._attempts[cause] += 1
        delay = retry_delay_seconds(
            cause, attempts=self._attempts[cause], jitter=self._clock.jitter()
        )
        self.pause(delay, cause)
        return delay

    def pause(self, seconds: float, cause: str) -> None:
        """Wait so long; no failure, and none is counted."""
        self._until_seconds, self.cause = self._clock.now_seconds() + seconds, cause

    def pass_over(self) -> None:
        """Wait no longer; how often each cause has failed is not forgotten."""
        self._until_seconds, self.cause = float("-inf"), ""

    def end(self) -> None:
        """Wait no longer, and count failures from the beginning."""
        self._attempts.clear()
        self.pass_over()
