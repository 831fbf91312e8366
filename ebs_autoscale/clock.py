"""Time, randomness and requests to stop, as one port; the only module that imports `time`."""

import os
import random
import select
import signal
import time
from types import FrameType
from typing import Protocol

from ebs_autoscale.errors import Stopped


class Clock(Protocol):
    """The clock as the rest of the program sees it."""

    @property
    def stopping(self) -> bool:
        """Whether this process was asked to end."""
        ...

    def now_seconds(self) -> float:
        """Monotonic time; only differences have a meaning."""
        ...

    def wall_seconds(self) -> float:
        """Time since the epoch."""
        ...

    def since_boot_seconds(self) -> float:
        """The time since the host has booted."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; raises `Stopped` as soon as a stop is requested."""
        ...

    def jitter(self) -> float:
        """A uniform random number in [0, 1)."""
        ...


class SystemClock:
    """The clock of this host; signals passed to `stop_on` end a wait at once."""

    def __init__(self) -> None:
        self.stopping = False
        self._woken = False
        # The end of a pipe that a signal makes readable, so that it ends a wait; see `stop_on`.
        self._wakeup: tuple[int, ...] = ()

    def stop_on(self, *signals: signal.Signals) -> None:
        """Make these signals only set `stopping`; to be called from the main thread."""
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = (read_end,)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, self._stop)

    def wake_on(self, number: signal.Signals) -> None:
        """Make this signal end a wait and count as a wake-up; to be called after `stop_on`."""
        signal.signal(number, self._wake)

    def take_wake_up(self) -> bool:
        """Clear the wake-up; returns whether its signal has come since the last call."""
        woken, self._woken = self._woken, False
        return woken

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        self._woken = True

    def now_seconds(self) -> float:
        """Monotonic time; only differences have a meaning."""
        return time.monotonic()

    def wall_seconds(self) -> float:
        """Time since the epoch."""
        return time.time()

    def since_boot_seconds(self) -> float:
        """The time since the host has booted, also in a container."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait until then or a wake-up; raises `Stopped` as soon as a stop is requested."""
        deadline = time.monotonic() + seconds
        while not self._is_due and (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select(self._wakeup, [], [], left)
            if readable:
                os.read(readable[0], 512)
        if self.stopping:
            raise Stopped

    @property
    def _is_due(self) -> bool:
        return self.stopping or self._woken

    def jitter(self) -> float:
        """A uniform random number in [0, 1)."""
        return random.random()  # noqa: S311 -- spreads retries, no secret
