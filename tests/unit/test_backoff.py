"""How long to wait before the next try."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause
from ebs_autoscale.policy.backoff import retry_delay_seconds

causes = st.sampled_from(Cause)


@given(cause=causes, attempts=st.integers(1, 10**9), jitter=st.floats(0, 1, exclude_max=True))
def test_every_delay_is_bounded(cause: Cause, attempts: int, jitter: float) -> None:
    """A delay is a tenth of the first wait at least and the longest wait at most."""
    backoff = cause.backoff
    delay = retry_delay_seconds(cause, attempts=attempts, jitter=jitter)
    assert backoff.first_seconds / 10 <= delay <= backoff.max_seconds


@given(cause=causes, attempts=st.integers(1, 100), jitter=st.floats(0, 1, exclude_max=True))
def test_later_tries_wait_no_less(cause: Cause, attempts: int, jitter: float) -> None:
    """With the same luck a later try never waits less."""
    earlier, later = (
        retry_delay_seconds(cause, attempts=n, jitter=jitter) for n in (attempts, attempts + 1)
    )
    assert earlier <= later


@pytest.mark.parametrize(
    ("cause", "waits"),
    [
        (Cause.THROTTLED, [5, 10, 20, 40, 80, 160, 300, 300]),
        (Cause.LIMIT_VOLUMES, [300, 300]),
        (Cause.LIMIT_COOLDOWN, [30, 30]),
        (Cause.CAPACITY, [60, 120, 240, 480, 900, 900]),
        (Cause.QUOTA, [600, 1200, 2400, 3600, 3600]),
        (Cause.LOCKED, [1, 2, 4, 5, 5]),
    ],
)
def test_the_longest_waits(cause: Cause, waits: list[float]) -> None:
    """Waits double from the first to the longest; what is only re-checked keeps its pace."""
    tries = range(1, len(waits) + 1)
    assert [retry_delay_seconds(cause, attempts=n, jitter=1.0) for n in tries] == waits


@given(
    cause=causes,
    attempts=st.integers(1, 100),
    jitter=st.floats(0, 1, exclude_max=True),
    seconds_left=st.floats(0),
    failing_seconds=st.floats(0, 1e9),
)
def test_urgency_only_shortens(
    cause: Cause, attempts: int, jitter: float, seconds_left: float, failing_seconds: float
) -> None:
    """With little time left a wait is never longer, and never shorter than the cause can afford."""
    calm = retry_delay_seconds(cause, attempts=attempts, jitter=jitter)
    urgent = retry_delay_seconds(
        cause,
        attempts=attempts,
        jitter=jitter,
        seconds_left=seconds_left,
        failing_seconds=failing_seconds,
    )
    assert urgent <= calm
    assert urgent >= min(calm, cause.backoff.urgent_seconds * 0.1)


MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.mark.parametrize(
    ("cause", "seconds_left", "failing_seconds", "wait"),
    [
        # An outage with a writer at work: the first try after it comes within seconds.
        (Cause.EC2_ERROR, 40, 4 * MINUTE, 10),
        (Cause.EC2_UNREACHABLE, 0, 4 * MINUTE, 10),
        (Cause.IMDS, 0, MINUTE, 10),
        (Cause.CREDENTIALS, 30, 5 * MINUTE, 10),
        # Each costs an account's scarce calls.
        (Cause.THROTTLED, 40, 4 * MINUTE, 30),
        (Cause.QUOTA, 40, 4 * MINUTE, 30),
        (Cause.DENIED, 40, 4 * MINUTE, 30),
        (Cause.CAPACITY, 40, 4 * MINUTE, 30),
        (Cause.LIMIT_VOLUMES, 40, 4 * MINUTE, 60),
        # Each costs money, or cannot succeed.
        (Cause.SLOTS, 0, 0, 300),
        (Cause.TOKENS_BURNED, 0, 0, 600),
        # A tenth of the time that is left.
        (Cause.EC2_ERROR, 20 * MINUTE, 0, 120),
        (Cause.QUOTA, 20 * MINUTE, 0, 120),
        (Cause.QUOTA, inf, 0, 3600),
        (Cause.EC2_ERROR, inf, 0, 300),
        # A small part of the time that it has lasted.
        (Cause.QUOTA, 0, 2 * HOUR, 60),
        (Cause.QUOTA, 0, DAY, 720),
        (Cause.EC2_ERROR, 0, 20 * MINUTE, 10),
        (Cause.EC2_ERROR, 0, 2 * HOUR, 60),
        (Cause.EC2_ERROR, 0, DAY, 300),
    ],
)
def test_what_urgency_costs(
    cause: Cause, seconds_left: float, failing_seconds: float, wait: float
) -> None:
    """The longest wait of a growth that has failed often, by its cause and its urgency."""
    found = retry_delay_seconds(
        cause, attempts=9, jitter=1.0, seconds_left=seconds_left, failing_seconds=failing_seconds
    )
    assert found == wait


def test_a_day_at_full_is_affordable() -> None:
    """A full host makes about a thousand tries in a day that all fail, not five thousand."""
    for cause, most in ((Cause.QUOTA, 1000), (Cause.EC2_ERROR, 1300)):
        seconds, tries = 0.0, 0
        while seconds < DAY:
            tries += 1
            seconds += retry_delay_seconds(
                cause, attempts=tries, jitter=0.55, seconds_left=0, failing_seconds=seconds
            )
        assert tries <= most
