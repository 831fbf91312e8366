"""However a growth fails, and however often: never sooner again than its cause allows."""

from itertools import pairwise

import pytest

from ebs_autoscale.ec2.errors import MEANINGS
from ebs_autoscale.errors import Cause
from ebs_autoscale.policy.backoff import BY_CAUSE, backoff_of, retry_delay_seconds
from ebs_autoscale.policy.settings import GrowthPolicy, Polling
from ebs_autoscale.telemetry.conditions import REMIND_AFTER_SECONDS
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.clock import SimulatedClock
from tests.simulated.growths import Watch, failed

HOUR = 3600.0
FAILS_AFTER_SECONDS = 0.5

# What a growth can fail of beside EC2's refusals.
OTHERS = (
    "attached elsewhere",
    "command",
    "died",
    "ec2 unreachable",
    "name taken",
    "not blank",
    "slow create",
    "stuck attach",
    "unknown code Novelty",
    "volume lost",
)
CAUSES = sorted(
    {meaning.cause for meaning in MEANINGS.values()}
    | {*OTHERS, *BY_CAUSE} - {"locked", "unsettled"}
)

BUSY = GrowthPolicy(polling=Polling(min_seconds=2.0, max_seconds=2.0))


class LuckyClock(SimulatedClock):
    """A clock whose dice always ask for the shortest wait."""

    def jitter(self) -> float:
        """The least there is."""
        return 0.0


def an_hour_of_failures(cause: str, clock: SimulatedClock) -> Watch:
    """A loop that looks every other second while every growth fails of this."""
    watch = Watch(policy=BUSY, available_gib=5, clock=clock)
    watch.growths.course = lambda: failed(cause, FAILS_AFTER_SECONDS)
    watch.look_for(HOUR)
    return watch


def tries_allowed(cause: str, *, jitter: float) -> int:
    """How many growths fit into an hour when each wait is as the table says."""
    seconds, tries = 0.0, 1
    while seconds < HOUR:
        wait = retry_delay_seconds(cause, attempts=tries, jitter=jitter)
        seconds += FAILS_AFTER_SECONDS + wait
        tries += 1
    return tries


@pytest.mark.parametrize("cause", CAUSES)
def test_an_hour_of_failures(cause: str) -> None:
    """No more tries than the waits leave room for, one line at the beginning, few reminders."""
    watch = an_hour_of_failures(cause, SimulatedClock())

    assert 1 < len(watch.growths.starts_at) <= tries_allowed(cause, jitter=1.0)
    assert watch.causes(EventKind.CONDITION_BEGAN) == [cause]
    assert 1 <= len(watch.told(EventKind.CONDITION_LASTS)) <= HOUR / REMIND_AFTER_SECONDS
    assert not watch.told(EventKind.GROWTH_FAILED)
    assert cause in str(watch.view["conditions"])


@pytest.mark.parametrize("cause", CAUSES)
def test_a_lucky_hour_is_bounded_too(cause: str) -> None:
    """Dice that always ask for the shortest wait make no hammer."""
    watch = an_hour_of_failures(cause, LuckyClock())

    assert len(watch.growths.starts_at) <= tries_allowed(cause, jitter=0.0)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert min(gaps) >= backoff_of(cause).first_seconds / 10


@pytest.mark.parametrize("code", [c for c, m in MEANINGS.items() if m.cause is Cause.DENIED])
def test_a_human_is_not_hurried(code: str) -> None:
    """What only a human can change is looked at again every ten minutes at the most."""
    assert backoff_of(MEANINGS[code].cause).first_seconds >= 600
    assert backoff_of("unknown code Novelty").first_seconds >= 600
