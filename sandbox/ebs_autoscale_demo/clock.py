"""Time and signals, in the main thread of the demo."""

import signal
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Raised in the main thread when a signal asks the demo to stop."""


def stop_on_signals() -> None:
    """From now on, SIGINT, SIGTERM and SIGHUP raise `Stopped` in the main thread, once."""
    for number in _SIGNALS:
        signal.signal(number, _stop)


def now_seconds() -> float:
    """Monotonic time, for differences."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Wait that long."""
    time.sleep(seconds)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the clean-up.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Stopped
