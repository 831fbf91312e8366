"""How long to wait before the next try."""

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
