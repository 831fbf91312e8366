"""The loop: when it starts growths, how it ends, what it tells and when."""

from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import GIB, DecisionKind, StepKind
from ebs_autoscale.monitor import (
    BOOT_SPREAD_SECONDS,
    BUGS_IN_A_ROW_MAX,
    GROWING_POLL_SECONDS,
    HEARTBEAT_EVERY_SECONDS,
)
from ebs_autoscale.policy.forecast import GROWTH_SECONDS_PRIOR
from ebs_autoscale.policy.settings import GrowthPolicy, Polling
from ebs_autoscale.telemetry.events import EventKind
from ebs_autoscale.telemetry.view import ManagedVolumes, State, View
from tests.simulated.clock import SimulatedClock
from tests.simulated.growths import Watch, balancing, done, held, said
from tests.unit.samples import reading_of

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
    assert "/scratch: 50.0 % (50 GiB) available, 1 device" in watch.told(EventKind.HEARTBEAT)[0]
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
    assert learned == pytest.approx([GROWTH_SECONDS_PRIOR, 100.0, 100.0, 55.0], abs=0.5)
    assert watch.view.growths_since_start == 4


def test_a_missing_mount_is_an_alarm(watch: Watch) -> None:
    """Without the mount nothing grows; it is told once, reminded of, and its end is told."""
    watch.look_for(60)
    watch.lasting_error = Unfit("/scratch is not mounted", hint="mount it", cause=Cause.NOT_MOUNTED)
    watch.available_gib = 1
    watch.look_for(HOUR)
    assert len(watch.growths.starts_at) == 1
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["not mounted"]
    (began,) = [event for event in watch.events if event.kind is EventKind.CONDITION_BEGAN]
    assert (began.sentence, began.hint) == ("/scratch is not mounted", "mount it")
    assert len(watch.told(EventKind.CONDITION_LASTS)) == 3
    assert watch.view.state is State.UNFIT

    watch.lasting_error = None
    watch.monitor.tick()
    assert watch.causes(EventKind.CONDITION_ENDED) == ["not mounted"]
    assert len(watch.growths.starts_at) == 2


def test_one_mount_alarm_at_a_time(watch: Watch) -> None:
    """When what is wrong with the mount changes, the old cause is over as the new one begins."""
    watch.errors = [
        Unfit("not mounted", cause=Cause.NOT_MOUNTED),
        Unfit("ro", cause=Cause.READ_ONLY),
    ]
    watch.monitor.tick()
    watch.monitor.tick()
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["not mounted", "read-only"]
    assert watch.causes(EventKind.CONDITION_ENDED) == ["not mounted"]


def test_a_balance_gives_way_to_growing(watch: Watch) -> None:
    """When space gets low while a growth only balances metadata, it is stopped for the next one."""
    watch.growths.course = lambda: [(1.0, balancing()), (5000.0, said(EventKind.GROWTH_DONE))]
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


def test_a_stop_ends_the_growth_in_order(watch: Watch) -> None:
    """At a stop the service manager hears of it first, then the growth ends and is told."""
    watch.growths.course = lambda: done(600.0)
    order: list[str] = []
    watch.clock.stop_at_seconds = watch.clock.now_seconds() + 60

    def stopping() -> None:
        assert not watch.growths.is_closed
        order.append("on_stop")

    assert watch.monitor.run(before_tick=lambda: None, on_stop=stopping) == 0
    assert order == ["on_stop"]
    assert watch.growths.is_closed
    assert len(watch.told(EventKind.GROWTH_STOPPED)) == 1


def test_a_stop_before_the_first_look_is_obeyed(watch: Watch) -> None:
    """Whoever is asked to stop before it began ends at its first wait."""
    watch.clock.stopping = True
    assert watch.monitor.run(before_tick=lambda: None, on_stop=lambda: None) == 0
    assert watch.growths.is_closed


def test_a_stopped_growth_is_taken_up_again(watch: Watch) -> None:
    """A growth that somebody ended is finished by the next one, though space is not low."""
    watch.growths.course = lambda: [(1.0, said(EventKind.GROWTH_STOPPED))]
    watch.look_for(6)
    watch.growths.course = held
    watch.look_for(60)
    assert len(watch.growths.starts_at) == 2


def test_the_first_look_is_spread(watch: Watch) -> None:
    """A fleet that restarts together spreads its first looks at EC2 over a poll period."""
    watch.look_for(60)
    assert watch.growths.starts_at == [1000 + watch.policy.polling.max_seconds]


@pytest.mark.parametrize(
    ("booted_at", "available_gib", "looks_at"),
    [(980.0, 50, 1100.0), (980.0, 5, 1000.0), (1000.0 - BOOT_SPREAD_SECONDS, 50, 1005.0)],
)
def test_a_fleet_does_not_boot_to_one_moment(
    booted_at: float, available_gib: float, looks_at: float
) -> None:
    """First looks are spread over two minutes from boot, unless space is short."""
    clock = SimulatedClock()
    clock.booted_at_seconds = booted_at
    watch = Watch(clock=clock, available_gib=available_gib)
    watch.look_for(150)
    assert watch.growths.starts_at[0] == looks_at


def test_a_bug_ends_its_tick_only(watch: Watch) -> None:
    """Unexpected errors, fewer than five in a row, are told and the loop goes on."""
    watch.errors = [RuntimeError("oops")] * (BUGS_IN_A_ROW_MAX - 1)
    assert watch.run(60) == 0
    bugs = watch.told(EventKind.BUG)
    assert len(bugs) == BUGS_IN_A_ROW_MAX - 1
    assert all("RuntimeError: oops" in bug for bug in bugs)
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


def test_what_ec2_said_is_known_until_a_device_comes_otherwise(watch: Watch) -> None:
    """What the latest growth found is shown, until an operator grows: that it has not seen."""
    found = ManagedVolumes(
        volumes=2,
        size_bytes=40 * GIB,
        orphans=1,
        slots_free=24,
        usd_per_month=3.2,
        cost="about 3.20 USD a month",
    )
    inventory = said(EventKind.INVENTORY, **asdict(found))
    hold = said(EventKind.DECIDED, decision=DecisionKind.HOLD)
    watch.growths.course = lambda: [(0.4, inventory), (0.5, hold)]
    watch.look_for(60)
    assert watch.view.managed == found
    assert View.from_report(watch.view.report()).managed == found
    watch.listed = reading_of(100, 50, devices=2).devices
    watch.look_for(10)
    assert watch.view.managed == ManagedVolumes()


def test_a_growth_is_looked_after_often(watch: Watch) -> None:
    """While a growth runs the loop looks several times a second, and shows its step."""
    watch.growths.course = lambda: done(30.0)
    watch.look_for(5)
    watch.look_for(10)
    assert watch.clock.slept >= 10 / GROWING_POLL_SECONDS
    assert watch.view.state is State.GROWING
    assert watch.view.activity == "attach the volume"
    assert watch.view.step is StepKind.ATTACH_VOLUME


def test_a_filling_filesystem_grows_before_the_floor(watch: Watch) -> None:
    """The fill rate is measured from the readings and handed to the growth."""
    watch.look_for(20)
    watch.growths.course = done
    while len(watch.growths.starts_at) < 2:
        watch.available_gib -= 1.5 * watch.monitor.tick()
        watch.clock.sleep(1.0)
    assert watch.available_gib > 20
    assert watch.growths.forecasts[-1].fill_bytes_per_second > 0


def test_a_lost_reserve_is_made_again(watch: Watch) -> None:
    """It is told, a growth makes it again at once, and its end is told."""
    watch.monitor.set_reserve(None)
    watch.reserve_bytes = GIB
    watch.look_for(60)
    assert len(watch.growths.starts_at) == 1
    watch.reserve_bytes = 0
    watch.monitor.tick()
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["reserve missing"]
    assert len(watch.growths.starts_at) == 2
    watch.reserve_bytes = GIB
    watch.look_for(60)
    assert watch.causes(EventKind.CONDITION_ENDED) == ["reserve missing"]
    assert len(watch.growths.starts_at) == 2


def test_a_reserve_that_never_lasts_costs_little(watch: Watch) -> None:
    """Somebody who goes on removing it causes a few looks an hour, and delays no growth."""
    watch.monitor.set_reserve(None)
    watch.look_for(HOUR)
    assert 5 < len(watch.growths.starts_at) < 13
    assert watch.causes(EventKind.CONDITION_BEGAN) == ["reserve missing"]
    watch.available_gib = 5
    at = watch.clock.now_seconds()
    watch.monitor.tick()
    assert watch.growths.starts_at[-1] == at


def test_without_a_reserve_none_is_missed(watch: Watch) -> None:
    """Configured off, or too dear for what is available, it is no reason for anything."""
    watch.look_for(HOUR)
    watch.monitor.set_reserve(None)
    watch.available_gib = 20.1
    watch.look_for(HOUR)
    assert len(watch.growths.starts_at) == 1
    assert not watch.told(EventKind.CONDITION_BEGAN)


def test_the_space_of_a_larger_device_is_used(watch: Watch) -> None:
    """A growth looks after each new size of a device at once; if it is not ours, only once."""

    def starts(*, capacity_gib: int, size_gib: int, seconds: float) -> int:
        before = len(watch.growths.starts_at)
        watch.listed = tuple(
            replace(device, size_bytes=size_gib * GIB, capacity_bytes=capacity_gib * GIB)
            for device in watch.listed
        )
        watch.monitor.tick()
        at_once = len(watch.growths.starts_at) - before
        watch.look_for(seconds)
        assert len(watch.growths.starts_at) - before == at_once
        return at_once

    watch.look_for(HOUR)
    assert starts(capacity_gib=2, size_gib=1, seconds=HOUR) == 1
    assert starts(capacity_gib=3, size_gib=1, seconds=60) == 1
    assert starts(capacity_gib=3, size_gib=3, seconds=60) == 0
    assert starts(capacity_gib=4, size_gib=3, seconds=60) == 1
