"""A growth as its own process: the loop cannot be blocked, a hang has a hard end."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ebs_autoscale.clock import Clock
from ebs_autoscale.daemon.metadata import InstanceMetadata
from ebs_autoscale.errors import Cause, Problem, Unfit
from ebs_autoscale.host.command import OURSELVES
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.process import prefer_as_victim, uninterruptible_wait
from ebs_autoscale.model import Identity, RoleCredentials, StepKind
from ebs_autoscale.policy import Forecast
from ebs_autoscale.telemetry import Event, EventKind, Level
from ebs_autoscale.units import counted, format_duration

# Every wait in a growth, except for a balance, has a timeout far below this.
SILENT_TOO_LONG_SECONDS = 900.0

# From here on a growth that waits in the kernel is told; a device is added in seconds.
STUCK_AFTER_SECONDS = 60.0
STUCK_LOOK_EVERY_SECONDS = 5.0

# One EC2 call with its retries may run this long before the growth hears of the stop.
STOP_PATIENCE_SECONDS = 60.0
KILL_PATIENCE_SECONDS = 5.0

# What a growth prints is a traceback, whose end says most.
_PRINTED_MAX_BYTES = 4000

_ENDINGS = frozenset(
    {
        EventKind.GROWTH_DONE,
        EventKind.GROWTH_REFUSED,
        EventKind.GROWTH_FAILED,
        EventKind.GROWTH_STOPPED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthRequest:
    """What the daemon asks a growth process for: one JSON document on its stdin.

    `config_text` is the configuration that the daemon was started with or has accepted since:
    what is at its path may be half-written by now, or have been refused. `events_fd` is
    where events go, `lock_fd` the growth lock; both are inherited. `identity` and `credentials` are
    those of the instance, as far as they are known.
    """

    config_text: str
    forecast: Forecast
    events_fd: int
    lock_fd: int
    identity: Identity | None = None
    credentials: RoleCredentials | None = None

    def as_file(self) -> BinaryIO:
        """The document, in a file that exists only in memory."""
        file = os.fdopen(os.memfd_create("growth-request.json"), "w+b")
        file.write(json.dumps(asdict(self)).encode())
        file.seek(0)
        return file

    @classmethod
    def read(cls, file: BinaryIO) -> "GrowthRequest":
        """The request in a file; raises ValueError, KeyError or TypeError for anything else."""
        try:
            document = json.loads(file.read())
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        document["forecast"] = Forecast(**document["forecast"])
        if known := document.get("identity"):
            document["identity"] = Identity(**known)
        if known := document.get("credentials"):
            document["credentials"] = RoleCredentials(**known)
        return cls(**document)


class EventPipe:
    """A growth's end of the pipe: never waits for the daemon, which may stand still.

    What the daemon does not take is dropped and counted, and it is told so as soon as it reads.
    """

    def __init__(self, fd: int) -> None:
        # The tools that a growth runs must not inherit it.
        os.set_inheritable(fd, False)  # noqa: FBT003 -- the standard library's signature
        os.set_blocking(fd, False)
        self._fd = fd
        self._cut = b""
        self._dropped = 0

    def __call__(self, event: Event) -> None:
        """Send it, or count it."""
        if self._dropped:
            events = counted(self._dropped, "event was", "events were")
            sentence = f"{events} dropped because the daemon did not read them"
            if self._send(Event(kind=EventKind.WARNING, sentence=sentence, level=Level.WARNING)):
                self._dropped = 0
        if not self._send(event):
            self._dropped += 1

    def _send(self, event: Event) -> bool:
        line = self._cut + event.to_json().encode() + b"\n"
        try:
            count = os.write(self._fd, line)
        except BlockingIOError:
            return False
        except BrokenPipeError:
            # The daemon is gone; the next one finds what this growth has done.
            return True
        self._cut = line[count:]
        return True


class GrowthProcess:
    """Runs `ebs-autoscale grow` beside the loop and passes on its events.

    The growth lock is taken here and inherited: it lasts as long as the growth does,
    even when this process is killed. `config_text` is the configuration of the next growth.
    """

    def __init__(
        self,
        *,
        config_path: Path,
        config_text: str,
        lock_path: Path,
        clock: Clock,
        metadata: InstanceMetadata,
    ) -> None:
        self._config_path = config_path
        self.config_text = config_text
        self._lock_path = lock_path
        self._metadata = metadata
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._unread = b""
        self._heard_at_seconds = 0.0
        self._stopped_at_seconds: float | None = None
        self._ended = False
        self._looked_at_seconds = 0.0
        self._printed: BinaryIO | None = None
        self.step: StepKind | None = None
        self.stuck: Problem | None = None

    @property
    def running(self) -> bool:
        """Whether a growth has begun whose end has not been told yet."""
        return self._process is not None

    def start(self, forecast: Forecast) -> None:
        """Begin a growth if one is needed; raises LockHeld while another process grows."""
        with Lock(self._lock_path) as lock:
            self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            request = GrowthRequest(
                config_text=self.config_text,
                forecast=forecast,
                events_fd=write_end,
                lock_fd=lock.fileno(),
                identity=self._metadata.identity,
                credentials=self._metadata.credentials,
            )
            try:
                # In memory, so that nobody has to read it for the growth to go on.
                self._printed = os.fdopen(os.memfd_create("growth-stderr"), "r+b")
                with request.as_file() as document:
                    self._process = subprocess.Popen(
                        [*OURSELVES, "--config", str(self._config_path), "grow", "--request"],
                        stdin=document,
                        stderr=self._printed,
                        pass_fds=(request.events_fd, request.lock_fd),
                    )
            except OSError as error:
                os.close(self._pipe)
                raise Unfit(f"cannot start a growth: {error}", cause=Cause.PROCESS) from error
            finally:
                os.close(write_end)
        # At once: by the time that it could say so itself, it has used memory.
        prefer_as_victim(self._process.pid)
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
            self._look_whether_stuck(self._process)
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
            # In vain while it waits in the kernel. It keeps the lock; the next daemon reports that.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_PATIENCE_SECONDS)
        events = self.events()
        if self._process:
            sentence = f"the growth (pid {self._process.pid}) waits in the kernel: left behind"
            hint = "it keeps the lock; see `dmesg`"
            events.append(
                Event(
                    kind=EventKind.WARNING,
                    sentence=sentence,
                    hint=hint,
                    level=Level.ERROR,
                    cause=Cause.STUCK,
                )
            )
        return events

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
        events = []
        for line in lines:
            # Of another version of the program, for example: it costs this line.
            with suppress(ValueError):
                events.append(Event.from_json(line.decode()))
        for event in events:
            self._heard_at_seconds = self._clock.now_seconds()
            self._ended = has_ended(event, before=self._ended)
            if event.kind is EventKind.STEP_STARTED and isinstance(event.step, StepKind):
                self.step = event.step
        return events

    def _bury(self, process: subprocess.Popen[bytes]) -> list[Event]:
        os.close(self._pipe)
        self._process = None
        self.step = self.stuck = None
        told = self._tell_printed()
        if self._ended or process.returncode == 0:
            return told
        if self._stopped_at_seconds is not None:
            kind, level, how = EventKind.GROWTH_STOPPED, Level.INFO, "was stopped"
        else:
            kind, level = EventKind.GROWTH_FAILED, Level.ERROR
            how = _how_it_ended(process.returncode)
        return [
            *told,
            Event(
                kind=kind,
                sentence=f"the growth {how}",
                level=level,
                cause=Cause.DIED,
                status=process.returncode,
            ),
        ]

    def _tell_printed(self) -> list[Event]:
        """What the growth has written to stderr, as an event."""
        if self._printed is None:
            return []
        with self._printed as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _PRINTED_MAX_BYTES))
            text = file.read().decode(errors="backslashreplace").strip()
        self._printed = None
        if not text:
            return []
        sentence = f"the growth printed: {text}"
        return [Event(kind=EventKind.WARNING, sentence=sentence, level=Level.WARNING)]

    def _end_hang(self, process: subprocess.Popen[bytes]) -> None:
        now = self._clock.now_seconds()
        stopped = self._stopped_at_seconds
        if stopped is not None and now - stopped > STOP_PATIENCE_SECONDS:
            process.kill()
        elif self.step is StepKind.BALANCE_METADATA:
            return
        elif now - self._heard_at_seconds > SILENT_TOO_LONG_SECONDS:
            self.stop()

    def _look_whether_stuck(self, process: subprocess.Popen[bytes]) -> None:
        """Find out why a silent growth does not go on; a balance may wait for long."""
        now = self._clock.now_seconds()
        silent_seconds = now - self._heard_at_seconds
        is_balancing = self.step is StepKind.BALANCE_METADATA and self._stopped_at_seconds is None
        if silent_seconds < STUCK_AFTER_SECONDS or is_balancing:
            self.stuck = None
            return
        if now - self._looked_at_seconds < STUCK_LOOK_EVERY_SECONDS:
            return
        self._looked_at_seconds = now
        where = uninterruptible_wait(process.pid)
        silent = format_duration(round(silent_seconds))
        self.stuck = None
        if where:
            self.stuck = Problem(
                Cause.STUCK,
                f"the growth (pid {process.pid}) has been silent for {silent}: {where} waits in "
                "the kernel (state D), where no signal ends it; no other growth can start",
                "see `dmesg`; if the filesystem was frozen, run `fsfreeze --unfreeze` on it; if a "
                "volume does not respond, see its status in EC2; a reboot ends the wait",
            )


def _how_it_ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed; if the host ran out of memory, `journalctl -k -g oom` says so"
    if status < 0:
        return f"was ended by signal {-status}"
    return f"exited with status {status}"


def has_ended(event: Event, *, before: bool) -> bool:
    """Whether the growth has told its end; what it does about the reserve may follow that."""
    if event.kind in _ENDINGS:
        return True
    return before and event.kind is not EventKind.STEP_STARTED
