"""A growth as a process: its request, and when it has told its end."""

import io
import os

import pytest

from ebs_autoscale.daemon.worker import EventPipe, GrowthRequest, has_ended
from ebs_autoscale.model import Identity, RoleCredentials
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.telemetry.events import Event, EventKind


def test_a_request_survives_the_pipe() -> None:
    """What the daemon asks for is what the growth reads, whatever the configuration holds."""
    request = GrowthRequest(
        config_text='mountpoint: "/sc\u00e4tch"\n# {"}\n',
        forecast=Forecast(fill_bytes_per_second=1.5e9, growth_seconds=7.25, used_bytes=2**50),
        events_fd=5,
        lock_fd=6,
        identity=Identity(
            instance_id="i-1",
            instance_type="m5.large",
            region="eu-west-1",
            availability_zone="eu-west-1a",
            account_id="1",
        ),
        credentials=RoleCredentials(
            access_key="ASIA",
            secret_key="secret/",  # noqa: S106 -- no secret
            session_token="token+",  # noqa: S106 -- no secret
            expires_at_seconds=1.8e9,
        ),
    )
    assert "secret/" not in repr(request)
    with request.as_file() as file:
        assert GrowthRequest.read(file) == request


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"forecast": {}}', b"null"])
def test_what_is_no_request_is_refused(text: bytes) -> None:
    """Anything but a request is an error of the program, not a growth with defaults."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        GrowthRequest.read(io.BytesIO(text))


@pytest.mark.parametrize(
    ("kinds", "ended"),
    [
        ([EventKind.DECIDED], False),
        ([EventKind.STEP_STARTED, EventKind.STEP_DONE], False),
        ([EventKind.STEP_DONE, EventKind.GROWTH_DONE], True),
        ([EventKind.GROWTH_DONE, EventKind.TENDED], True),
        ([EventKind.GROWTH_REFUSED, EventKind.STEP_STARTED], False),
        ([EventKind.GROWTH_REFUSED, EventKind.STEP_STARTED, EventKind.GROWTH_REFUSED], True),
        ([EventKind.GROWTH_FAILED, EventKind.STEP_STARTED, EventKind.STEP_DONE], False),
    ],
)
def test_when_a_growth_has_told_its_end(kinds: list[EventKind], *, ended: bool) -> None:
    """Only another step reopens it: what becomes of the reserve after the end does not."""
    told = False
    for kind in kinds:
        told = has_ended(Event(kind=kind, sentence=""), before=told)
    assert told is ended


def test_a_daemon_that_stands_still_is_not_waited_for() -> None:
    """A growth goes on; what the daemon reads later is whole events, and how many it missed."""
    reader, writer = os.pipe()
    pipe = EventPipe(writer)
    sent = 2000
    for number in range(sent):
        pipe(Event(kind=EventKind.STEP_PROGRESS, sentence=f"{number} {'ü' * 900}"))
    text = b""
    while not text.endswith(b'last", "hint": "", "fields": {}}\n'.replace(b"\\", b"")):
        text += os.read(reader, 10**6)
        pipe(Event(kind=EventKind.STEP_PROGRESS, sentence="last"))
    events = [Event.from_json(line.decode()) for line in text.splitlines()]
    kept = [event for event in events if "ü" in event.sentence]
    [missed] = [event for event in events if event.kind is EventKind.WARNING]
    assert missed.sentence.startswith(f"{sent - len(kept)} ")
    for fd in (reader, writer):
        os.close(fd)
