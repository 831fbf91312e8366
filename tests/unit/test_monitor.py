"""The loop: when it starts growths, how it waits, what it tells and when."""

from itertools import pairwise

import pytest

from ebs_autoscale.backoff import BY_CAUSE, DEFAULT, retry_delay_seconds
from ebs_autoscale.conditions import REMIND_AFTER_SECONDS
from ebs_autoscale.errors import LockHeld, Unfit
from ebs_autoscale.events import EventKind
from ebs_autoscale.monitor import (
    BUGS_IN_A_ROW_MAX,
    DISAGREEMENT_SECONDS,
    GROWING_POLL_SECONDS,
    HEARTBEAT_EVERY_SECONDS,
)
from ebs_autoscale.rules import GrowthPolicy, Polling
from ebs_autoscale.space import GROWTH_SECONDS_PRIOR
from tests.simulated.growths import Watch, done, failed, held, refused, said

HOUR = 3600.0
SLOW = GrowthPolicy(polling=Polling(min_seconds=5.0, max_seconds=5.0))


@pytest.fixture
def watch() -> Watch:
    """A loop over a filesystem with room."""
    return Watch()


@pytest.mark.parametrize("hours", [1, 24])
def test_idling_costs_one_look_and_a_line_an_hour(watch: Watch, hours: int) -> None:
    """With room, one growth looks at start-up; after it there are heartbeats and nothing else."""
    assert watch.run(hours * HOUR + 1) == 0
    assert len(watch.growths.starts_at) == 1
    assert len(watch.told(EventKind.HEARTBEAT)) == hours
    assert len(watch.told(EventKind.DECIDED)) == 1
    assert len(watch.events) == hours + 1
    assert watch.told(EventKind.HEARTBEAT)[0] == (
        "watching /scratch: 50.0 % (50 GiB) available, 1 members"
    )
    assert watch.clock.slept < hours * HOUR / watch.policy.polling.max_seconds + 10


def test_a_heartbeat_comes_every_hour(watch: Watch) -> None:
    """Heartbeats are an hour apart, to a tick."""
    for hour in range(1, 4):
        watch.look_for(HEARTBEAT_EVERY_SECONDS)
        assert len(watch.told(EventKind.HEARTBEAT)) in {hour - 1, hour}
    assert len(watch.told(EventKind.HEARTBEAT)) >= 2


def test_a_low_filesystem_grows_at_once(watch: Watch) -> None:
    """The first look that sees little space starts a growth, before any wait."""
    watch.look_for(60)
    watch.available_gib = 15
    watch.growths.course = done
    at = watch.clock.now_seconds()
    watch.monitor.tick()
    assert watch.growths.starts_at[1:] == [at]


def test_growths_follow_one_another_while_space_is_low(watch: Watch) -> None:
    """When one growth did not make enough room the next follows at once; never two together."""
    watch.available_gib, watch.growths.course = 5, done
    watch.look_for(60)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert len(gaps) > 5
    assert all(6.0 <= gap <= 6.0 + 2 * GROWING_POLL_SECONDS for gap in gaps)


def test_growths_teach_how_long_they_take(watch: Watch) -> None:
    """Slower growths lengthen the lead time at once, quicker ones shorten it by half-ways."""
    watch.available_gib = 5
    watch.growths.course = lambda: done(100.0)
    watch.look_for(150)
    watch.growths.course = lambda: done(10.0)
    watch.look_for(75)
    learned = [forecast.growth_seconds for forecast in watch.growths.forecasts[:4]]
    assert learned == [GROWTH_SECONDS_PRIOR, 100.0, 100.0, 55.0]
    assert watch.view["growths_since_start"] == 4


def test_a_growth_that_sees_no_need_is_not_asked_at_once(watch: Watch) -> None:
    """When loop and growth disagree about the need, there is a pause between two growths."""
    watch.available_gib = 15
    watch.look_for(120)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert gaps
    assert min(gaps) >= DISAGREEMENT_SECONDS


@pytest.mark.parametrize("cause", [*sorted(BY_CAUSE.keys() - {"unsettled"}), "some other"])
def test_failures_wait_by_their_cause(cause: str) -> None:
    """Growths that fail come never faster than the table says for the cause, and never stop."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed(cause)
    watch.look_for(5 * HOUR)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    longest = BY_CAUSE.get(cause, DEFAULT).max_seconds
    assert len(gaps) >= 5 * HOUR / (longest + 11) - 1
    for attempts, gap in enumerate(gaps, start=1):
        delay = retry_delay_seconds(cause, attempts=attempts, jitter=1.0)
        assert delay <= gap <= delay + 11


def test_causes_do_not_inherit_each_others_waits() -> None:
    """A new cause begins with its own first wait, however often another one failed before."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed("throttled")
    watch.look_for(HOUR)
    watch.growths.starts_at.clear()
    watch.growths.course = lambda: failed("capacity")
    watch.look_for(HOUR)
    first, second = watch.growths.starts_at[:2]
    assert second - first <= BY_CAUSE["capacity"].first_seconds + 11


def test_waiting_for_a_lock_teaches_nothing_about_failures() -> None:
    """After a long wait for somebody else's growth, a first failure has its first wait."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.error = LockHeld("held by pid 7", cause="locked")
    watch.look_for(HOUR)
    watch.growths.error = None
    watch.growths.course = lambda: failed("throttled")
    watch.look_for(60)
    assert len(watch.growths.starts_at) >= 3


def test_success_ends_the_back_off() -> None:
    """After a growth went well, the next failure begins with the first wait again."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed("throttled")
    watch.look_for(HOUR)
    watch.growths.course = done
    watch.look_for(DEFAULT.max_seconds + 20)
    watch.growths.course = lambda: failed("throttled")
    watch.growths.starts_at.clear()
    watch.look_for(60)
    assert len(watch.growths.starts_at) >= 3


def test_a_failure_is_told_when_it_begins_at_times_and_when_it_ends() -> None:
    """A cause is told once, reminded of every quarter of an hour or more, and its end is told."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: failed("throttled")
    watch.look_for(2 * HOUR)
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["throttled"]
    assert watch.told(EventKind.CONDITION_BEGAN) == ["it failed: throttled (next try in 5 s)"]
    reminders = watch.told(EventKind.CONDITION_LASTS)
    assert 4 <= len(reminders) <= 2 * HOUR / REMIND_AFTER_SECONDS
    assert not watch.told(EventKind.GROWTH_FAILED)
    assert "throttled" in str(watch.view["conditions"])

    watch.growths.course = done
    watch.available_gib = 50
    watch.look_for(HOUR)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["throttled"]
    assert watch.view["conditions"] == {}


def test_a_refused_limit_is_looked_at_again() -> None:
    """A limit is re-checked every few minutes as long as space is low, however long it lasts."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: refused("limits.volumes")
    watch.look_for(24 * HOUR)
    gaps = [later - earlier for earlier, later in pairwise(watch.growths.starts_at)]
    assert len(gaps) > 200
    assert max(gaps) <= 315
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["limits.volumes"]


def test_a_refusal_ends_with_its_need() -> None:
    """When files are deleted while a limit refuses, the refusal is over and that is told."""
    watch = Watch(policy=SLOW, available_gib=5)
    watch.growths.course = lambda: refused("limits.volumes")
    watch.look_for(HOUR)
    watch.growths.course = held
    watch.available_gib = 50
    watch.look_for(600)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["limits.volumes"]
    assert watch.view["conditions"] == {}
    looks = len(watch.growths.starts_at)
    watch.look_for(HOUR)
    assert len(watch.growths.starts_at) == looks


def test_a_missing_mount_is_an_alarm(watch: Watch) -> None:
    """Without the mount nothing grows; it is told once, reminded of, and its end is told."""
    watch.look_for(60)
    watch.lasting_error = Unfit("/scratch is not mounted", hint="mount it", cause="not mounted")
    watch.available_gib = 1
    watch.look_for(HOUR)
    assert len(watch.growths.starts_at) == 1
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["not mounted"]
    assert watch.told(EventKind.CONDITION_BEGAN) == ["/scratch is not mounted; mount it"]
    assert len(watch.told(EventKind.CONDITION_LASTS)) == 3
    assert watch.view["state"] == "unfit"

    watch.lasting_error = None
    watch.monitor.tick()
    assert watch.causes(EventKind.CONDITION_ENDED) == ["not mounted"]
    assert len(watch.growths.starts_at) == 2


def test_one_mount_alarm_at_a_time(watch: Watch) -> None:
    """When what is wrong with the mount changes, the old cause is over as the new one begins."""
    watch.errors = [Unfit("not mounted", cause="not mounted"), Unfit("ro", cause="read-only")]
    watch.monitor.tick()
    watch.monitor.tick()
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["not mounted", "read-only"]
    assert watch.causes(EventKind.CONDITION_ENDED) == ["not mounted"]


def test_somebody_elses_growth_is_waited_for(watch: Watch) -> None:
    """While another process grows, it is asked again every few seconds and nothing is alarmed."""
    watch.available_gib = 5
    watch.growths.error = LockHeld("held by pid 7", cause="locked")
    watch.look_for(120)
    assert 120 / 6 <= watch.growths.attempts <= 120
    assert not watch.events
    assert watch.view["activity"] == "another process is growing this filesystem"

    watch.growths.error, watch.growths.course = None, done
    watch.look_for(10)
    assert len(watch.growths.starts_at) >= 1


@pytest.mark.parametrize("available_gib", [5, 50])
def test_somebody_elses_growth_is_forgotten_when_it_is_over(
    watch: Watch, available_gib: float
) -> None:
    """Once the lock is free, nothing claims that another process grows."""
    watch.look_for(60)
    watch.growths.error = LockHeld("held by pid 7", cause="locked")
    watch.available_gib = 5
    watch.look_for(20)
    watch.growths.error = None
    watch.available_gib = available_gib
    watch.look_for(20)
    assert watch.view["activity"] == ""


def test_what_cannot_start_is_a_condition(watch: Watch) -> None:
    """A growth that cannot even be started is told, and tried again with a back-off."""
    watch.growths.error = Unfit("cannot start a growth", cause="process")
    watch.look_for(60)
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["process"]
    assert 2 <= watch.growths.attempts <= 6


def test_settling_gives_way_to_growing(watch: Watch) -> None:
    """When space gets low while a growth only settles metadata, it is stopped for the next one."""
    settle = said(EventKind.STEP_STARTED, "settle metadata", step="Settle")
    watch.growths.course = lambda: [(1.0, settle), (5000.0, said(EventKind.GROWTH_DONE))]
    watch.look_for(60)
    assert not watch.growths.stops_at
    watch.available_gib, watch.growths.course = 5, done
    watch.look_for(5)
    assert len(watch.growths.stops_at) == 1
    assert len(watch.growths.starts_at) == 2


def test_other_steps_are_not_stopped(watch: Watch) -> None:
    """A growth that still has to bring space is left alone, however low it gets."""
    watch.growths.course = lambda: done(600.0)
    watch.look_for(5)
    watch.available_gib = 1
    watch.look_for(300)
    assert not watch.growths.stops_at


def test_unsettled_metadata_is_tried_again_later_but_delays_no_growth() -> None:
    """Settling again waits for its back-off; a growth that is needed does not wait for it."""
    watch = Watch(policy=SLOW)
    warning = said(EventKind.WARNING, "not settled", cause="unsettled")
    end = said(EventKind.GROWTH_DONE, decision="grow", seconds=6.0)
    watch.growths.course = lambda: [(5.0, warning), (6.0, end)]
    watch.look_for(590)
    assert len(watch.growths.starts_at) == 1
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["unsettled"]
    assert watch.view["growths_since_start"] == 1

    watch.available_gib = 5
    watch.look_for(4)
    assert len(watch.growths.starts_at) == 2

    watch.available_gib = 50
    watch.growths.course = lambda: done(decision="finish")
    watch.look_for(HOUR)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["unsettled"]
    assert watch.view["conditions"] == {}


def test_a_stop_ends_the_growth_in_order(watch: Watch) -> None:
    """At a stop the service manager hears of it first, then the growth ends and is told."""
    watch.growths.course = lambda: done(600.0)
    order: list[str] = []
    watch.clock.stop_at_seconds = watch.clock.now_seconds() + 60

    def stopping() -> None:
        assert not watch.growths.is_closed
        order.append("on_stop")

    assert watch.monitor.run(on_stop=stopping) == 0
    assert order == ["on_stop"]
    assert watch.growths.is_closed
    assert len(watch.told(EventKind.GROWTH_STOPPED)) == 1


def test_a_stop_before_the_first_look_is_obeyed(watch: Watch) -> None:
    """Whoever is asked to stop before it began ends at its first wait."""
    watch.clock.stopping = True
    assert watch.monitor.run(on_stop=lambda: None) == 0
    assert watch.growths.is_closed


def test_a_stopped_growth_is_taken_up_again(watch: Watch) -> None:
    """A growth that somebody ended is finished by the next one, though space is not low."""
    watch.growths.course = lambda: [(1.0, said(EventKind.GROWTH_STOPPED))]
    watch.look_for(1)
    watch.growths.course = held
    watch.look_for(60)
    assert len(watch.growths.starts_at) == 2


def test_a_bug_ends_its_tick_only(watch: Watch) -> None:
    """Unexpected errors, fewer than five in a row, are told and the loop goes on."""
    watch.errors = [RuntimeError("oops")] * (BUGS_IN_A_ROW_MAX - 1)
    assert watch.run(60) == 0
    bugs = watch.told(EventKind.BUG)
    assert bugs == ["unexpected RuntimeError: oops; please report it"] * (BUGS_IN_A_ROW_MAX - 1)
    assert len(watch.growths.starts_at) == 1


def test_five_bugs_in_a_row_end_the_daemon(watch: Watch) -> None:
    """A loop that only ever fails ends with exit status 1, its growth closed."""
    watch.lasting_error = RuntimeError("oops")
    assert watch.run(HOUR) == 1
    assert len(watch.told(EventKind.BUG)) == BUGS_IN_A_ROW_MAX
    assert watch.growths.is_closed


def test_a_decision_is_told_when_it_changes(watch: Watch) -> None:
    """The same decision again is not told again; another one is."""
    watch.available_gib = 15
    watch.look_for(60)
    assert watch.told(EventKind.DECIDED) == ["hold: 50 % available"]
    watch.growths.course = done
    watch.look_for(60)
    assert watch.told(EventKind.DECIDED) == ["hold: 50 % available", "grow: little available"]


def test_a_growth_is_looked_after_often(watch: Watch) -> None:
    """While a growth runs the loop looks several times a second, and shows its step."""
    watch.growths.course = lambda: done(30.0)
    watch.look_for(10)
    assert watch.clock.slept >= 10 / GROWING_POLL_SECONDS
    assert watch.view["state"] == "growing"
    assert watch.view["activity"] == "attach the volume"
    assert watch.view["step"] == "AttachVolume"


def test_a_filling_filesystem_grows_before_the_floor(watch: Watch) -> None:
    """The fill rate is measured from the readings and handed to the growth."""
    watch.look_for(20)
    watch.growths.course = done
    while len(watch.growths.starts_at) < 2:
        watch.available_gib -= 1.5 * watch.monitor.tick()
        watch.clock.sleep(1.0)
    assert watch.available_gib > 20
    assert watch.growths.forecasts[-1].fill_bytes_per_second > 0
