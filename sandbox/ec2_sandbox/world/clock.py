"""Time of the sandbox: real time at a chosen speed, plus what was advanced by hand."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count


class SandboxClock:
    """Seconds since the sandbox began; speed 0 stands still until advanced.

    The one place of the sandbox where real time enters.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._epoch = datetime.now(UTC)
        self._began = time.monotonic()
        self._advanced_seconds = 0.0

    def seconds(self) -> float:
        """Seconds of the sandbox that passed since it began."""
        return (time.monotonic() - self._began) * self._speed + self._advanced_seconds

    def advance(self, seconds: float) -> None:
        """Let time jump forward; it never goes back."""
        self._advanced_seconds += max(0.0, seconds)

    def moment(self, seconds: float) -> datetime:
        """Name the date and time, in UTC, of a point on this clock."""
        return self._epoch + timedelta(seconds=seconds)

    def wall(self) -> datetime:
        """Real date and time in UTC, for what clients compare with their own clock."""
        return datetime.now(UTC)

    def real_seconds_until(self, seconds: float) -> float | None:
        """How long a real wait for that point lasts; None when it only comes by advancing."""
        left = max(0.0, seconds - self.seconds())
        if not left:
            return 0.0
        return left / self._speed if self._speed else None

    def pause(self, real_seconds: float) -> None:
        """Wait in real seconds, as a slow answer of a server does."""
        time.sleep(real_seconds)


class Timeline:
    """What is going to happen, in order of time; the world moves only in `run_due`.

    Not safe for threads: whoever holds the world's lock owns it.
    """

    def __init__(self, clock: SandboxClock) -> None:
        self.clock = clock
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._replaying: float | None = None

    @property
    def now(self) -> float:
        """The present; while an event that fell due runs, the moment at which it was due."""
        return self.clock.seconds() if self._replaying is None else self._replaying

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let it happen that many seconds from now; events of one moment keep their order."""
        heappush(self._events, (self.now + max(0.0, seconds), next(self._order), event))

    def run_due(self) -> None:
        """Let everything happen that is due, including what follows from it."""
        present = self.clock.seconds()
        try:
            while self._events and self._events[0][0] <= present:
                self._replaying, _, event = heappop(self._events)
                event()
        finally:
            self._replaying = None

    def real_seconds_to_next(self) -> float | None:
        """How long a real wait for the next event lasts; None when nothing comes by itself."""
        return self.clock.real_seconds_until(self._events[0][0]) if self._events else None
