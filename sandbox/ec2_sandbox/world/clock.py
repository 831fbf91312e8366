"""The clock of the sandbox, and the events that are due at a point in time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count


class SandboxClock:
    """Real time at a chosen speed, plus what was advanced by hand; speed 0 stands still.

    This is the only place where real time enters the simulation.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._epoch = datetime.now(UTC)
        self._began = time.monotonic()
        self._advanced_seconds = 0.0

    def seconds(self) -> float:
        """Simulated seconds since the start of the sandbox."""
        return (time.monotonic() - self._began) * self._speed + self._advanced_seconds

    def advance(self, seconds: float) -> None:
        """Move the clock forward; it never goes back."""
        self._advanced_seconds += max(0.0, seconds)

    def moment(self, seconds: float) -> datetime:
        """The date and time, in UTC, of a point on this clock."""
        return self._epoch + timedelta(seconds=seconds)

    def wall(self) -> datetime:
        """The real date and time in UTC, for values that clients compare with their own clock."""
        return datetime.now(UTC)

    def real_seconds_until(self, seconds: float) -> float | None:
        """Real seconds until that point; None when only `advance` leads there."""
        left = max(0.0, seconds - self.seconds())
        if not left:
            return 0.0
        return left / self._speed if self._speed else None

    def pause(self, real_seconds: float) -> None:
        """Wait for real seconds, as a slow server would."""
        time.sleep(real_seconds)


class Timeline:
    """Future events in order of time; they happen only in `run_due`.

    Not thread-safe: protected by the lock of the world.
    """

    def __init__(self, clock: SandboxClock) -> None:
        self.clock = clock
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._replaying: float | None = None

    @property
    def now(self) -> float:
        """The present time; while an event runs, the time at which it was due."""
        return self.clock.seconds() if self._replaying is None else self._replaying

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Schedule an event that many seconds from now; simultaneous events keep their order."""
        heappush(self._events, (self.now + max(0.0, seconds), next(self._order), event))

    def run_due(self) -> None:
        """Run every event that is due, including those that they schedule."""
        present = self.clock.seconds()
        try:
            while self._events and self._events[0][0] <= present:
                self._replaying, _, event = heappop(self._events)
                event()
        finally:
            self._replaying = None

    def real_seconds_to_next(self) -> float | None:
        """Real seconds until the next event; None when none will come by itself."""
        return self.clock.real_seconds_until(self._events[0][0]) if self._events else None
