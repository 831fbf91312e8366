"""Logged events read back, from each of the three formats, and what damaged lines do."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import DecisionKind, Stage, StepKind
from ebs_autoscale.telemetry.entries import JOURNAL_FIELDS, Entry, of_journal, of_log
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.logs import JournalOutbox, JsonFormatter, TextFormatter

AT = 1795860000.0

EVENTS = [
    Event(
        kind=EventKind.GROWTH_DONE,
        sentence="growth 6a92f8de-3 is complete after 4.6 s",
        decision=DecisionKind.FINISH,
        growth="6a92f8de-3",
        stage=Stage.ATTACHED,
        volume="vol-0a1",
        seconds=4.625,
        size_bytes=50 * 1024**3,
        added_usd_per_month=4.0,
        mountpoint="/srv/my data",
    ),
    Event(
        kind=EventKind.STEP_DONE,
        sentence="attached",
        growth="6a92f8de-3",
        step=StepKind.ATTACH_VOLUME,
        seconds=4.0,
    ),
    Event(
        kind=EventKind.CONDITION_BEGAN,
        sentence='refused event=bug x=y "quoted" \\ ünï',
        hint="raise limits.total",
        cause=Cause.LIMIT_TOTAL,
        mountpoint='/a" event=bug b=c',
    ),
    Event(kind=EventKind.STOPPING, sentence=""),
]


def record_of(event: Event) -> logging.LogRecord:
    """What LogSink hands to `logging`."""
    return logging.makeLogRecord({"msg": event.line, "event": event, "created": AT})


def in_journal(event: Event) -> str:
    """The event as `journalctl --output=json` prints it."""
    fields: dict[str, Any] = {"__REALTIME_TIMESTAMP": str(int(AT * 1e6))}
    outbox = JournalOutbox(lambda _: None, tell_dropped=lambda _: None)
    for line in outbox.encoded(record_of(event)).decode().splitlines():
        name, _, value = line.partition("=")
        if name in JOURNAL_FIELDS:
            fields[name] = value
    return json.dumps(fields)


def expected(event: Event, **changes: str) -> Entry:
    """What any format keeps of an event."""
    kept = {name for name in Entry.__dataclass_fields__ if name in event.fields}
    fields: dict[str, Any] = {name: event.fields[name] for name in kept}
    told: dict[str, Any] = {"sentence": event.sentence, "hint": event.hint, **changes}
    return Entry(at_seconds=AT, kind=event.kind.value, **told, **fields)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_read_back(event: Event) -> None:
    """Journal and JSON give back every field; text does too, with sentence and hint as one."""
    assert of_journal(in_journal(event)) == expected(event)
    assert of_log(JsonFormatter().format(record_of(event)) + "\n") == expected(event)
    line = TextFormatter(is_log=True).format(record_of(event)) + "\n"
    assert of_log(line) == expected(event, sentence=event.line, hint="")


def journal_entry(**fields: Any) -> str:
    """An entry of the journal with these fields more."""
    told = {"MESSAGE": "it", "EBS_AUTOSCALE_EVENT": "decided"}
    return json.dumps({**told, "__REALTIME_TIMESTAMP": "1795860000000000", **fields})


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ([104, 195, 182, 255], "hö\\ufffd"),  # bytes that are no UTF-8
        (["first", "second"], "first"),  # a field that comes twice
        ([[255], "second"], "\\ufffd"),
        (None, ""),  # too long for journalctl
        ("a\nb", "a / b"),
        (5, "5"),
    ],
)
def test_fields_of_any_form(value: Any, read: str) -> None:
    """A field of the journal is text whatever journalctl makes of its bytes."""
    entry = of_journal(journal_entry(MESSAGE=value, HINT=value))
    assert (entry.sentence.replace("\ufffd", "\\ufffd"), entry.hint) == (read, entry.sentence)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "{}",
        "{" * 100_000,
        journal_entry(__REALTIME_TIMESTAMP="soon"),
        journal_entry(__REALTIME_TIMESTAMP="-1"),
        journal_entry(__REALTIME_TIMESTAMP="9" * 400),
        journal_entry(SECONDS="nan"),
        journal_entry(SECONDS="-1"),
        journal_entry(SIZE_BYTES="1e400"),
        journal_entry(ADDED_USD_PER_MONTH="much"),
        journal_entry(MESSAGE=[300]),
    ],
)
def test_what_is_no_entry_of_the_journal(line: str) -> None:
    """Whatever else a line is, it is refused as such."""
    with pytest.raises(ValueError, match="not an entry"):
        of_journal(line)
    with pytest.raises(ValueError, match="not a line"):
        of_log(line)


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-28T10:00:00 no zone event=decided",
        "2026-11-28T10:00:00+0000 of an earlier version growth=6a92f8de-3",
        "2026-11-28T10:00:00+0000 x event=step_done seconds=long",
        '2026-11-28T10:00:00+0000 x event=decided growth="\\x"',
        "Traceback (most recent call last):",
        # Each of these could be the beginning of the fields.
        f"2026-11-28T10:00:00+0000 x{' event=a' * 8000} !",
    ],
)
def test_what_is_no_line_of_the_log(line: str) -> None:
    """A line without time, event or legal numbers is refused."""
    with pytest.raises(ValueError, match="not a line"):
        of_log(line)


@given(st.one_of(st.text(), st.dictionaries(st.text(), st.integers()).map(json.dumps)))
def test_no_line_raises_anything_else(line: str) -> None:
    """An arbitrary line is read or refused."""
    for parse in (of_journal, of_log):
        try:
            parse(line)
        except ValueError:
            continue
