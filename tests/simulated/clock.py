"""Time that only waiting moves, and every moment at which a process can fail, stop or die."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from ebs_autoscale.errors import EbsAutoscaleError, Stopped


class Killed(BaseException):
    """The process died here: no handler sees it, as with SIGKILL."""


class SimulatedClock:
    """Time that passes only by waiting; a stop comes at a time, or instead of a later sleep."""

    def __init__(self) -> None:
        self.stopping = False
        self.stop_at_seconds = inf
        self.sleeps_left = inf
        self.slept = 0
        self._now_seconds = 1000.0
        self.booted_at_seconds = -inf

    def now_seconds(self) -> float:
        """Seconds since nothing in particular."""
        return self._now_seconds

    def wall_seconds(self) -> float:
        """The same, as if it were the epoch's."""
        return self._now_seconds

    def since_boot_seconds(self) -> float:
        """For ever, unless a test says when it booted."""
        return self._now_seconds - self.booted_at_seconds

    def sleep(self, seconds: float) -> None:
        """Pass at once, or raise Stopped when the stop falls into it."""
        self.slept += 1
        self.sleeps_left -= 1
        self.stopping = self.stopping or self.sleeps_left < 0
        if not self.stopping:
            self._now_seconds = min(self._now_seconds + seconds, self.stop_at_seconds)
            self.stopping = self._now_seconds >= self.stop_at_seconds
        if self.stopping:
            raise Stopped

    def jitter(self) -> float:
        """The longest wait there is."""
        return 1.0

    def start_again(self) -> None:
        """Forget the stop: a new process begins."""
        self.stopping = False
        self.stop_at_seconds = self.sleeps_left = inf


@dataclass(slots=True, kw_only=True)
class Fault:
    """A call that goes wrong, so many times; an answer that is lost had its effect before."""

    call: str
    error: EbsAutoscaleError
    answer_lost: bool = False
    times: float = 1


class Boundaries:
    """Each call has a boundary before and one after its effect; a process can die at any."""

    def __init__(self) -> None:
        self.passed = 0
        self.kill_at = inf
        self.faults: list[Fault] = []
        self.calls: Counter[str] = Counter()

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Count a call, and let it fail if that was asked for."""
        self.calls[name] += 1
        fault = next((f for f in self.faults if f.call == name and f.times > 0), None)
        if fault:
            fault.times -= 1
        self._pass()
        if fault and not fault.answer_lost:
            raise fault.error
        yield
        self._pass()
        if fault:
            raise fault.error

    def _pass(self) -> None:
        self.passed += 1
        if self.passed > self.kill_at:
            raise Killed
