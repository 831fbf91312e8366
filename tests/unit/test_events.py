"""Events as lines between processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.telemetry.events import Event, EventKind, Level

events = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    sentence=st.text(),
    level=st.sampled_from(Level),
    fields=st.dictionaries(
        st.text(), st.text() | st.integers() | st.floats(allow_nan=False), max_size=4
    ),
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
        '{"event": "unheard of", "level": "info", "sentence": "", "fields": {}}',
        '{"event": "started", "level": "loud", "sentence": "", "fields": {}}',
        '{"event": "started", "level": 6, "sentence": "", "fields": {}}',
        '{"event": "started", "level": "info", "fields": {}}',
        '{"event": "started", "level": "info", "sentence": ""}',
        '{"event": ["started"], "level": "info", "sentence": "", "fields": {}}',
    ],
)
def test_what_is_no_event_is_refused(line: str) -> None:
    """Anything but an event is a ValueError, which its reader expects."""
    with pytest.raises(ValueError, match=r".*"):
        Event.from_json(line)
