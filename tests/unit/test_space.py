"""When space is low, how fast it goes, when to look again, how much to add."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.model import GIB, Reading
from ebs_autoscale.policy.forecast import Forecast, fill_rate, sustained_rate
from ebs_autoscale.policy.settings import GrowthPolicy, LadderStep, Polling, Sizing, Threshold
from ebs_autoscale.policy.shortage import (
    Resource,
    lead_time_seconds,
    poll_delay_seconds,
    seconds_until_full,
    shortage_of,
)
from tests.unit.samples import MIB, reading_of

QUIET = Forecast()
LADDER = (
    LadderStep(devices=1, available_percent=50, size_bytes=150 * GIB),
    LadderStep(devices=4, available_percent=10, size_bytes=300 * GIB),
)

sizes = st.integers(min_value=1 * GIB, max_value=64 * 1024 * GIB)
shares = st.floats(min_value=0, max_value=1)
rates = st.floats(min_value=0, max_value=10 * GIB)


@pytest.mark.parametrize(
    ("size_gib", "available_gib", "said"),
    [
        (100, 20, ""),
        (100, 19.99, " 20 %"),
        (100, 0, " 20 %"),
        (40, 10, ""),
        (40, 9.9, " 10 GiB"),
        (40, 7.9, " 20 %"),
        (20, 10, ""),
        (20, 9.9, " 10 GiB"),
        (10, 5, ""),  # half of it, where it is smaller than 20 GiB
        (10, 4.9, " 5 GiB"),
        (5, 2.4, " 2.5 GiB"),
        (0, 0, " 20 %"),
    ],
)
def test_either_floor_calls_for_growth(size_gib: float, available_gib: float, said: str) -> None:
    """Space is low below the share or below the reserve, and the reason names the one crossed."""
    shortage = shortage_of(reading_of(size_gib, available_gib), GrowthPolicy(), QUIET)
    assert (shortage.sentence.endswith(said) if shortage else said == "") is True


@pytest.mark.parametrize(
    ("lead_time", "rate_gib", "low"),
    [
        (None, 1.2, False),
        (None, 1.3, True),
        (None, 0.0, False),
        (90.0, 0.5, False),
        (90.0, 0.6, True),
        (0.0, 50.0, False),
    ],
)
def test_growth_begins_before_space_would_be_gone(
    lead_time: float | None, rate_gib: float, *, low: bool
) -> None:
    """With 50 GiB left, growth starts when they last less than the lead time; 0 turns it off."""
    policy = GrowthPolicy(threshold=Threshold(lead_time_seconds=lead_time))
    forecast = Forecast(fill_bytes_per_second=rate_gib * GIB)
    assert bool(shortage_of(reading_of(100, 50), policy, forecast)) == low


def test_lead_time_follows_what_growths_took() -> None:
    """Auto is twice what a growth takes here; a configured time is taken as it is."""
    slow = Forecast(growth_seconds=100)
    assert lead_time_seconds(GrowthPolicy(), slow) == 200
    fixed = GrowthPolicy(threshold=Threshold(lead_time_seconds=7))
    assert lead_time_seconds(fixed, slow) == 7


@pytest.mark.parametrize(
    ("size_gib", "headroom_mib", "growth_seconds", "low"),
    [
        (1000, 1145, 20, False),
        (1000, 1144, 20, True),
        (1000, 257, 1, False),
        (1000, 255, 1, True),
        (20, 1000, 600, True),
        (20, 1025, 600, False),
    ],
)
def test_scarce_metadata_calls_for_growth(
    size_gib: int, headroom_mib: int, growth_seconds: float, *, low: bool
) -> None:
    """Metadata must outlast the lead time and have 256 MiB, or a 20th of a small filesystem."""
    reading = reading_of(size_gib, size_gib, metadata_headroom_bytes=headroom_mib * MIB)
    shortage = shortage_of(reading, GrowthPolicy(), Forecast(growth_seconds=growth_seconds))
    assert (shortage.of is Resource.METADATA if shortage else False) == low


@given(size=sizes, share=shares, more=shares, rate=rates)
def test_more_room_never_makes_space_low(size: int, share: float, more: float, rate: float) -> None:
    """What is comfortable stays so with more available."""
    less, most = sorted((int(size * share), int(size * more)))
    forecast = Forecast(fill_bytes_per_second=rate)
    reading = reading_of(size / GIB, 0)
    if not shortage_of(replace(reading, available_bytes=less), GrowthPolicy(), forecast):
        assert not shortage_of(replace(reading, available_bytes=most), GrowthPolicy(), forecast)


@given(
    size=sizes, share=shares, more=shares, rate=rates, bounds=st.tuples(shares, shares).map(sorted)
)
def test_poll_delay_is_bounded_and_monotone(
    size: int, share: float, more: float, rate: float, bounds: list[float]
) -> None:
    """The delay stays within poll.min and poll.max, and more room never shortens it."""
    policy = GrowthPolicy(polling=Polling(min_seconds=bounds[0], max_seconds=bounds[1]))
    forecast = Forecast(fill_bytes_per_second=rate)
    reading = reading_of(size / GIB, 0)
    delays = [
        poll_delay_seconds(replace(reading, available_bytes=available), policy, forecast)
        for available in sorted((int(size * share), int(size * more)))
    ]
    assert delays == sorted(delays)
    assert all(bounds[0] <= delay <= bounds[1] for delay in delays)


@given(size=sizes, share=shares, rate=rates)
def test_no_writer_passes_the_trigger_between_two_looks(
    size: int, share: float, rate: float
) -> None:
    """Above poll.min, the delay ends before a writer of 2 GiB/s could reach the trigger."""
    delay = poll_delay_seconds(
        reading_of(size / GIB, size * share / GIB),
        GrowthPolicy(),
        Forecast(fill_bytes_per_second=rate),
    )
    left = size * share - max(size * 0.2, min(10 * GIB, size / 2))
    assert delay == 0.1 or max(rate, 2 * GIB) * delay <= left + 1


def steady(rate: int, *, seconds: float, every: float = 0.5, start: float = 0.0) -> list[Reading]:
    """Readings of a filesystem that fills at a rate of bytes a second."""
    count = int(seconds / every) + 1
    return [
        replace(
            reading_of(1000, 0),
            taken_at_seconds=start + i * every,
            available_bytes=900 * GIB - int(rate * i * every),
            used_bytes=100 * GIB + int(rate * i * every),
        )
        for i in range(count)
    ]


@given(rate=st.integers(min_value=0, max_value=10 * GIB), seconds=st.floats(5, 60))
def test_a_steady_writer_is_measured(rate: int, seconds: float) -> None:
    """At a steady rate the fill rate is that rate, whatever the window sees of it."""
    assert fill_rate(steady(rate, seconds=seconds)) == pytest.approx(rate, rel=0.01, abs=2)


@given(rate=st.integers(min_value=0, max_value=10 * GIB), seconds=st.floats(10, 60))
def test_a_steady_writer_is_a_trend(rate: int, seconds: float) -> None:
    """What goes on through both halves of the longest window is sustained."""
    assert sustained_rate(steady(rate, seconds=seconds)) == pytest.approx(rate, rel=0.01, abs=2)


@given(jump=st.integers(min_value=0, max_value=800 * GIB), at=st.integers(0, 40))
def test_what_comes_at_once_is_no_trend(jump: int, at: int) -> None:
    """However much is booked in one moment, nothing of it is sustained."""
    readings = [
        replace(r, used_bytes=r.used_bytes + jump, available_bytes=r.available_bytes - jump)
        if i >= at
        else r
        for i, r in enumerate(steady(0, seconds=20))
    ]
    assert all(sustained_rate(readings[: i + 1]) == 0 for i in range(len(readings)))


def test_a_small_burst_waits_for_its_window() -> None:
    """In the shortest window a rate counts only once a twentieth of what is left is gone."""
    still = steady(0, seconds=5, every=0.25)
    for share, counts in ((1 / 21, False), (1 / 19, True)):
        last = still[-1]
        taken = int(share * last.available_bytes)
        burst = [
            replace(
                last,
                taken_at_seconds=last.taken_at_seconds + 0.25 * part,
                available_bytes=last.available_bytes - int(taken * part),
                used_bytes=last.used_bytes + int(taken * part),
            )
            for part in (0.1, 1.0)
        ]
        assert (fill_rate([*still, *burst]) > 1.5 * taken) == counts


@given(jump=st.integers(min_value=0, max_value=800 * GIB), at=st.integers(0, 40))
def test_one_large_step_is_no_rate(jump: int, at: int) -> None:
    """However much is booked in one moment, it says nothing about the next."""
    readings = [
        replace(r, used_bytes=r.used_bytes + jump, available_bytes=r.available_bytes - jump)
        if i >= at
        else r
        for i, r in enumerate(steady(0, seconds=20))
    ]
    assert all(fill_rate(readings[: i + 1]) == 0 for i in range(len(readings)))


def test_nothing_is_concluded_from_too_little() -> None:
    """No reading, one reading or an instant of readings give no rate."""
    assert fill_rate([]) == sustained_rate([]) == 0
    assert fill_rate(steady(GIB, seconds=0)) == 0
    assert fill_rate(steady(GIB, seconds=0.9, every=0.1)) == 0


def test_a_burst_shows_at_once_and_lasts() -> None:
    """A burst counts at its own rate in the short window, after it still in the long one."""
    burst = [*steady(0, seconds=8), *steady(GIB, seconds=2, start=8.5)]
    assert fill_rate(burst) == pytest.approx(GIB, rel=0.05)
    last = burst[-1]
    after = [replace(last, taken_at_seconds=10.5 + i / 2) for i in range(1, 7)]
    assert 0 < fill_rate([*burst, *after]) < GIB


@given(rate=st.integers(min_value=0, max_value=GIB), at=st.integers(1, 19), added=sizes)
def test_a_growth_in_between_is_no_delete(rate: int, at: int, added: int) -> None:
    """A device added while a writer goes on leaves the fill rate as it is."""
    readings = [
        replace(r, size_bytes=r.size_bytes + added, available_bytes=r.available_bytes + added)
        if i >= at
        else r
        for i, r in enumerate(steady(rate, seconds=10))
    ]
    assert fill_rate(readings) == pytest.approx(rate, rel=0.01, abs=2)


@given(at=st.integers(1, 19))
def test_deleted_files_are_no_rate_below_zero(at: int) -> None:
    """Freed space gives no negative rate."""
    readings = [
        replace(r, available_bytes=950 * GIB, used_bytes=50 * GIB) if i >= at else r
        for i, r in enumerate(steady(0, seconds=10))
    ]
    assert fill_rate(readings) == 0


def test_a_pause_is_no_burst() -> None:
    """What was written while nobody looked does not count as written in an instant."""
    before, after = steady(0, seconds=2), steady(0, seconds=0.4, every=0.1, start=3600)
    grown = [replace(r, available_bytes=100 * GIB, used_bytes=900 * GIB) for r in after]
    assert fill_rate([*before, *grown]) == 0


@pytest.mark.parametrize(("devices", "percent"), [(1, 50), (3, 50), (4, 10), (9, 10)])
def test_the_ladder_has_its_own_shares(devices: int, percent: float) -> None:
    """The rung reached decides the share that calls for growth, in place of the threshold."""
    policy = GrowthPolicy(sizing=Sizing(steps=LADDER))
    assert not shortage_of(reading_of(1000, percent * 10, devices=devices), policy, QUIET)
    assert shortage_of(reading_of(1000, percent * 10 - 1, devices=devices), policy, QUIET)


def test_a_lead_time_without_end_is_said_in_numbers() -> None:
    """An endless growth makes any fill a shortage, and the reason can still be told."""
    forecast = Forecast(fill_bytes_per_second=1, growth_seconds=inf)
    shortage = shortage_of(reading_of(1000, 900), GrowthPolicy(), forecast)
    assert shortage
    assert "inf s" in shortage.sentence


@pytest.mark.parametrize(
    ("available_gib", "metadata_mib", "mib_per_second", "seconds"),
    [
        (10, 1000, 0, inf),
        (10, 1000, 10, 1024),
        (10, 1000, 1024, 10),
        (0, 1000, 0, 0),
        (0.09, 1000, 0, 0),
        (10, 4, 0, 0),
    ],
)
def test_time_until_full(
    available_gib: float, metadata_mib: int, mib_per_second: float, seconds: float
) -> None:
    """It lasts as long as the rate lets it, for ever without a writer, no time once it is full."""
    reading = reading_of(100, available_gib, metadata_headroom_bytes=metadata_mib * MIB)
    forecast = Forecast(fill_bytes_per_second=mib_per_second * MIB)
    assert seconds_until_full(reading, forecast) == seconds
