"""Which volume is enlarged, by how much, and what forbids it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import GIB, Enlarge, Inventory, Modification, Refuse, Volume
from ebs_autoscale.policy import managed
from ebs_autoscale.policy.decision import decide
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthMethod, GrowthPolicy, Limits, Sizing
from tests.unit.samples import GP3, inventory_of, observation_of, reading_of, volume_of

MIB = 1024**2
QUIET = Forecast()
ENLARGE = Sizing(method=GrowthMethod.ENLARGE, fixed_bytes=50 * GIB)


def device(ordinal: int, gib: int, **changes: Any) -> Volume:
    """A volume that can be enlarged."""
    values: dict[str, Any] = {
        "size_bytes": gib * GIB,
        "largest_bytes": 16384 * GIB,
        "usd_per_gib": GP3.usd_per_gib,
        **changes,
    }
    return volume_of(ordinal, **values)


def decided(
    *volumes: Volume,
    wanted_bytes: int | None = None,
    forecast: Forecast = QUIET,
    sizing: Sizing = ENLARGE,
    **limits: Any,
) -> Enlarge | Refuse:
    """What is decided for a filesystem of these volumes that is nearly full."""
    gib = sum(volume.size_bytes for volume in volumes) // GIB
    reading = reading_of(gib, gib / 10, devices=len(volumes) + 1)
    inventory: Inventory = replace(inventory_of(*volumes), shows_modifications=True)
    policy = GrowthPolicy(sizing=sizing, limits=Limits(**limits))
    seen = observation_of(reading, inventory)
    decision = decide(seen, policy, forecast=forecast, wanted_bytes=wanted_bytes)
    assert isinstance(decision, Enlarge | Refuse)
    return decision


@pytest.mark.parametrize(
    ("volumes", "target"),
    [
        ((device(1, 200), device(2, 100)), ("vol-0002", 150)),
        ((device(1, 100), device(2, 100)), ("vol-0001", 150)),
        ((device(1, 100, foreign="restored from snap-1"), device(2, 200)), ("vol-0002", 250)),
        ((device(1, 100, largest_bytes=0), device(2, 200)), ("vol-0002", 250)),
        # One that can take all of it is better than the smallest.
        ((device(1, 100, largest_bytes=120 * GIB), device(2, 200)), ("vol-0002", 250)),
        # Where none can, the one with most room.
        ((device(1, 100, largest_bytes=110 * GIB), device(2, 1004)), ("vol-0002", 1024)),
        (
            (
                device(1, 100, modification=Modification(state="optimizing", target_bytes=1)),
                device(2, 200),
            ),
            ("vol-0002", 250),
        ),
        (
            (
                device(1, 100, modification=Modification(state="failed", target_bytes=900 * GIB)),
                device(2, 200),
            ),
            ("vol-0001", 150),
        ),
    ],
)
def test_the_volume_best_suited(volumes: tuple[Volume, ...], target: tuple[str, int]) -> None:
    """The smallest that is ours, that EC2 can enlarge now, and that can take what is wanted."""
    decision = decided(*volumes)
    assert isinstance(decision, Enlarge), decision
    assert (decision.volume.id, decision.target_bytes // GIB) == target
    assert decision.volume.id in decision.reason


@pytest.mark.parametrize("wanted_bytes", [None, 0, 50 * GIB])
@pytest.mark.parametrize(
    ("limits", "changes", "limit"),
    [
        ({"total_bytes": 100 * GIB}, {}, Cause.LIMIT_TOTAL),
        ({"monthly_usd": 8.01}, {}, Cause.LIMIT_MONTHLY),
        ({"cooldown_seconds": 60}, {"age_seconds": 59.0}, Cause.LIMIT_COOLDOWN),
        (
            {"cooldown_seconds": 60},
            {
                "modification": Modification(
                    state="completed", target_bytes=100 * GIB, age_seconds=59.0
                )
            },
            Cause.LIMIT_COOLDOWN,
        ),
        ({}, {"largest_bytes": 0}, Cause.METHOD),
        ({}, {"foreign": "copied from vol-9"}, Cause.METHOD),
        ({}, {"largest_bytes": 100 * GIB}, Cause.METHOD),
        (
            {},
            {"modification": Modification(state="optimizing", target_bytes=100 * GIB)},
            Cause.MODIFICATIONS,
        ),
    ],
)
def test_each_limit_refuses_under_its_own_key(
    limits: dict[str, Any], changes: dict[str, Any], limit: Cause, wanted_bytes: int | None
) -> None:
    """The limits of new volumes hold for larger ones, and each refusal says what to do."""
    decision = decided(device(1, 100, **changes), wanted_bytes=wanted_bytes, **limits)
    assert isinstance(decision, Refuse)
    assert decision.limit is limit
    assert decision.hint


@given(
    sizes=st.lists(st.integers(1, 1200), min_size=1, max_size=4),
    total=st.integers(1, 5000),
    usd=st.floats(0.01, 400),
    largest=st.integers(1, 2000),
    wanted=st.one_of(st.none(), st.integers(0, 2000)),
    rate=st.integers(0, 10**9),
)
def test_no_limit_is_ever_exceeded(
    sizes: list[int], total: int, usd: float, largest: int, wanted: int | None, rate: int
) -> None:
    """Whatever is decided is within growth.max, limits.total, limits.monthly and the type."""
    volumes = tuple(
        device(n, gib, largest_bytes=largest * GIB) for n, gib in enumerate(sizes, start=1)
    )
    decision = decided(
        *volumes,
        wanted_bytes=None if wanted is None else wanted * GIB,
        forecast=Forecast(fill_bytes_per_second=rate, sustained_bytes_per_second=rate),
        sizing=Sizing(method=GrowthMethod.ENLARGE),
        total_bytes=total * GIB,
        monthly_usd=usd,
    )
    if isinstance(decision, Refuse):
        return
    assert decision.size_bytes >= GIB
    assert decision.target_bytes <= min(1024, largest) * GIB
    after = inventory_of(
        *(v.enlarged(decision.target_bytes) if v.id == decision.volume.id else v for v in volumes)
    )
    reading = reading_of(sum(sizes), 0, devices=len(volumes) + 1)
    now = managed(observation_of(reading, after))
    assert now.size_bytes <= total * GIB
    assert now.cost.usd_per_month <= usd + 1e-6
    if wanted:
        assert decision.size_bytes == wanted * GIB


@pytest.mark.parametrize(
    ("modified_seconds", "mib_per_second", "gib"),
    [
        (None, 0, 50),
        (None, 1, 50),
        (None, 5, 52),  # 5 MiB/s for 3 hours
        (None, 100, 200),  # as much as there is
        (3600.0, 100, 800),  # four times as much
        (90_000.0, 100, 200),
    ],
)
def test_the_trend_makes_four_modifications_a_day_last(
    modified_seconds: float | None, mib_per_second: int, gib: int
) -> None:
    """A modification adds what the trend needs until the next one is due, and no more."""
    change = Modification(state="completed", target_bytes=100 * GIB, age_seconds=modified_seconds)
    first = device(1, 100, modification=change if modified_seconds else None)
    rate = mib_per_second * MIB
    forecast = Forecast(sustained_bytes_per_second=rate)
    decision = decided(first, device(2, 100), forecast=forecast)
    assert isinstance(decision, Enlarge)
    # In whole GiB, rounded up.
    assert decision.size_bytes // GIB in {gib, gib + 1}
