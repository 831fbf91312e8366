"""A growth as its own process: the loop cannot be blocked, a hang has a hard end."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Unfit
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.policy.shortage import Forecast
from ebs_autoscale.telemetry.events import Event, EventKind, Level

# Every wait inside a growth has its own bound far below this, but for a balance.
SILENT_TOO_LONG_SECONDS = 900.0

# One EC2 call with its retries may run this long before the growth hears of the stop.
STOP_PATIENCE_SECONDS = 60.0

ENDINGS = frozenset(
    {
        EventKind.GROWTH_DONE,
        EventKind.GROWTH_REFUSED,
        EventKind.GROWTH_FAILED,
        EventKind.GROWTH_STOPPED,
        EventKind.DECIDED,
    }
)


class GrowthProcess:
    """Runs `ebs-autoscale grow` beside the loop and passes on its events.

    The growth lock is taken here and inherited: it lasts as long as the growth does,
    even when this process is killed. `config_text` is what the next growth goes by.
    """

    def __init__(
        self, *, config_path: Path, config_text: str, lock_path: Path, clock: Clock
    ) -> None:
        self._config_path = config_path
        self.config_text = config_text
        self._lock_path = lock_path
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._unread = b""
        self._heard_at_seconds = 0.0
        self._stopped_at_seconds: float | None = None
        self._ended = False
        self.step = ""

    @property
    def running(self) -> bool:
        """Whether a growth has begun whose end has not been told yet."""
        return self._process is not None

    @property
    def settling(self) -> bool:
        """Whether all that is left of the running growth is to settle metadata."""
        return self.step == "Settle"

    def start(self, forecast: Forecast) -> None:
        """Begin a growth if one is needed; raises LockHeld while somebody else grows."""
        with Lock(self._lock_path) as lock, self._config() as config:
            self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(write_end, True)
            try:
                self._process = subprocess.Popen(
                    self._argv(forecast, write_end, lock.fileno(), config.fileno()),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(write_end, lock.fileno(), config.fileno()),
                )
            except OSError as error:
                os.close(self._pipe)
                raise Unfit(f"cannot start a growth: {error}", cause="process") from error
            finally:
                os.close(write_end)
        self._heard_at_seconds = self._clock.now_seconds()
        self._stopped_at_seconds = None
        self._ended = False
        self._unread = b""

    def _config(self) -> BinaryIO:
        """The configuration that the daemon was started with or has accepted since, as a file.

        What is at its path may be half-written by now, or have been refused.
        """
        file = os.fdopen(os.memfd_create("config.yaml"), "w+b")
        file.write(self.config_text.encode())
        file.seek(0)
        return file

    def _argv(self, forecast: Forecast, events_fd: int, lock_fd: int, config_fd: int) -> list[str]:
        return [
            *(sys.executable, "-I", "-m", "ebs_autoscale"),
            *("--config", str(self._config_path)),
            "grow",
            "--if-needed",
            *("--events-fd", str(events_fd)),
            *("--lock-fd", str(lock_fd)),
            *("--config-fd", str(config_fd)),
            *("--fill-rate", str(forecast.fill_bytes_per_second)),
            *("--fill-trend", str(forecast.sustained_bytes_per_second)),
            *("--growth-seconds", str(forecast.growth_seconds)),
            *("--used-bytes", str(forecast.used_bytes)),
        ]

    def events(self) -> list[Event]:
        """What the growth said since the last call; the last word of a dead one is made up."""
        if self._process is None:
            return []
        events = self._read()
        if self._process.poll() is not None:
            events += [*self._read(), *self._bury(self._process)]
        else:
            self._end_hang(self._process)
        return events

    def stop(self) -> None:
        """Ask the growth to end at its next safe point; it is resumed by the next one."""
        if self._process and self._stopped_at_seconds is None:
            self._stopped_at_seconds = self._clock.now_seconds()
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> list[Event]:
        """Stop and wait, bounded; returns the last events."""
        if self._process is None:
            return []
        self.stop()
        try:
            self._process.wait(STOP_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return self.events()

    def _read(self) -> list[Event]:
        while True:
            try:
                chunk = os.read(self._pipe, 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        events = [Event.from_json(line.decode()) for line in lines]
        for event in events:
            self._heard_at_seconds = self._clock.now_seconds()
            self._ended = event.kind in ENDINGS and event.kind is not EventKind.DECIDED
            if event.kind is EventKind.STEP_STARTED:
                self.step = str(event.fields.get("step", ""))
        return events

    def _bury(self, process: subprocess.Popen[bytes]) -> list[Event]:
        os.close(self._pipe)
        self._process = None
        self.step = ""
        if self._ended or process.returncode == 0:
            return []
        if self._stopped_at_seconds is not None:
            kind, level, how = EventKind.GROWTH_STOPPED, Level.INFO, "was stopped"
        else:
            kind, level = EventKind.GROWTH_FAILED, Level.ERROR
            how = f"died with status {process.returncode}; its last words are above"
        fields = {"cause": "died", "status": process.returncode}
        return [Event(kind=kind, sentence=f"the growth {how}", level=level, fields=fields)]

    def _end_hang(self, process: subprocess.Popen[bytes]) -> None:
        now = self._clock.now_seconds()
        stopped = self._stopped_at_seconds
        if stopped is not None and now - stopped > STOP_PATIENCE_SECONDS:
            process.kill()
        elif not self.settling and now - self._heard_at_seconds > SILENT_TOO_LONG_SECONDS:
            self.stop()
