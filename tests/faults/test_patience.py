"""However a growth fails, and however often: never retried sooner than its cause allows."""

from itertools import pairwise

import pytest

from ebs_autoscale.ec2.errors import MEANINGS
from ebs_autoscale.errors import Cause
from ebs_autoscale.policy import GrowthPolicy, Polling
from ebs_autoscale.policy.backoff import retry_delay_seconds
from ebs_autoscale.telemetry.conditions import REMIND_AFTER_SECONDS
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.clock import SimulatedClock
from tests.simulated.growths import Watch, failed

HOUR = 3600.0
FAILS_AFTER_SECONDS = 0.5

# A growth that meets the lock waits for another one, and an unbalanced filesystem has enough
# space: neither ends like the failures here. Causes of one back-off are all treated alike.
OTHERWISE = {Cause.LOCKED, Cause.UNBALANCED}
CAUSES = {cause.backoff: cause for cause in Cause if cause not in OTHERWISE}.values()
each_cause = pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)

BUSY = GrowthPolicy(polling=Polling(min_seconds=2.0, max_seconds=2.0))


class LuckyClock(SimulatedClock):
    """A clock whose jitter always draws the shortest wait."""

    def jitter(self) -> float:
        """The least there is."""
        return 0.0


def an_hour_of_failures(cause: Cause, clock: SimulatedClock) -> Watch:
    """A loop that looks every other second while every growth fails with this cause."""
    watch = Watch(policy=BUSY, available_gib=5, clock=clock)
    watch.growths.course = lambda: failed(cause, FAILS_AFTER_SECONDS)
    watch.look_for(HOUR)
    return watch


def tries_allowed(cause: Cause, *, jitter: float) -> int:
    """How many growths fit into an hour with the waits of the cause."""
    seconds, tries = 0.0, 1
    while seconds < HOUR:
        wait = retry_delay_seconds(cause, attempts=tries, jitter=jitter)
        seconds += FAILS_AFTER_SECONDS + wait
        tries += 1
    return tries


@each_cause
def test_an_hour_of_failures(cause: Cause) -> None:
    """No more tries than the waits allow, one event when it begins, and few reminders."""
    watch = an_hour_of_failures(cause, SimulatedClock())

    assert 1 < len(watch.growths.starts_at) <= tries_allowed(cause, jitter=1.0)
    assert watch.causes(EventKind.CONDITION_BEGAN) == [cause.value]
    assert 1 <= len(watch.told(EventKind.CONDITION_LASTS)) <= HOUR / REMIND_AFTER_SECONDS
    assert not watch.told(EventKind.GROWTH_FAILED)
    assert cause.value in watch.view.conditions


@each_cause
def test_an_hour_of_short_waits(cause: Cause) -> None:
    """Even when jitter always draws the shortest wait, tries stay a tenth of the wait apart."""
    watch = an_hour_of_failures(cause, LuckyClock())

    assert len(watch.growths.starts_at) <= tries_allowed(cause, jitter=0.0)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert min(gaps) >= cause.backoff.first_seconds / 10


@pytest.mark.parametrize("code", [c for c, m in MEANINGS.items() if m.cause is Cause.DENIED])
def test_operators_have_time(code: str) -> None:
    """What only an operator can change is retried every ten minutes at most."""
    assert MEANINGS[code].cause.backoff.first_seconds >= 600
    assert Cause.UNKNOWN_CODE.backoff.first_seconds >= 600
