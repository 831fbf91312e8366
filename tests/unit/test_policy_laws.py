"""Laws of the judgement that hold whatever the world looks like."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.config.schema import parse
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES
from ebs_autoscale.model import GIB, Grow, Hold, Inventory, Reading, Refuse, Volume
from ebs_autoscale.policy.decision import decide
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy, Limits, Sizing, Threshold
from ebs_autoscale.policy.shortage import poll_delay_seconds, shortage_of
from tests.unit.samples import inventory_of, observation_of, reading_of, volume_of

shares = st.floats(min_value=0, max_value=1)
rates = st.floats(min_value=0, max_value=10 * GIB)
forecasts = st.builds(
    Forecast,
    fill_bytes_per_second=rates,
    sustained_bytes_per_second=rates,
    growth_seconds=st.floats(0, 1000),
)
readings = st.builds(
    reading_of,
    st.integers(1, 4000),
    st.floats(0, 4000),
    devices=st.integers(1, 5),
    metadata_headroom_bytes=st.integers(0, 100 * GIB),
)
limits = st.builds(
    Limits,
    volumes=st.none() | st.integers(0, 8),
    total_bytes=st.integers(0, 9000 * GIB),
)
sizings = st.builds(
    Sizing,
    percent=st.floats(0.1, 500),
    fixed_bytes=st.none() | st.integers(1, 2000 * GIB),
    min_bytes=st.integers(1, 500 * GIB),
    max_bytes=st.integers(500 * GIB, 9000 * GIB),
)
thresholds = st.builds(
    Threshold,
    available_percent=st.floats(0, 100),
    available_min_bytes=st.integers(0, 100 * GIB),
    lead_time_seconds=st.none() | st.floats(0, 1000),
)
policies = st.builds(GrowthPolicy, threshold=thresholds, sizing=sizings, limits=limits)
bought = st.lists(st.integers(1, 900), max_size=4).map(
    lambda sizes: tuple(
        volume_of(i, size_bytes=size * GIB) for i, size in enumerate(sizes, start=1)
    )
)


@given(reading=readings, policy=policies, forecast=forecasts, present=bought)
def test_nothing_exceeds_a_limit(
    reading: Reading, policy: GrowthPolicy, forecast: Forecast, present: tuple[Volume, ...]
) -> None:
    """However fast it fills and whatever is configured, a growth is within all bounds."""
    inventory = inventory_of(*present)
    decision = decide(
        observation_of(
            replace(reading, devices=reading_of(1, 1, devices=len(present) + 1).devices), inventory
        ),
        policy,
        forecast=forecast,
    )
    if isinstance(decision, Grow):
        assert decision.size_bytes % GIB == 0
        assert 0 < decision.size_bytes <= policy.sizing.max_bytes
        assert sum(v.size_bytes for v in present) + decision.size_bytes <= policy.limits.total_bytes
        assert policy.limits.volumes is None or len(present) < policy.limits.volumes


@given(reading=readings, policy=policies, forecast=forecasts, more=st.floats(0, 4000))
def test_more_room_never_asks_for_help(
    reading: Reading, policy: GrowthPolicy, forecast: Forecast, more: float
) -> None:
    """Where it holds, it holds with more available and with more room for metadata."""
    holds = isinstance(decide(observation_of(reading, EMPTY), policy, forecast=forecast), Hold)
    roomier = replace(
        reading,
        available_bytes=reading.available_bytes + int(more * GIB),
        metadata_headroom_bytes=int(reading.metadata_room_bytes) + int(more * GIB),
    )
    still_holds = isinstance(
        decide(observation_of(roomier, EMPTY), policy, forecast=forecast), Hold
    )
    assert still_holds or not holds


@given(reading=readings, policy=policies, forecast=forecasts, faster=st.floats(1, 100))
def test_a_faster_writer_is_never_helped_later(
    reading: Reading, policy: GrowthPolicy, forecast: Forecast, faster: float
) -> None:
    """What triggers at a rate triggers at a higher one, and is looked at no more rarely."""
    sooner = replace(forecast, fill_bytes_per_second=forecast.fill_bytes_per_second * faster)
    if shortage_of(reading, policy, forecast):
        assert shortage_of(reading, policy, sooner)
    assert poll_delay_seconds(reading, policy, sooner) <= poll_delay_seconds(
        reading, policy, forecast
    )


@given(reading=readings, policy=policies, forecast=forecasts)
def test_hold_and_grow_are_stable(
    reading: Reading, policy: GrowthPolicy, forecast: Forecast
) -> None:
    """The same world gives the same decision, and every decision has a reason in figures."""
    first = decide(observation_of(reading, EMPTY), policy, forecast=forecast)
    assert decide(observation_of(reading, EMPTY), policy, forecast=forecast) == first
    assert "available" in first.reason


@given(reading=readings, forecast=forecasts, age_seconds=st.floats(59, 60))
def test_nothing_is_to_come_in_no_time(
    reading: Reading, forecast: Forecast, age_seconds: float
) -> None:
    """What is told to come has not come yet: it takes a second at least."""
    urgent = replace(forecast, fill_bytes_per_second=forecast.fill_bytes_per_second * 1e3)
    volume = volume_of(1, age_seconds=age_seconds)
    policy = GrowthPolicy(limits=Limits(cooldown_seconds=60))
    decision = decide(observation_of(reading, inventory_of(volume)), policy, forecast=urgent)
    told = f"{decision.reason} {decision.hint if isinstance(decision, Refuse) else ''}"
    assert " in 0 s" not in told


@given(forecast=forecasts, freed=st.integers(1, 50 * GIB))
def test_what_was_freed_ends_a_forecast(forecast: Forecast, freed: int) -> None:
    """Once less is used than when it was made, a forecast alone is no reason to buy."""
    reading = reading_of(1000, 900, metadata_headroom_bytes=900 * GIB)
    made = replace(forecast, used_bytes=reading.used_bytes + freed, growth_seconds=1.0)
    assert isinstance(decide(observation_of(reading, EMPTY), GrowthPolicy(), forecast=made), Hold)


@pytest.mark.parametrize("kind", VOLUME_TYPES)
@given(
    held=st.integers(1, 70_000),
    room=st.integers(0, 300),
    size=st.integers(1, 70_000),
    wanted=st.integers(0, 70_000),
)
def test_sizes_are_sold(kind: str, held: int, room: int, size: int, wanted: int) -> None:
    """Whatever is needed, trimmed or wished for, no size is asked for that EC2 does not sell."""
    sold = VOLUME_TYPES[kind]
    least, most = sold.min_gib, sold.max_gib
    iops = "iops: 100" if sold.needs_iops else "encrypted: true"
    settings = parse(
        f"mountpoint: /scratch\nvolume: {{type: {kind}, {iops}}}\n"
        f"growth: {{min: {least}GiB, max: {most}GiB}}\n"
        f"limits: {{total: {held + room + least}GiB}}\n",
        name="sample",
    )
    for wish in (None, wanted * GIB):
        decision = decide(
            observation_of(
                reading_of(size, 0),
                inventory_of(volume_of(1, size_bytes=(held + least) * GIB)),
                nodes={"vol-0001": "nvme0n1"},
            ),
            settings.policy,
            forecast=Forecast(),
            wanted_bytes=wish,
        )
        assert isinstance(decision, Grow | Refuse)
        if isinstance(decision, Grow):
            assert least * GIB <= decision.size_bytes <= most * GIB


EMPTY: Inventory = inventory_of()
