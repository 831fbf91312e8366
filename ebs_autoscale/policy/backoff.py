"""How long to wait before the next try, by cause. Pure."""

from typing import NamedTuple


class Backoff(NamedTuple):
    """First and longest wait in seconds; equal when the cause is only re-checked."""

    first_seconds: float
    max_seconds: float


# One instance of a fleet must not hammer an account's shared request buckets (5 mutating
# calls a second for all of it), and a human's answer takes minutes at best.
DEFAULT = Backoff(5.0, 300.0)
RECHECK = Backoff(300.0, 300.0)
BY_CAUSE = {
    "limits.volumes": RECHECK,
    "limits.total": RECHECK,
    "limits.cooldown": Backoff(30.0, 30.0),
    # Each look costs a volume for some seconds when the slot limit is not the one EC2 publishes.
    "slots": Backoff(300.0, 1800.0),
    "quota": Backoff(600.0, 3600.0),
    "capacity": Backoff(60.0, 900.0),
    "denied": Backoff(600.0, 600.0),
    "credentials": Backoff(60.0, 300.0),
    "request": Backoff(600.0, 600.0),
    "volume kind": Backoff(600.0, 600.0),
    "kms": Backoff(600.0, 600.0),
    "program": Backoff(600.0, 600.0),
    "token burned": Backoff(600.0, 3600.0),
    "unsettled": Backoff(600.0, 3600.0),
    "locked": Backoff(1.0, 5.0),
}


def backoff_of(cause: str) -> Backoff:
    """The waits for this cause; a refusal that nobody knows is tried as rarely as a denial."""
    unknown = BY_CAUSE["denied"] if cause.startswith("unknown code") else DEFAULT
    return BY_CAUSE.get(cause, unknown)


def retry_delay_seconds(cause: str, *, attempts: int, jitter: float) -> float:
    """Wait before try number `attempts` + 1, with full jitter; `jitter` is random in [0, 1).

    Never less than a tenth of the bound, so that a lucky draw is no hammer either.
    """
    backoff = backoff_of(cause)
    bound = min(backoff.max_seconds, backoff.first_seconds * 2.0 ** min(attempts - 1, 30))
    return bound * max(jitter, 0.1)
