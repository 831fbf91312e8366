"""The loop after failures, refusals and locks: how it waits, and what it tells meanwhile."""

from itertools import pairwise

import pytest

from ebs_autoscale.errors import Cause, LockHeld, Unfit
from ebs_autoscale.model import DecisionKind, Stage
from ebs_autoscale.monitor import LOCKED_TOO_LONG_SECONDS
from ebs_autoscale.policy.backoff import retry_delay_seconds
from ebs_autoscale.policy.loop import BALANCE_PATIENCE_SECONDS, DISAGREEMENT_SECONDS
from ebs_autoscale.policy.settings import GrowthPolicy, Polling
from ebs_autoscale.telemetry.conditions import REMIND_AFTER_SECONDS
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.growths import Watch, balancing, done, failed, held, refused, said

HOUR = 3600.0


SLOW = GrowthPolicy(polling=Polling(min_seconds=5.0, max_seconds=5.0))


@pytest.fixture
def watch() -> Watch:
    """A loop over a filesystem with room."""
    return Watch()


def test_a_growth_that_sees_no_need_is_not_asked_at_once(watch: Watch) -> None:
    """When loop and growth disagree about the need, there is a pause between two growths."""
    watch.available_gib = 15
    watch.look_for(120)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert gaps
    assert min(gaps) >= DISAGREEMENT_SECONDS


@pytest.mark.parametrize("cause", [c for c in Cause if c is not Cause.UNBALANCED])
def test_failures_wait_by_their_cause(cause: Cause) -> None:
    """Growths that fail come never faster than their cause says, and never stop."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(cause)
    longest = cause.backoff.max_seconds
    # Enough for the waits to become the longest ones, and for some of these.
    period = max(HOUR, 5 * longest)
    watch.look_for(period)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert len(gaps) >= period / (longest + 11) - 1
    for attempts, gap in enumerate(gaps, start=1):
        delay = retry_delay_seconds(cause, attempts=attempts, jitter=1.0)
        assert delay <= gap <= delay + 11


def test_causes_do_not_inherit_each_others_waits() -> None:
    """A new cause begins with its own first wait, however often another one failed before."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(Cause.THROTTLED)
    watch.look_for(HOUR)
    watch.growths.starts_at.clear()
    watch.growths.course = lambda: failed(Cause.CAPACITY)
    watch.look_for(HOUR)
    first, second = watch.growths.starts_at[:2]
    assert second - first <= Cause.CAPACITY.backoff.first_seconds + 11


def test_waiting_for_a_lock_teaches_nothing_about_failures() -> None:
    """After a long wait for another process' growth, a first failure has its first wait."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.error = LockHeld("held by pid 7", cause=Cause.LOCKED)
    watch.look_for(HOUR)
    watch.growths.error = None
    watch.growths.course = lambda: failed(Cause.THROTTLED)
    watch.look_for(60)
    assert len(watch.growths.starts_at) >= 3


def test_success_ends_the_back_off() -> None:
    """After a growth went well, the next failure begins with the first wait again."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(Cause.THROTTLED)
    watch.look_for(HOUR)
    watch.growths.course = done
    watch.look_for(Cause.THROTTLED.backoff.max_seconds + 20)
    watch.growths.course = lambda: failed(Cause.THROTTLED)
    watch.growths.starts_at.clear()
    watch.look_for(60)
    assert len(watch.growths.starts_at) >= 3


def test_a_failure_is_told_when_it_begins_at_times_and_when_it_ends() -> None:
    """A cause is told once, reminded of every quarter of an hour or more, and its end is told."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(Cause.THROTTLED)
    watch.look_for(2 * HOUR)
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["throttled"]
    assert "(next retry in 5 s)" in watch.told(EventKind.CONDITION_BEGAN)[0]
    reminders = watch.told(EventKind.CONDITION_LASTS)
    assert 4 <= len(reminders) <= 2 * HOUR / REMIND_AFTER_SECONDS
    assert not watch.told(EventKind.GROWTH_FAILED)
    assert list(watch.view.conditions) == ["throttled"]

    watch.growths.course = done
    watch.available_gib = 50
    watch.look_for(HOUR)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["throttled"]
    assert watch.view.conditions == {}


def test_a_refused_limit_is_looked_at_again() -> None:
    """A limit is re-checked every few minutes as long as space is low, however long it lasts."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: refused(Cause.LIMIT_VOLUMES)
    watch.look_for(8 * HOUR)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert len(gaps) > 80
    assert max(gaps) <= 315
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["limits.volumes"]


def test_a_refusal_ends_with_its_need() -> None:
    """When files are deleted while a limit refuses, the refusal is over and that is told."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: refused(Cause.LIMIT_VOLUMES)
    watch.look_for(HOUR)
    watch.growths.course = held
    watch.available_gib = 50
    watch.look_for(600)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["limits.volumes"]
    assert watch.view.conditions == {}
    looks = len(watch.growths.starts_at)
    watch.look_for(HOUR)
    assert len(watch.growths.starts_at) == looks


def test_another_process_growth_is_waited_for(watch: Watch) -> None:
    """While another process grows, it is asked again every few seconds and nothing is alarmed."""
    watch.available_gib = 5
    watch.growths.error = LockHeld("held by pid 7", cause=Cause.LOCKED)
    watch.look_for(LOCKED_TOO_LONG_SECONDS)
    assert LOCKED_TOO_LONG_SECONDS / 6 <= watch.growths.attempts <= LOCKED_TOO_LONG_SECONDS
    assert not watch.events
    assert watch.view.activity

    watch.growths.error, watch.growths.course = None, done
    watch.look_for(10)
    assert len(watch.growths.starts_at) >= 1


def test_another_process_growth_that_lasts_is_an_alarm(watch: Watch) -> None:
    """Who holds the lock for a minute while space is short is named, and so is the end of it."""
    watch.look_for(60)
    watch.growths.error = LockHeld("held by pid 7", cause=Cause.LOCKED)
    watch.look_for(HOUR)
    assert not watch.causes(EventKind.CONDITION_BEGAN)
    watch.available_gib = 5
    watch.look_for(LOCKED_TOO_LONG_SECONDS + 6)
    (began,) = watch.told(EventKind.CONDITION_BEGAN)
    assert "5.0 % (5 GiB)" in began
    assert "held by pid 7" in began
    watch.growths.error, watch.available_gib = None, 50
    watch.look_for(10)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["locked"]


def test_each_wait_for_the_lock_has_its_own_minute(watch: Watch) -> None:
    """A lock met in an earlier shortage, which passed without us, does not count."""
    watch.look_for(60)
    watch.growths.error = LockHeld("held by pid 7", cause=Cause.LOCKED)
    for available_gib, seconds in ((5, 30), (50, HOUR), (5, 30)):
        watch.available_gib = available_gib
        watch.look_for(seconds)
    assert not watch.causes(EventKind.CONDITION_BEGAN)


@pytest.mark.parametrize("available_gib", [5, 50])
def test_another_process_growth_is_forgotten_when_it_is_over(
    watch: Watch, available_gib: float
) -> None:
    """Once the lock is free, nothing claims that another process grows."""
    watch.look_for(60)
    watch.growths.error = LockHeld("held by pid 7", cause=Cause.LOCKED)
    watch.available_gib = 5
    watch.look_for(20)
    watch.growths.error = None
    watch.available_gib = available_gib
    watch.look_for(20)
    assert watch.view.activity == ""


def test_what_cannot_start_is_a_condition(watch: Watch) -> None:
    """A growth that cannot even be started is told, and tried again with a back-off."""
    watch.growths.error = Unfit("cannot start a growth", cause=Cause.PROCESS)
    watch.look_for(60)
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["process"]
    assert 2 <= watch.growths.attempts <= 6


@pytest.mark.parametrize("others", [[], [Cause.DENIED], [Cause.UNUSED_VOLUMES, Cause.UNPROTECTED]])
def test_unbalanced_metadata_is_tried_again_later_but_delays_no_growth(
    others: list[Cause],
) -> None:
    """A balance is repeated after its back-off; a growth that is needed waits for no warning."""
    watch = Watch(policy=SLOW)
    causes = [*others, Cause.UNBALANCED]
    names = [cause.value for cause in causes]
    warnings = [said(EventKind.WARNING, "not good", cause=cause) for cause in causes]
    end = said(EventKind.GROWTH_DONE, decision=DecisionKind.GROW, seconds=6.0)
    watch.growths.course = lambda: [*((5.0, warning) for warning in warnings), (6.0, end)]
    watch.look_for(590)
    assert len(watch.growths.starts_at) == 1
    assert watch.causes(EventKind.CONDITION_BEGAN) == names
    assert watch.view.growths_since_start == 1

    watch.available_gib = 5
    watch.look_for(4)
    assert len(watch.growths.starts_at) == 2

    watch.available_gib = 50
    watch.growths.course = lambda: done(decision=DecisionKind.FINISH)
    watch.look_for(HOUR)
    assert sorted(watch.causes(EventKind.CONDITION_ENDED)) == sorted(names)
    assert watch.view.conditions == {}


def test_a_balance_goes_on_beside_a_refusal(watch: Watch) -> None:
    """While a limit refuses a growth, a balance is not stopped for it."""
    watch.look_for(60)
    (_, refusal), *_ = refused(Cause.LIMIT_TOTAL)
    watch.growths.course = lambda: [(0.5, refusal), (1.0, balancing()), (30.0, refusal)]
    watch.available_gib = 5
    watch.look_for(HOUR)
    assert not watch.growths.stops_at
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["limits.total"]
    assert (
        min(b - a for a, b in pairwise(watch.growths.starts_at[1:]))
        >= Cause.LIMIT_TOTAL.backoff.first_seconds
    )


def test_short_metadata_gives_a_balance_its_time(watch: Watch) -> None:
    """A balance makes room for metadata: it is stopped for another volume only after a minute."""
    watch.growths.course = lambda: [(1.0, balancing()), (5000.0, said(EventKind.GROWTH_DONE))]
    watch.look_for(20)
    watch.metadata_gib = 0.1
    watch.look_for(BALANCE_PATIENCE_SECONDS - 20)
    assert not watch.growths.stops_at
    watch.look_for(30)
    assert len(watch.growths.stops_at) == 1


def test_each_volume_left_over_is_finished(watch: Watch) -> None:
    """After one was finished the next look comes at once, and no alarm is over before it."""
    watch.growths.course = lambda: failed(Cause.STUCK_ATTACH)
    watch.look_for(20)
    watch.growths.course = lambda: done(decision=DecisionKind.FINISH, stage=Stage.CREATED)
    watch.look_for(30)
    assert not watch.causes(EventKind.CONDITION_ENDED)
    looks = len(watch.growths.starts_at)
    watch.growths.course = held
    watch.look_for(HOUR)
    assert len(watch.growths.starts_at) == looks + 1
    assert watch.causes(EventKind.CONDITION_ENDED) == ["stuck attach"]


def write(watch: Watch, seconds: float, mib_per_second: float) -> None:
    """Let a program write at a steady rate while the loop looks."""
    until = watch.clock.now_seconds() + seconds
    while watch.clock.now_seconds() < until:
        delay = watch.monitor.tick()
        watch.clock.sleep(delay)
        watch.available_gib = max(0.0, watch.available_gib - delay * mib_per_second / 1024)


@pytest.mark.parametrize(
    ("cause", "seconds"), [(Cause.EC2_ERROR, 10), (Cause.QUOTA, 30), (Cause.DENIED, 30)]
)
def test_with_a_writer_at_work_the_next_try_is_near(cause: Cause, seconds: float) -> None:
    """An outage, calm at first, then with a writer that has minutes left: tries within seconds."""
    watch = Watch(available_gib=15)
    watch.growths.course = lambda: failed(cause)
    watch.look_for(1200)
    watch.growths.starts_at.clear()
    write(watch, 120, 100)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert max(gaps[2:]) <= seconds + 2
    assert len(gaps) <= 120 / (seconds / 10)


def test_a_full_filesystem_is_urgent_without_a_rate() -> None:
    """Writers that fail show no rate; the next try is near nevertheless."""
    watch = Watch(available_gib=0)
    watch.growths.course = lambda: failed(Cause.EC2_ERROR)
    watch.look_for(600)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert max(gaps) <= 11


def test_long_waits_mention_the_reload() -> None:
    """Who has to act is told how to end the wait, and a reload does end it."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(Cause.DENIED)
    watch.look_for(60)
    [told] = watch.told(EventKind.CONDITION_BEGAN)
    assert "`systemctl reload ebs-autoscale`" in told
    starts = len(watch.growths.starts_at)
    watch.monitor.set_policy(SLOW)
    watch.look_for(6)
    assert len(watch.growths.starts_at) == starts + 1


def test_a_wait_lasts_as_long_as_it_says() -> None:
    """What lasts is told without the wait, which the view has as a moment: it is due or to come."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(Cause.DENIED)
    watch.look_for(60)
    [line] = watch.view.conditions.values()
    assert "retr" not in line
    retry_at = watch.view.retry_at
    assert retry_at is not None
    watch.look_for(30)
    assert watch.view.retry_at == retry_at
    assert retry_at > watch.clock.wall_seconds()


def test_a_decision_to_grow_ends_a_refusal() -> None:
    """Another failure after it does not show that the limit still holds."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: refused(Cause.LIMIT_TOTAL)
    watch.look_for(60)
    assert list(watch.view.conditions) == ["limits.total"]
    decided = said(EventKind.DECIDED, "grow: little available", decision=DecisionKind.GROW)
    watch.growths.course = lambda: [(0.1, decided), *failed(Cause.DENIED)]
    watch.monitor.set_policy(SLOW)
    watch.look_for(60)
    assert list(watch.view.conditions) == ["denied"]


def test_a_reload_ends_a_warning_that_is_no_longer_true() -> None:
    """What was put right meanwhile is no condition any more, without a shortage too."""
    watch = Watch(policy=SLOW)
    warning = said(EventKind.WARNING, "not protected", cause=Cause.UNPROTECTED)
    watch.growths.course = lambda: [(0.5, warning), *held()]
    watch.look_for(60)
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["unprotected"]
    watch.growths.course = held
    watch.look_for(60)
    assert watch.view.conditions
    watch.monitor.set_policy(SLOW)
    watch.look_for(10)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["unprotected"]
