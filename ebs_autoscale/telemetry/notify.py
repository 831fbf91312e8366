"""notify.command: a command of the operator that gets each event; what it does delays nobody."""

import logging
import socket

from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.host.command import feed
from ebs_autoscale.host.process import NOT_EXECUTABLE, NOT_FOUND, TIMED_OUT
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.telemetry.logs import JsonFormatter
from ebs_autoscale.telemetry.outbox import Outbox

TIMEOUT_SECONDS = 30.0

_HOW_IT_ENDED = {
    TIMED_OUT: f"it took more than {TIMEOUT_SECONDS:.0f} s",
    NOT_EXECUTABLE: "it is not executable, or has no #! line",
    NOT_FOUND: "there is no such command",
}


class NotifyCommand:
    """A sink that runs a command for each event at level info or above, one at a time.

    The event is one JSON object on its stdin. `dropped` counts the events that were too many at a
    time, or for which the command failed. The end of the process waits a second for what waits.
    """

    def __init__(self, mountpoint: str) -> None:
        self._command: tuple[str, ...] = ()
        # One for all commands: a reload too has one run at a time, and the end one wait.
        self._outbox = Outbox(self._run, tell_dropped=lambda _: None)
        common = {"host": socket.gethostname(), "mountpoint": mountpoint}
        self._outbox.setFormatter(JsonFormatter(common))
        self._failure = ""
        self._is_told = False

    @property
    def dropped(self) -> int:
        """How many events the command has not got, or not taken."""
        return self._outbox.dropped

    def follow(self, command: tuple[str, ...]) -> None:
        """Run this command from now on, none if it is empty, also for what waits."""
        self._failure, self._is_told = "", False
        self._command = command

    def __call__(self, event: Event) -> None:
        """Have the command run for this event."""
        # Its own failure is no reason to run it again.
        if self._command and event.level is not Level.DEBUG and event.cause is not Cause.NOTIFY:
            record = {"event": event, "levelname": event.level.name}
            self._outbox.emit(logging.makeLogRecord(record))

    def take_warning(self) -> Event | None:
        """The first failure since the start or a reload, once: the rest is only counted."""
        if self._is_told or not self._failure:
            return None
        self._is_told = True
        return Event(
            kind=EventKind.WARNING,
            sentence=f"notify.command failed: {self._failure}",
            hint="run it by hand with an event on its stdin; from now on failures are only counted",
            level=Level.WARNING,
            cause=Cause.NOTIFY,
        )

    def _run(self, line: bytes) -> None:
        """Runs in the thread of the outbox; an error counts as dropped."""
        command = self._command
        if not command:
            return
        try:
            status = feed(command, line, timeout_seconds=TIMEOUT_SECONDS)
        except EbsAutoscaleError as error:
            self._note(command, error.what)
            raise
        if status:
            how = _HOW_IT_ENDED.get(status, f"exit status {status}")
            self._note(command, f"`{command[0]}`: {how}")
            raise ChildProcessError(how)

    def _note(self, command: tuple[str, ...], failure: str) -> None:
        # What a command does that has been replaced meanwhile is no news of the present one.
        if command == self._command:
            self._failure = self._failure or failure
