"""A configuration that is waited for."""

import signal
from pathlib import Path

import pytest

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.daemon.await_configuration import await_configuration
from ebs_autoscale.errors import Stopped
from ebs_autoscale.host.sd_notify import Notifier


class ShortClock(SystemClock):
    """Notes for each sleep whether a wake-up would have ended it, and stops at the third."""

    def __init__(self) -> None:
        super().__init__()
        self.woken: list[bool] = []

    def sleep(self, seconds: float) -> None:
        """Look whether this sleep would last."""
        del seconds
        self.woken.append(self._woken)
        if len(self.woken) == 3:
            raise Stopped


def test_a_reload_does_not_end_every_sleep(tmp_path: Path) -> None:
    """SIGHUP while there is no valid configuration: one more look, not a look without a pause."""
    clock = ShortClock()
    before = signal.getsignal(signal.SIGHUP)
    clock.wake_on(signal.SIGHUP)
    try:
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Stopped):
            await_configuration(
                tmp_path / "none.yaml", clock=clock, notifier=Notifier({}), emit=lambda _: None
            )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert clock.woken == [False] * 3
