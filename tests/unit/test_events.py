"""Events as lines between processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import DecisionKind, Stage, StepKind
from ebs_autoscale.telemetry.events import Event, EventKind, Level

events = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    sentence=st.text(),
    hint=st.text(),
    level=st.sampled_from(Level),
    decision=st.none() | st.sampled_from(DecisionKind),
    growth=st.none() | st.text(),
    stage=st.none() | st.sampled_from(Stage),
    step=st.none() | st.sampled_from(StepKind),
    number=st.none() | st.integers(),
    volume=st.none() | st.text(),
    seconds=st.none() | st.floats(allow_nan=False),
    cause=st.none() | st.sampled_from(Cause),
)


@given(event=events)
def test_an_event_survives_the_pipe(event: Event) -> None:
    """What is written comes back equal, and is one line whatever its sentence holds."""
    line = event.to_json()
    assert "\n" not in line
    assert Event.from_json(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Traceback (most recent call last):",
        "null",
        "7",
        "[]",
        '"event"',
        "{}",
        '{"event": "started", "level": "info", "sentence": "cut of',
        '{"event": "unheard of", "level": "info", "sentence": "", "hint": "", "fields": {}}',
        '{"event": "started", "level": "loud", "sentence": "", "hint": "", "fields": {}}',
        '{"event": "started", "level": 6, "sentence": "", "hint": "", "fields": {}}',
        '{"event": "started", "level": "info", "hint": "", "fields": {}}',
        '{"event": "started", "level": "info", "sentence": "", "hint": ""}',
        '{"event": "started", "level": "info", "sentence": "", "fields": {}}',
        '{"event": "started", "level": "info", "sentence": "", "hint": "", "fields": {"a": 1}}',
        '{"event": "bug", "level": "info", "sentence": "", "hint": "", "fields": {"cause": "x"}}',
        '{"event": ["started"], "level": "info", "sentence": "", "hint": "", "fields": {}}',
    ],
)
def test_what_is_no_event_is_refused(line: str) -> None:
    """Anything but an event is a ValueError, which its reader expects."""
    with pytest.raises(ValueError, match=r".*"):
        Event.from_json(line)


@pytest.mark.parametrize(
    "text",
    [
        "\udcff",
        "\ud800 half",
        "two\nlines\r\nand\x0bmore",
        "nul \0",
        "\x1b[2J",
        "x" * 10**7,
        "\u2028",
    ],
)
def test_any_bytes_are_one_line_of_text(text: str) -> None:
    """Whatever a mount source or a file name contains, every sink gets printable text."""
    event = Event(kind=EventKind.WARNING, sentence=text, hint=text, volume=text, growth=text)
    assert f"{event.line}{''.join(map(str, event.fields.values()))}".isprintable()
    assert len(event.to_json()) < 65536
    assert Event.from_json(event.to_json()) == event
