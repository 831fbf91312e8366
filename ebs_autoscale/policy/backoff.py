"""How long to wait before the next try. Pure; how long each cause waits belongs to the cause."""

from math import inf

from ebs_autoscale.errors import Cause

# With less, a wait that is drawn badly takes what is left; more costs calls and saves no time that
# matters.
TRIES_BEFORE_FULL = 10

# From 20 minutes on tries become fewer with the age of an outage: each time that it doubles costs
# as many. A quota that is not raised for a day costs a thousand tries on a full host, not 5000.
TRIES_PER_AGE = 120


def retry_delay_seconds(
    cause: Cause,
    *,
    attempts: int,
    jitter: float,
    seconds_left: float = inf,
    failing_seconds: float = 0.0,
) -> float:
    """Wait before try number `attempts` + 1, with full jitter; `jitter` is random in [0, 1).

    Never less than a tenth of the bound, so that a lucky draw does not hammer EC2 either.
    `seconds_left` is the time until the filesystem is full, infinite when no program needs the
    space: with little left the wait is as short as the cause can afford, and less so the longer
    growths have been failing.
    """
    backoff = cause.backoff
    bound = min(backoff.max_seconds, backoff.first_seconds * 2.0 ** min(attempts - 1, 30))
    urgent = max(
        backoff.urgent_seconds, seconds_left / TRIES_BEFORE_FULL, failing_seconds / TRIES_PER_AGE
    )
    return min(bound, urgent) * max(jitter, 0.1)
