"""Log lines, journal datagrams, and sinks that fail."""

import io
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import StepKind
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.telemetry.logs import (
    LOGGER,
    MESSAGE_MAX,
    JournalOutbox,
    JsonFormatter,
    LogSink,
    Sinks,
    TextFormatter,
    record,
    set_up_logging,
)
from ebs_autoscale.telemetry.outbox import Journal as ToJournal

STEP = Event(
    kind=EventKind.STEP_DONE,
    sentence="attached vol-0a1 as nvme2n1 in 4.2 s",
    growth="6a92f8de-3",
    step=StepKind.ATTACH_VOLUME,
    number=2,
    volume="vol-0a1",
    seconds=4.2,
)
ALARM = Event(
    kind=EventKind.CONDITION_BEGAN,
    sentence="/scratch is not mounted",
    hint="mount it",
    level=Level.ERROR,
    cause=Cause.NOT_MOUNTED,
)
ODD = Event(
    kind=EventKind.WARNING,
    sentence="odd values",
    level=Level.WARNING,
    growth="",
    volume='say "no"',
    seconds=1e-9,
    filesystem="two\nlines",
    version="x=y",
)


@pytest.fixture(autouse=True)
def logger() -> Iterator[None]:
    """Give the logger back as it was."""
    before = (LOGGER.handlers, LOGGER.propagate, LOGGER.level)
    yield
    LOGGER.handlers, LOGGER.propagate = before[0], before[1]
    LOGGER.setLevel(before[2])


def logged(formatter: logging.Formatter, event: Event) -> str:
    """What a handler with this formatter writes of an event."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(formatter)
    LOGGER.handlers, LOGGER.propagate = [handler], False
    LOGGER.setLevel(logging.DEBUG)
    LogSink()(event)
    return text.getvalue()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            STEP,
            (
                "attached vol-0a1 as nvme2n1 in 4.2 s growth=6a92f8de-3 step=AttachVolume number=2 "
                "volume=vol-0a1 seconds=4.2\n"
            ),
        ),
        (ALARM, '/scratch is not mounted; mount it cause="not mounted"\n'),
        (
            ODD,
            (
                'odd values growth="" volume="say \\"no\\"" seconds=1e-09 '
                'filesystem="two / lines" version=x=y\n'
            ),
        ),
        (Event(kind=EventKind.STOPPING, sentence="no fields"), "no fields\n"),
    ],
)
def test_text_lines(event: Event, line: str) -> None:
    """Sentence and hint come first, then key=value, quoted where needed, all on one line."""
    assert logged(TextFormatter(), event) == line


def test_a_line_of_a_log_says_which_event_it_is() -> None:
    """A daemon's line begins with the time, and has the kind of the event before its fields."""
    line = logged(TextFormatter(is_log=True), ALARM)
    time, _, rest = line.partition(" ")
    assert datetime.fromisoformat(time).tzinfo
    assert rest == '/scratch is not mounted; mount it event=condition_began cause="not mounted"\n'


def test_json_lines() -> None:
    """A JSON line has time, level, message, event and the event's own fields."""
    entry = json.loads(logged(JsonFormatter(), STEP))
    assert len(entry.pop("time")) == len("2026-01-01T00:00:00+0000")
    assert entry == {
        "level": "info",
        "message": "attached vol-0a1 as nvme2n1 in 4.2 s",
        "event": "step_done",
        "growth": "6a92f8de-3",
        "step": "AttachVolume",
        "number": 2,
        "volume": "vol-0a1",
        "seconds": 4.2,
    }
    alarm = json.loads(logged(JsonFormatter(), ALARM))
    assert (alarm["level"], alarm["message"]) == ("error", "/scratch is not mounted")
    assert (alarm["hint"], alarm["cause"]) == ("mount it", "not mounted")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_bug_has_its_traceback(formatter: logging.Formatter) -> None:
    """Only a bug brings a traceback."""
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        bug = logged(formatter, Event(kind=EventKind.BUG, sentence="unexpected error"))
        alarm = logged(formatter, ALARM)
    assert "Traceback (most recent call last)" in bug
    assert "ZeroDivisionError" in bug
    assert "Traceback" not in alarm


class Journal:
    """A journald that listens at a path, reading its own protocol."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.address)

    def entry(self) -> dict[str, str]:
        """The fields of the next datagram, as systemd's journal-native-protocol describes it."""
        left = self.socket.recv(65536)
        fields = {}
        while left:
            line, _, left = left.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(left[:8], "little")
                value, left = left[8 : 8 + size], left[8 + size + 1 :]
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journald, and the logger speaking to it."""
    journal = Journal(tmp_path / "journal")
    deliver = ToJournal(journal.address)
    handler = JournalOutbox(deliver, tell_dropped=lambda _: None, patient=True)
    LOGGER.handlers, LOGGER.propagate = [handler], False
    LOGGER.setLevel(logging.DEBUG)
    yield journal
    handler.close()
    deliver.close()
    journal.socket.close()


def test_a_journal_entry(journal: Journal) -> None:
    """Under systemd an event is one datagram: the sentence alone, and all else as fields."""
    LogSink()(STEP)
    assert journal.entry() == {
        "MESSAGE": "attached vol-0a1 as nvme2n1 in 4.2 s",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "ebs-autoscale",
        "EBS_AUTOSCALE_EVENT": "step_done",
        "MESSAGE_ID": "b496d76d132e547b86e4743b45b0dbe4",
        "HINT": "",
        "GROWTH": "6a92f8de-3",
        "VOLUME_ID": "vol-0a1",
        "STEP": "AttachVolume",
        "NUMBER": "2",
        "SECONDS": "4.2",
    }
    LogSink()(ALARM)
    alarm = journal.entry()
    assert (alarm["PRIORITY"], alarm["CAUSE"]) == ("3", "not mounted")
    assert (alarm["MESSAGE"], alarm["HINT"]) == ("/scratch is not mounted", "mount it")


def test_a_bug_in_the_journal(journal: Journal) -> None:
    """The sentence stays alone; the end of a traceback of any length is a field of its own."""
    try:
        Path("x" * 2 * MESSAGE_MAX).stat()
    except OSError:
        LogSink()(Event(kind=EventKind.BUG, sentence="unexpected error", hint="report it"))
    entry = journal.entry()
    assert (entry["MESSAGE"], entry["HINT"]) == ("unexpected error", "report it")
    assert entry["EXCEPTION_TEXT"].endswith("xxx'")
    assert len(entry["EXCEPTION_TEXT"]) == MESSAGE_MAX


def test_nobody_forges_a_field_of_the_journal(journal: Journal) -> None:
    """A value with newlines stays one value, and letters beyond ASCII are kept."""
    forged = Event(
        kind=EventKind.WARNING,
        sentence="first\nPRIORITY=0",
        growth="a\nMESSAGE=b",
        volume="vol-ü",
    )
    LogSink()(forged)
    entry = journal.entry()
    assert entry["MESSAGE"].startswith("first / PRIORITY=0")
    assert (entry["PRIORITY"], entry["GROWTH"]) == ("6", "a / MESSAGE=b")
    assert entry["VOLUME_ID"] == "vol-ü"


def test_a_journal_that_went_away_loses_the_line(journal: Journal) -> None:
    """Without a journald a line is lost, and nothing else."""
    journal.socket.close()
    LogSink()(STEP)


def test_a_full_journal_loses_the_line_not_the_daemon(journal: Journal) -> None:
    """A journald that reads nothing holds nobody up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as flood:
        flood.connect(journal.address)
        with suppress(BlockingIOError):
            while True:
                flood.send(b"MESSAGE=full\n")
    LogSink()(STEP)
    LogSink()(ALARM)


@pytest.mark.parametrize(
    ("log_format", "expected"),
    [("text", TextFormatter), ("json", JsonFormatter), ("auto", TextFormatter)],
)
def test_the_format_is_chosen(log_format: str, expected: type[logging.Formatter]) -> None:
    """Lines have the format asked for; `auto` outside systemd is text."""
    set_up_logging(log_format, "warning", {"JOURNAL_STREAM": "8:123"})
    (handler,) = LOGGER.handlers
    assert type(handler.formatter) is expected
    assert LOGGER.level == logging.WARNING


def test_what_a_verb_does_is_recorded(journal: Journal, tmp_path: Path) -> None:
    """It is in the journal beside stderr, once; without a journal, in a log that exists."""
    log = tmp_path / "log"
    record(log, journal=journal.address)
    LogSink()(STEP)
    assert journal.entry()["GROWTH"] == STEP.growth
    LOGGER.handlers = [logging.NullHandler()]
    record(log, journal=journal.address)
    LogSink()(STEP)
    assert journal.entry()["GROWTH"] == STEP.growth
    for exists in (False, True):
        LOGGER.handlers = [logging.NullHandler()]
        if exists:
            log.touch()
        record(log, journal=str(tmp_path / "nobody"))
        LogSink()(STEP)
        assert log.exists() is exists
    assert log.read_text().count(" event=step_done growth=6a92f8de-3 ") == 1


def test_sinks_name_the_mountpoint() -> None:
    """Every event of a daemon says which filesystem it is about."""
    heard: list[Event] = []
    Sinks(heard.append, mountpoint="/scratch")(ALARM)
    assert heard == [replace(ALARM, mountpoint="/scratch")]


def test_a_sink_that_fails_misses_only_that_event() -> None:
    """A sink that raises is given the next event all the same; the others hear everything."""
    heard: list[Event] = []
    asked = []

    def broken(event: Event) -> None:
        asked.append(event)
        raise OSError("no space left")

    sinks = Sinks(heard.append, broken, heard.append)
    sinks(STEP)
    sinks(ALARM)
    assert heard == [STEP, STEP, ALARM, ALARM]
    assert asked == [STEP, ALARM]
    assert sinks.missed == 2
