"""How long to wait before the next try. Pure; how long each cause waits belongs to the cause."""

from ebs_autoscale.errors import Cause


def retry_delay_seconds(cause: Cause, *, attempts: int, jitter: float) -> float:
    """Wait before try number `attempts` + 1, with full jitter; `jitter` is random in [0, 1).

    Never less than a tenth of the bound, so that a lucky draw does not hammer EC2 either.
    """
    backoff = cause.backoff
    bound = min(backoff.max_seconds, backoff.first_seconds * 2.0 ** min(attempts - 1, 30))
    return bound * max(jitter, 0.1)
