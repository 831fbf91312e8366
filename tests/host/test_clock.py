"""The machine's clock: waits that a signal ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Stopped


@contextmanager
def own_signals() -> Iterator[None]:
    """Restore the handling of signals afterwards."""
    handler = signal.getsignal(signal.SIGUSR1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, handler)


def test_a_wait_lasts_as_long_as_asked() -> None:
    """Without a signal a wait lasts as long as asked for."""
    clock = SystemClock()
    began = clock.now_seconds()
    clock.sleep(0.05)
    assert 0.05 <= clock.now_seconds() - began < 5


def test_a_signal_ends_a_wait_at_once() -> None:
    """A stop during a wait raises Stopped at once."""
    with own_signals():
        clock = SystemClock()
        clock.stop_on(signal.SIGUSR1)
        began = clock.now_seconds()
        ready = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        ready.start()
        with pytest.raises(Stopped):
            clock.sleep(600)
        ready.join()
        assert clock.now_seconds() - began < 60
        assert clock.stopping


@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_a_stop_before_a_wait_is_not_lost(seconds: float) -> None:
    """A stop before a wait ends that wait, even one of no length."""
    with own_signals():
        clock = SystemClock()
        clock.stop_on(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(2):
            with pytest.raises(Stopped):
                clock.sleep(seconds)


def test_other_signals_do_not_shorten_a_wait() -> None:
    """Signals such as SIGCHLD and SIGWINCH do not end a wait."""
    with own_signals():
        clock = SystemClock()
        clock.stop_on(signal.SIGUSR1)
        began = clock.now_seconds()
        noise = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGWINCH))
        noise.start()
        clock.sleep(0.1)
        noise.join()
        assert clock.now_seconds() - began >= 0.1


def test_a_flood_of_signals_stops_too() -> None:
    """More signals than fit into the pipe request a stop, too."""
    program = (
        "import os, signal\n"
        "from ebs_autoscale.clock import SystemClock\n"
        "from ebs_autoscale.errors import Stopped\n"
        "clock = SystemClock()\n"
        "clock.stop_on(signal.SIGTERM)\n"
        "for _ in range(70000):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "try:\n"
        "    clock.sleep(600)\n"
        "except Stopped:\n"
        "    print('stopped')\n"
    )
    argv = [sys.executable, "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_jitter_is_spread() -> None:
    """Jitter is between 0 and 1, and differs."""
    clock = SystemClock()
    draws = {clock.jitter() for _ in range(20)}
    assert len(draws) > 1
    assert all(0 <= draw < 1 for draw in draws)


def test_wall_time_is_the_epochs() -> None:
    """Wall time counts from 1970."""
    assert SystemClock().wall_seconds() > 1_700_000_000


def test_time_since_boot() -> None:
    """The time since the boot is that of /proc/uptime."""
    before = float(Path("/proc/uptime").read_text("ascii").split()[0])
    assert before <= SystemClock().since_boot_seconds() <= before + 60
