"""Events as log lines: the journal, text or JSON; a sink that fails is never fatal."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid5

from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.telemetry.outbox import Descriptor, Journal, LogFile, Outbox
from ebs_autoscale.units import counted, json_text

LOGGER = logging.getLogger("ebs_autoscale")

_LOGGING_LEVELS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}

# Drawn once at random (`journalctl --new-id128`), to be kept for ever.
_MESSAGE_IDS = UUID("0f6c39c4-64c3-4c7e-9d0d-1f8f5f1d2b7a")

_STDERR = 2
JOURNAL_SOCKET = "/run/systemd/journal/socket"

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
"""Of the lines of a log, in local time."""

# Fields of events that the journal has under other names than in capitals.
JOURNAL_NAMES = {"volume": "VOLUME_ID"}

# A datagram has 208 KiB at the most (net.core.wmem_default); only a traceback can be long.
MESSAGE_MAX = 32768


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
    """The line a person reads, with `key=value ...` after it.

    With `is_log` it has the time before it, and says which event it is: `history` reads that.
    """

    def __init__(self, *, is_log: bool = False) -> None:
        super().__init__()
        self._is_log = is_log

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, which only a bug has, follows on its own lines."""
        event: Event | None = getattr(record, "event", None)
        line = record.getMessage()
        if self._is_log:
            line = self.formatTime(record, f"{TIME_FORMAT} ") + line
            line += f" event={event.kind}" if event else ""
        line += fields_of(event) if event else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `common` are entries that each line has."""

    def __init__(self, common: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._common = common or {}

    def format(self, record: logging.LogRecord) -> str:
        """The event's own fields, or a plain record."""
        event: Event | None = getattr(record, "event", None)
        entry = {
            "time": self.formatTime(record, TIME_FORMAT),
            "level": record.levelname.lower(),
            "message": event.sentence if event else record.getMessage(),
            "event": event.kind.value if event else "log",
            **self._common,
            **({"hint": event.hint} if event and event.hint else {}),
            **(event.fields if event else {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_text(entry)


class JournalOutbox(Outbox):
    """journald's native protocol: the sentence alone as MESSAGE, all else under names of its own.

    Every event has HINT, empty where there is nothing to do: `journalctl -x` shows the name of a
    field that an entry lacks where the message catalogue refers to it.
    """

    def encoded(self, record: logging.LogRecord) -> bytes:
        """One datagram."""
        event: Event | None = getattr(record, "event", None)
        priorities = {level: number.value for number, level in _LOGGING_LEVELS.items()}
        entry: dict[str, object] = {
            "MESSAGE": event.sentence if event else record.getMessage()[:MESSAGE_MAX],
            "PRIORITY": priorities.get(record.levelno, Level.INFO.value),
            "SYSLOG_IDENTIFIER": "ebs-autoscale",
        }
        if event:
            entry["EBS_AUTOSCALE_EVENT"] = event.kind.value
            entry["MESSAGE_ID"] = message_id(event.kind)
            entry["HINT"] = event.hint
            entry |= {JOURNAL_NAMES.get(key, key.upper()): v for key, v in event.fields.items()}
        if record.exc_info:
            # As systemd's own handler for Python names it.
            traceback = logging.Formatter().formatException(record.exc_info)
            entry["EXCEPTION_TEXT"] = traceback[-MESSAGE_MAX:]
        return b"".join(_journal_field(k, str(v)) for k, v in entry.items())


def message_id(kind: EventKind) -> str:
    """The event's own 128-bit id for `journalctl MESSAGE_ID=`; the same in every version."""
    return uuid5(_MESSAGE_IDS, kind.value).hex


def _journal_field(name: str, value: str) -> bytes:
    """A field as journald's native protocol has it: with its length where it has newlines."""
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def fields_of(event: Event) -> str:
    """The machine half of a line; values with white space are quoted."""
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
    is_daemon: bool = False,
    log_path: Path | None = None,
) -> None:
    """Choose the handler: the journal when stderr is connected to it, else lines on stderr.

    With `log_path` the lines go to that file: to the one that has this name at that moment,
    so that rotating it needs neither a restart nor a signal. A daemon's lines have the time, and
    are never waited for.
    """
    in_journal = log_format == "auto" and _stderr_is_the_journal(environment)
    outbox: Outbox | None = None
    if in_journal or log_format == "journald":
        # Without a journal the lines on stderr stay.
        with contextlib.suppress(OSError):
            outbox = JournalOutbox(Journal(JOURNAL_SOCKET), tell_dropped=_tell_dropped)
    if not outbox:
        deliver = LogFile(log_path) if log_path else Descriptor(_STDERR)
        outbox = Outbox(deliver, tell_dropped=_tell_dropped, patient=not is_daemon)
        is_json = log_format == "json"
        outbox.setFormatter(JsonFormatter() if is_json else TextFormatter(is_log=is_daemon))
    for handler in LOGGER.handlers:
        handler.close()
    LOGGER.handlers = [outbox]
    LOGGER.propagate = False
    LOGGER.setLevel(level.upper())


def record(log_path: Path, *, journal: str = JOURNAL_SOCKET) -> None:
    """Log to the journal too, or to this log if there is one: `history` reads what is there."""
    if any(isinstance(handler, JournalOutbox) for handler in LOGGER.handlers):
        return
    try:
        outbox: Outbox = JournalOutbox(Journal(journal), tell_dropped=_tell_dropped, patient=True)
    except OSError:
        if not log_path.exists():
            return
        outbox = Outbox(LogFile(log_path), tell_dropped=_tell_dropped, patient=True)
        outbox.setFormatter(TextFormatter(is_log=True))
    LOGGER.addHandler(outbox)


def dropped_lines() -> int:
    """How many log lines of this process nobody has taken."""
    return sum(handler.dropped for handler in LOGGER.handlers if isinstance(handler, Outbox))


def last_words(text: str) -> None:
    """Write to stderr why this process ends, after the log lines; wait for no reader for long."""
    for handler in LOGGER.handlers:
        handler.flush()
    outbox = Outbox(Descriptor(_STDERR), tell_dropped=lambda _: None, patient=True)
    outbox.emit(logging.makeLogRecord({"msg": text}))


def _tell_dropped(count: int) -> None:
    lines = counted(count, "log line was", "log lines were")
    sentence = f"{lines} dropped because the log could not be written"
    LogSink()(Event(kind=EventKind.WARNING, sentence=sentence, level=Level.WARNING))


def _stderr_is_the_journal(environment: Mapping[str, str]) -> bool:
    """Whether stderr is the stream that JOURNAL_STREAM names: systemd.exec(5)."""
    try:
        stat = os.fstat(_STDERR)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{stat.st_dev}:{stat.st_ino}"


class Sinks:
    """Give every event to every sink; one that raises has missed that event, which is counted.

    With `mountpoint`, each event says that it is about this one.
    """

    def __init__(self, *sinks: Callable[[Event], None], mountpoint: str | None = None) -> None:
        self._sinks = sinks
        self._mountpoint = mountpoint
        self.missed = 0

    def __call__(self, event: Event) -> None:
        """Never raises."""
        if self._mountpoint:
            event = replace(event, mountpoint=self._mountpoint)
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001 -- whatever it is, the next event may be fine
                self.missed += 1
