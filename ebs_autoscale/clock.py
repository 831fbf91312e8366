"""Time, chance and the wish to stop, as one port; the only home of `time`."""

import os
import random
import select
import signal
import time
from types import FrameType
from typing import Protocol

from ebs_autoscale.errors import Stopped


class Clock(Protocol):
    """What the core knows of time. `sleep` raises `Stopped` as soon as a stop is requested."""

    @property
    def stopping(self) -> bool:
        """Whether somebody asked this process to end."""
        ...

    def now_seconds(self) -> float:
        """Monotonic time; differences only."""
        ...

    def wall_seconds(self) -> float:
        """Time since the epoch."""
        ...

    def since_boot_seconds(self) -> float:
        """How long this host has been up."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait that long, or raise `Stopped` at once when a stop is requested."""
        ...

    def jitter(self) -> float:
        """A uniform random number in [0, 1)."""
        ...


class SystemClock:
    """The machine's clock; signals given to `stop_on` end its waits at once."""

    def __init__(self) -> None:
        self.stopping = False
        self._asked = False
        # What a signal writes to, so that it ends a wait; nothing before `stop_on`.
        self._wakeup: tuple[int, ...] = ()

    def stop_on(self, *signals: signal.Signals) -> None:
        """From now on these signals only set `stopping`; call it from the main thread."""
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = (read_end,)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, self._stop)

    def wake_on(self, number: signal.Signals) -> None:
        """From now on this signal ends a wait, and is there for `was_asked`; after `stop_on`."""
        signal.signal(number, self._ask)

    def was_asked(self) -> bool:
        """Whether the signal of `wake_on` has come since the last call."""
        asked, self._asked = self._asked, False
        return asked

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def now_seconds(self) -> float:
        """Monotonic time; differences only."""
        return time.monotonic()

    def wall_seconds(self) -> float:
        """Time since the epoch."""
        return time.time()

    def since_boot_seconds(self) -> float:
        """How long this host has been up; a container has its host's."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait that long, or until woken; raise `Stopped` at once when a stop is requested."""
        deadline = time.monotonic() + seconds
        while not self._is_due and (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select(self._wakeup, [], [], left)
            if readable:
                os.read(readable[0], 512)
        if self.stopping:
            raise Stopped

    @property
    def _is_due(self) -> bool:
        return self.stopping or self._asked

    def jitter(self) -> float:
        """A uniform random number in [0, 1)."""
        return random.random()  # noqa: S311 -- spreads retries, guards nothing
