"""How high usage is expected to rise where it came back down before."""

from dataclasses import replace
from itertools import pairwise

import pytest

from ebs_autoscale.model import GIB
from ebs_autoscale.policy.forecast import FillHistory, Forecast
from tests.unit.samples import reading_of

LEAD_SECONDS = 40.0


def forecast_of(*course: tuple[float, float]) -> Forecast:
    """The forecast after usage went through these points, in seconds and GiB, in a line each."""
    history = FillHistory()
    for (began, low), (ended, high) in pairwise(course):
        for step in range(10):
            used = low + (high - low) * step / 10
            reading = reading_of(100, 100 - used)
            now = began + (ended - began) * step / 10
            history.add(replace(reading, taken_at_seconds=now), LEAD_SECONDS)
    now, used = course[-1]
    history.add(replace(reading_of(100, 100 - used), taken_at_seconds=now), LEAD_SECONDS)
    return history.forecast


@pytest.mark.parametrize(
    ("course", "ceiling_gib"),
    [
        ([(0, 0), (5, 20)], None),
        ([(0, 0), (5, 20), (6, 0)], 30),
        ([(0, 10), (5, 30), (6, 10)], 40),
        # No more than half of it is gone.
        ([(0, 0), (5, 20), (6, 11)], None),
        # Too low to bring a growth.
        ([(0, 0), (5, 4), (6, 0)], None),
        # Longer than a growth takes.
        ([(0, 0), (50, 20), (51, 0)], None),
        # After a day on which hardly anything was written.
        ([(0, 0), (86400, 1), (86405, 20), (86406, 1)], 29.5),
        # The highest of several counts.
        ([(0, 0), (5, 20), (6, 0), (11, 10), (12, 0)], 30),
        # Forgotten after a quarter of an hour.
        ([(0, 0), (5, 20), (6, 0), (910, 0)], None),
    ],
)
def test_what_usage_stays_below(
    course: list[tuple[float, float]], ceiling_gib: float | None
) -> None:
    """A rise that came back down soon is repeated, by half as much again at the most."""
    found = forecast_of(*course).ceiling_bytes
    assert found == (None if ceiling_gib is None else pytest.approx(ceiling_gib * GIB, rel=0.03))


def test_rising_peaks_are_a_trend() -> None:
    """Peaks that rise by 1 GiB in 10 s are expected to go on so."""
    course = [point for i in range(4) for point in ((10 * i, 0), (10 * i + 5, 20 + i))]
    forecast = forecast_of(*course, (36, 0))
    assert forecast.ceiling_bytes_per_second == pytest.approx(0.1 * GIB, rel=0.01)
    assert forecast.ceiling_bytes == pytest.approx(34.6 * GIB, rel=0.02)


@pytest.mark.parametrize(("used_gib", "written_gib"), [(0, 30), (20, 10), (31, 40)])
def test_the_ceiling_bounds_until_it_is_exceeded(used_gib: float, written_gib: float) -> None:
    """What may still be written ends at the ceiling; above it the rate counts again."""
    forecast = forecast_of((0, 0), (5, 20), (6, 0))
    found = forecast.bounded(GIB, LEAD_SECONDS, used_bytes=int(used_gib * GIB))
    assert found == pytest.approx(written_gib * GIB, rel=0.01)


def test_a_gap_forgets_the_peaks() -> None:
    """After readings that failed, nothing is known of what came back down."""
    history = FillHistory()
    for now, used in enumerate((0, 20, 0)):
        reading = reading_of(100, 100 - used)
        history.add(replace(reading, taken_at_seconds=float(now)), LEAD_SECONDS)
    assert history.forecast.ceiling_bytes is not None
    history.forget_readings()
    history.add(reading_of(100, 100), LEAD_SECONDS)
    assert history.forecast.ceiling_bytes is None
