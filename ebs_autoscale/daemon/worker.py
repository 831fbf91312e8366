"""A growth as its own process: the loop cannot be blocked, a hang has a hard end."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.model import StepKind
from ebs_autoscale.policy import Forecast
from ebs_autoscale.telemetry import Event, EventKind, Level

# Every wait in a growth, except for a balance, has a timeout far below this.
SILENT_TOO_LONG_SECONDS = 900.0

# One EC2 call with its retries may run this long before the growth hears of the stop.
STOP_PATIENCE_SECONDS = 60.0

_ENDINGS = frozenset(
    {
        EventKind.GROWTH_DONE,
        EventKind.GROWTH_REFUSED,
        EventKind.GROWTH_FAILED,
        EventKind.GROWTH_STOPPED,
    }
)


# Without what is in the environment or the working directory (-I).
OURSELVES = (sys.executable, "-I", "-m", "ebs_autoscale")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthRequest:
    """What the daemon asks a growth process for: one JSON document on its stdin.

    `config_text` is the configuration that the daemon was started with or has accepted since:
    what is at its path may be half-written by now, or have been refused. `events_fd` is
    where events go, `lock_fd` the growth lock; both are inherited.
    """

    config_text: str
    forecast: Forecast
    events_fd: int
    lock_fd: int

    def as_file(self) -> BinaryIO:
        """The document, in a file that exists only in memory."""
        file = os.fdopen(os.memfd_create("growth-request.json"), "w+b")
        file.write(json.dumps(asdict(self)).encode())
        file.seek(0)
        return file

    @classmethod
    def read(cls, file: BinaryIO) -> "GrowthRequest":
        """The request in a file; raises ValueError, KeyError or TypeError for anything else."""
        document = json.loads(file.read())
        return cls(**{**document, "forecast": Forecast(**document["forecast"])})


class GrowthProcess:
    """Runs `ebs-autoscale grow` beside the loop and passes on its events.

    The growth lock is taken here and inherited: it lasts as long as the growth does,
    even when this process is killed. `config_text` is the configuration of the next growth.
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
        self.step: StepKind | None = None

    @property
    def running(self) -> bool:
        """Whether a growth has begun whose end has not been told yet."""
        return self._process is not None

    def start(self, forecast: Forecast) -> None:
        """Begin a growth if one is needed; raises LockHeld while another process grows."""
        with Lock(self._lock_path) as lock:
            self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(write_end, True)
            request = GrowthRequest(
                config_text=self.config_text,
                forecast=forecast,
                events_fd=write_end,
                lock_fd=lock.fileno(),
            )
            try:
                with request.as_file() as document:
                    self._process = subprocess.Popen(
                        [*OURSELVES, "--config", str(self._config_path), "grow", "--request"],
                        stdin=document,
                        pass_fds=(request.events_fd, request.lock_fd),
                    )
            except OSError as error:
                os.close(self._pipe)
                raise Unfit(f"cannot start a growth: {error}", cause=Cause.PROCESS) from error
            finally:
                os.close(write_end)
        self._heard_at_seconds = self._clock.now_seconds()
        self._stopped_at_seconds = None
        self._ended = False
        self._unread = b""

    def events(self) -> list[Event]:
        """The events since the last call; if the process died, with one that reports it."""
        if self._process is None:
            return []
        events = self._read()
        if self._process.poll() is not None:
            events += [*self._read(), *self._bury(self._process)]
        else:
            self._end_hang(self._process)
        return events

    def stop(self) -> None:
        """Ask the growth to end at its next safe point; the next one resumes it."""
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
            self._ended = has_ended(event, before=self._ended)
            if event.kind is EventKind.STEP_STARTED and isinstance(event.step, StepKind):
                self.step = event.step
        return events

    def _bury(self, process: subprocess.Popen[bytes]) -> list[Event]:
        os.close(self._pipe)
        self._process = None
        self.step = None
        if self._ended or process.returncode == 0:
            return []
        if self._stopped_at_seconds is not None:
            kind, level, how = EventKind.GROWTH_STOPPED, Level.INFO, "was stopped"
        else:
            kind, level = EventKind.GROWTH_FAILED, Level.ERROR
            how = f"exited with status {process.returncode}; see its messages above"
        return [
            Event(
                kind=kind,
                sentence=f"the growth {how}",
                level=level,
                cause=Cause.DIED,
                status=process.returncode,
            )
        ]

    def _end_hang(self, process: subprocess.Popen[bytes]) -> None:
        now = self._clock.now_seconds()
        stopped = self._stopped_at_seconds
        if stopped is not None and now - stopped > STOP_PATIENCE_SECONDS:
            process.kill()
        elif self.step is StepKind.BALANCE_METADATA:
            return
        elif now - self._heard_at_seconds > SILENT_TOO_LONG_SECONDS:
            self.stop()


def has_ended(event: Event, *, before: bool) -> bool:
    """Whether the growth has told its end; what it does about the reserve may follow that."""
    if event.kind in _ENDINGS:
        return True
    return before and event.kind is not EventKind.STEP_STARTED
