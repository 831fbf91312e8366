"""Events as log lines: the journal, text or JSON; a sink that fails is muted, never fatal."""

import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID, uuid5

from ebs_autoscale.telemetry.events import Event, EventKind, Level

LOGGER = logging.getLogger("ebs_autoscale")

_LOGGING_LEVELS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}

# Drawn once at random (`journalctl --new-id128`), to be kept for ever.
_MESSAGE_IDS = UUID("0f6c39c4-64c3-4c7e-9d0d-1f8f5f1d2b7a")

JOURNAL_SOCKET = "/run/systemd/journal/socket"

# A journal that is alive takes a line in microseconds; for one that hangs the loop does not wait.
JOURNAL_PATIENCE_SECONDS = 0.2


class LogSink:
    """Hand each event to `logging`: its line, with the event itself for structured formats."""

    def __call__(self, event: Event) -> None:
        """Log it at its own level."""
        LOGGER.log(
            _LOGGING_LEVELS[event.level],
            "%s",
            event.line,
            extra={"event": event},
            exc_info=event.kind is EventKind.BUG,
        )


class TextFormatter(logging.Formatter):
    """The line a person reads, with the time before it and `key=value ...` after it if asked."""

    def __init__(self, *, timed: bool = False, fields: bool = True) -> None:
        super().__init__()
        self._timed = timed
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, which only a bug has, follows on its own lines."""
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z ") if self._timed else ""
        line = time + record.getMessage() + (fields_of(record) if self._fields else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The event's own fields, or a plain record."""
        event: Event | None = getattr(record, "event", None)
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": event.sentence if event else record.getMessage(),
            "event": event.kind.value if event else "log",
            **({"hint": event.hint} if event and event.hint else {}),
            **(event.fields if event else {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class JournalHandler(logging.Handler):
    """journald's native protocol: the line as MESSAGE, and each field under its own name."""

    def __init__(self, address: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(JOURNAL_PATIENCE_SECONDS)
        self._socket.connect(address)
        self.setFormatter(TextFormatter(fields=False))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry; a full journal loses the line, not the daemon."""
        event: Event | None = getattr(record, "event", None)
        priorities = {level: number.value for number, level in _LOGGING_LEVELS.items()}
        entry: dict[str, object] = {
            "MESSAGE": self.format(record),
            "PRIORITY": priorities.get(record.levelno, Level.INFO.value),
            "SYSLOG_IDENTIFIER": "ebs-autoscale",
        }
        if event:
            entry["EBS_AUTOSCALE_EVENT"] = event.kind.value
            entry["MESSAGE_ID"] = message_id(event.kind)
            if event.hint:
                entry["HINT"] = event.hint
            for key, value in event.fields.items():
                name = {"volume": "VOLUME_ID", "growth": "GROWTH"}.get(key, key.upper())
                entry[name] = value
        with contextlib.suppress(OSError):
            self._socket.send(b"".join(_journal_field(k, str(v)) for k, v in entry.items()))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        super().close()


def message_id(kind: EventKind) -> str:
    """The event's own 128-bit id for `journalctl MESSAGE_ID=`; the same in every version."""
    return uuid5(_MESSAGE_IDS, kind.value).hex


def _journal_field(name: str, value: str) -> bytes:
    """A field as journald's native protocol has it: with its length where it has newlines."""
    data = value.encode()
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def fields_of(record: logging.LogRecord) -> str:
    """The machine half of a line; values with white space are quoted."""
    event: Event | None = getattr(record, "event", None)
    if not event:
        return ""
    return "".join(f" {key}={_quoted(value)}" for key, value in event.fields.items())


def _quoted(value: str | float) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    plain = text and '"' not in text and not any(letter.isspace() for letter in text)
    return text if plain else json.dumps(text)


def set_up_logging(
    log_format: str,
    level: str,
    environment: Mapping[str, str],
    *,
    timed: bool = False,
    log_path: Path | None = None,
) -> None:
    """Choose the handler: the journal when stderr is connected to it, else lines on stderr.

    With `log_path` the lines go to that file: to the one that has this name at that moment,
    so that rotating it needs neither a restart nor a signal.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if log_path:
        from logging.handlers import WatchedFileHandler  # noqa: PLC0415 -- for this alone, 2 MB

        handler = WatchedFileHandler(log_path, encoding="utf-8")
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(timed=timed))
    in_journal = log_format == "auto" and _stderr_is_the_journal(environment)
    if in_journal or log_format == "journald":
        # Without a journal the lines on stderr stay.
        with contextlib.suppress(OSError):
            handler = JournalHandler()
    LOGGER.handlers = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(level.upper())


def _stderr_is_the_journal(environment: Mapping[str, str]) -> bool:
    """Whether stderr is the stream that JOURNAL_STREAM names: systemd.exec(5)."""
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{stat.st_dev}:{stat.st_ino}"


class Sinks:
    """Give every event to every sink; one that raises is muted and counted."""

    def __init__(self, *sinks: Callable[[Event], None]) -> None:
        self._sinks = list(sinks)
        self.muted = 0

    def __call__(self, event: Event) -> None:
        """Never raises."""
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except Exception:
                self._sinks.remove(sink)
                self.muted += 1
                LOGGER.exception("a log sink failed and is disabled")
