"""How large the next volume is, and the words that say why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.model import GIB
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy, LadderStep, Sizing, Threshold
from ebs_autoscale.policy.shortage import lead_time_seconds, shortage_of
from ebs_autoscale.policy.sizing import next_size
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
    ("size_gib", "devices", "sizing", "expected_gib"),
    [
        (100, 1, Sizing(), 50),
        (101, 1, Sizing(), 51),
        (1, 1, Sizing(), 20),
        (9999, 1, Sizing(), 1024),
        (100, 1, Sizing(percent=33.4), 34),
        (100, 1, Sizing(fixed_bytes=100 * GIB), 100),
        (100, 1, Sizing(fixed_bytes=100 * GIB + 1), 101),
        (100, 1, Sizing(fixed_bytes=1 * GIB), 20),
        (100, 1, Sizing(steps=LADDER), 150),
        (100, 3, Sizing(steps=LADDER, fixed_bytes=30 * GIB), 150),
        (100, 4, Sizing(steps=LADDER), 300),
        (100, 9, Sizing(steps=LADDER, max_bytes=200 * GIB), 200),
        (100, 1, Sizing(steps=LADDER[1:]), 50),
    ],
)
def test_the_next_size(size_gib: int, devices: int, sizing: Sizing, expected_gib: int) -> None:
    """A share, a fixed size or the ladder's rung, within min and max, in whole GiB rounded up."""
    reading = reading_of(size_gib, 10, devices=devices)
    size = next_size(reading, GrowthPolicy(sizing=sizing), QUIET)
    assert size.size_bytes == expected_gib * GIB


@given(
    size=sizes,
    percent=st.floats(0.1, 1000),
    rate=rates,
    bounds=st.tuples(st.integers(1, 65536), st.integers(1, 65536)).map(sorted),
)
def test_sizes_keep_their_bounds(size: int, percent: float, rate: float, bounds: list[int]) -> None:
    """Whatever the share and the rate, the size is whole GiB within growth.min and growth.max."""
    sizing = Sizing(percent=percent, min_bytes=bounds[0] * GIB, max_bytes=bounds[1] * GIB)
    forecast = Forecast(fill_bytes_per_second=rate)
    wanted = next_size(reading_of(size / GIB, 0), GrowthPolicy(sizing=sizing), forecast)
    assert wanted.size_bytes % GIB == 0
    assert bounds[0] <= wanted.size_bytes // GIB <= bounds[1]


@pytest.mark.parametrize(
    ("available_gib", "rate_mib", "seconds", "expected_gib", "why"),
    [
        (19, 0, 20, 50, "50 %"),
        (19, 500, 20, 50, "50 %"),
        (19, 1024, 20, 80, "1024 MiB/s for 80 s"),
        (19, 1024, 5, 50, "50 %"),
        (19, 99999, 20, 1024, "growth.max (7813 GiB "),
    ],
)
def test_a_fast_writer_gets_a_larger_volume(
    available_gib: float, rate_mib: int, seconds: float, expected_gib: int, why: str
) -> None:
    """No volume is smaller than what is written until the next one can have come."""
    rate = rate_mib * MIB
    forecast = Forecast(
        fill_bytes_per_second=rate, sustained_bytes_per_second=rate, growth_seconds=seconds
    )
    size = next_size(reading_of(100, available_gib), GrowthPolicy(), forecast)
    assert size.size_bytes == expected_gib * GIB
    assert why in size.why


@given(size=sizes, share=shares, rate=rates)
def test_a_burst_at_most_doubles(size: int, share: float, rate: float) -> None:
    """A rate that has not lasted never buys more than there is already."""
    forecast = Forecast(fill_bytes_per_second=rate)
    sizing = Sizing(min_bytes=GIB, max_bytes=2**50)
    wanted = next_size(
        reading_of(size / GIB, size * share / GIB), GrowthPolicy(sizing=sizing), forecast
    )
    assert wanted.size_bytes < max(size, 10 * GIB) + GIB


@pytest.mark.parametrize(
    ("size_gib", "sizing", "expected_gib", "why"),
    [
        (1000, Sizing(fixed_bytes=20 * GIB), 250, ""),
        (1000, Sizing(percent=10), 250, ""),
        (1000, Sizing(percent=30), 300, "30 %"),
        (10, Sizing(), 20, "growth.min"),
        (1000, Sizing(steps=LADDER), 1000, ""),
        (200, Sizing(steps=LADDER), 200, ""),
        (100, Sizing(steps=LADDER), 150, "1 device"),
    ],
)
def test_one_volume_ends_the_shortage(
    size_gib: float, sizing: Sizing, expected_gib: int, why: str
) -> None:
    """A filesystem that is full asks for one volume, not for several small ones in a row."""
    size = next_size(reading_of(size_gib, 0), GrowthPolicy(sizing=sizing), QUIET)
    assert size.size_bytes == expected_gib * GIB
    assert why in size.why


@given(size=sizes, share=shares, percent=st.floats(0, 99), rate=rates)
def test_after_a_growth_it_is_comfortable(
    size: int, share: float, percent: float, rate: float
) -> None:
    """No growth is followed by another at the same rate, unless growth.max was in the way."""
    sizing = Sizing(max_bytes=2**70)
    policy = GrowthPolicy(threshold=Threshold(available_percent=percent), sizing=sizing)
    forecast = Forecast(fill_bytes_per_second=rate, sustained_bytes_per_second=rate)
    before = reading_of(size / GIB, size * share / GIB)
    added = next_size(before, policy, forecast).size_bytes
    written = rate * lead_time_seconds(policy, forecast) / 2
    after = reading_of(
        (size + added) / GIB,
        (max(0.0, size * share - written) + added) / GIB,
        metadata_headroom_bytes=size + added,
    )
    shortage = shortage_of(after, policy, forecast)
    assert written or not shortage
    assert not shortage or "MiB/s" not in shortage.sentence


@pytest.mark.parametrize("max_gib", [1.5, 20.9])
def test_no_part_of_a_gib_above_the_bound(max_gib: float) -> None:
    """EC2 sells whole GiB, and growth.max is rounded down to them."""
    sizing = Sizing(min_bytes=GIB, max_bytes=int(max_gib * GIB))
    size = next_size(reading_of(100, 0), GrowthPolicy(sizing=sizing), QUIET)
    assert size.size_bytes == int(max_gib) * GIB
