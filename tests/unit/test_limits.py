"""Limits: each refuses under its own key, and no growth ever exceeds one."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    GIB,
    Grow,
    Inventory,
    Price,
    Refuse,
    Volume,
)
from ebs_autoscale.policy import managed
from ebs_autoscale.policy.decision import (
    decide,
    steps_for,
)
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy, Limits, Sizing
from ebs_autoscale.units import format_size
from tests.simulated.world import SimulatedWorld
from tests.unit.samples import GP3, inventory_of, observation_of, reading_of, volume_of

QUIET = Forecast()


FULL = reading_of(100, 5)


def limited(**limits: Any) -> GrowthPolicy:
    """A policy that differs in its limits only."""
    return GrowthPolicy(limits=Limits(**limits))


TWO = (volume_of(1), volume_of(2))


TWO_DEVICES = reading_of(100, 5, devices=3)


def of_age(changes: dict[str, Any]) -> Inventory:
    """Two devices, of which the newest has this age, and other changes to the inventory."""
    changes = dict(changes)
    age = changes.pop("age_seconds", None)
    return inventory_of(TWO[0], replace(TWO[1], age_seconds=age), **changes)


@pytest.mark.parametrize("wanted_bytes", [None, 0, 30 * GIB])
@pytest.mark.parametrize(
    ("limits", "inventory", "limit", "said"),
    [
        ({"volumes": 2}, {}, Cause.LIMIT_VOLUMES, "2 of 2 volumes"),
        ({"volumes": 1}, {}, Cause.LIMIT_VOLUMES, "2 of 1 volume"),
        ({"volumes": 0}, {}, Cause.LIMIT_VOLUMES, "2 of 0 volumes"),
        ({}, {"slots_free": 0}, Cause.LIMIT_VOLUMES, "attachment slot"),
        ({}, {"slots_free": -1}, Cause.LIMIT_VOLUMES, "attachment slot"),
        ({"volumes": 9}, {"slots_free": 0}, Cause.LIMIT_VOLUMES, "attachment slot"),
        ({"total_bytes": 40 * GIB}, {}, Cause.LIMIT_TOTAL, "40 GiB of 40 GiB"),
        ({"total_bytes": 41 * GIB - 1}, {}, Cause.LIMIT_TOTAL, "40 GiB of 41 GiB"),
        ({"total_bytes": 0}, {}, Cause.LIMIT_TOTAL, "40 GiB of 0 B"),
        ({"monthly_usd": 3.27}, {}, Cause.LIMIT_MONTHLY, "3.20 USD a month, and limits.monthly"),
        ({"monthly_usd": 0.01}, {}, Cause.LIMIT_MONTHLY, "0.01 USD"),
        (
            {"cooldown_seconds": 60},
            {"age_seconds": 59.0},
            Cause.LIMIT_COOLDOWN,
            "59 s",
        ),
    ],
)
def test_each_limit_refuses_under_its_own_key(
    limits: dict[str, Any],
    inventory: dict[str, Any],
    limit: Cause,
    said: str,
    wanted_bytes: int | None,
) -> None:
    """A limit refuses growth, wished for or needed, by its key, with its figures and a hint."""
    decision = decide(
        observation_of(TWO_DEVICES, of_age(inventory)),
        limited(**limits),
        forecast=QUIET,
        wanted_bytes=wanted_bytes,
    )
    assert isinstance(decision, Refuse)
    assert decision.limit is limit
    assert said in decision.reason
    assert decision.hint
    assert steps_for(decision) == ()


@pytest.mark.parametrize(
    ("limits", "inventory"),
    [
        ({"volumes": 3}, {}),
        ({"volumes": 3}, {"slots_free": 1}),
        ({}, {"slots_free": None}),
        ({"cooldown_seconds": 60}, {"age_seconds": 60.0}),
        ({"cooldown_seconds": 60}, {"age_seconds": None}),
        ({"cooldown_seconds": 0}, {"age_seconds": 0.0}),
        ({"cooldown_seconds": 0}, {"age_seconds": -20.0}),
    ],
)
def test_a_limit_not_reached_allows(limits: dict[str, Any], inventory: dict[str, Any]) -> None:
    """One volume, slot or second inside the limit is enough; what is unknown limits nothing."""
    decision = decide(
        observation_of(TWO_DEVICES, of_age(inventory)),
        limited(**limits),
        forecast=QUIET,
    )
    assert isinstance(decision, Grow)


@pytest.mark.parametrize("wanted_bytes", [None, 0])
@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"total_bytes": 63 * GIB + 5}, "limits.total"),
        ({"monthly_usd": 63.9 * 0.08}, "limits.monthly"),
        ({"monthly_usd": 63 * 0.08, "total_bytes": 64 * GIB}, "limits.monthly"),
    ],
)
def test_the_last_volume_is_capped_by_the_total(
    limits: dict[str, Any], key: str, wanted_bytes: int | None
) -> None:
    """The size that would cross a limit is cut to whole GiB that fit, and that is said."""
    decision = decide(
        observation_of(TWO_DEVICES, inventory_of(*TWO)),
        limited(**limits),
        forecast=QUIET,
        wanted_bytes=wanted_bytes,
    )
    assert isinstance(decision, Grow)
    assert decision.size_bytes == 23 * GIB
    assert f"capped by {key} (50 GiB wanted: 50 %" in decision.reason
    assert "23 GiB for about 1.84 USD a month" in decision.reason


SIZES = [1, 23, 24, 60, 1024, 1025, 20 * 1024, 64 * 1024]


@pytest.mark.parametrize(
    ("limits", "largest_gib", "keys"),
    [
        ({}, 1024, ["growth.max"]),
        ({"total_bytes": 63 * GIB}, 23, ["limits.total"]),
        ({"monthly_usd": 5.04}, 23, ["limits.monthly"]),
        ({"monthly_usd": 5.1, "total_bytes": 64 * GIB}, 23, ["limits.monthly", "limits.total"]),
        ({"total_bytes": 40 * GIB}, 0, ["limits.total"]),
    ],
)
@pytest.mark.parametrize("wanted_gib", SIZES)
def test_a_requested_size_is_granted_or_refused(
    limits: dict[str, Any], largest_gib: int, keys: list[str], wanted_gib: int
) -> None:
    """It is never cut down; the refusal names size, price, what would fit, and the keys."""
    wanted = wanted_gib * GIB
    seen = observation_of(TWO_DEVICES, inventory_of(*TWO))
    decision = decide(seen, limited(**limits), forecast=QUIET, wanted_bytes=wanted)
    if wanted_gib <= largest_gib:
        assert isinstance(decision, Grow)
        assert decision.size_bytes == wanted
        return
    assert isinstance(decision, Refuse)
    assert decision.limit.exit is Exit.REFUSED
    assert decision.limit.value == keys[0]
    assert f"{format_size(wanted)} for about {wanted_gib * 0.08:.2f} USD" in decision.reason
    if wanted_gib > 16 * 1024:
        assert all(key in decision.hint for key in {*keys, "growth.max", "limits.total"})
    assert keys[0] in decision.hint
    assert ("at most" in decision.hint) is (largest_gib > 0)


IO2 = Price(usd_per_gib=0.125, usd_fixed=65.0)


@pytest.mark.parametrize(
    ("monthly", "price", "size_gib"),
    [
        (3.2 + 65 + 0.124, IO2, None),
        (3.2 + 65 + 0.125, IO2, 1),
        (3.2 + 65 + 1.25, IO2, 10),
        (3.2 + 65 + 1000, IO2, 50),
        (3.2 + 0.08 * 7, GP3, 7),
        (None, IO2, 50),
    ],
)
def test_the_monthly_limit_counts_provisioned_performance(
    monthly: float | None, price: Price, size_gib: int | None
) -> None:
    """IOPS and throughput are paid for at any size, so they come off first."""
    seen = observation_of(TWO_DEVICES, inventory_of(*TWO, price=price))
    decision = decide(seen, limited(monthly_usd=monthly), forecast=QUIET)
    assert (decision.size_bytes // GIB if isinstance(decision, Grow) else None) == size_gib


@pytest.mark.parametrize(("monthly", "is_told"), [(None, False), (100, True)])
def test_an_unknown_price_is_left_out_and_told(monthly: float | None, *, is_told: bool) -> None:
    """What is known counts; a growth is not refused for what nobody knows."""
    strange = replace(TWO[0], usd_per_month=None)
    seen = observation_of(TWO_DEVICES, inventory_of(strange, TWO[1]))
    decision = decide(seen, limited(monthly_usd=monthly), forecast=QUIET)
    assert isinstance(decision, Grow)
    assert (f"leaves out {strange.id}" in decision.reason) is is_told
    assert managed(seen).cost.usd_per_month == pytest.approx(1.6)


def test_a_script_that_grows_in_a_loop_meets_the_limits() -> None:
    """However often an operator asks, all volumes together stay within what is configured."""
    policy, world = limited(monthly_usd=20), SimulatedWorld()
    for _ in range(12):
        world.grow(policy, wanted_bytes=0)
    assert sum(volume.size_bytes for volume in world.cloud.volumes) == 250 * GIB
    assert world.causes(world.events[-1].kind)[-1] == "limits.monthly"


volumes = st.lists(
    st.builds(
        volume_of,
        st.integers(1, 99),
        size_bytes=st.integers(1, 100).map(lambda gib: gib * GIB),
        state=st.sampled_from(["in-use", "available", "creating", *sorted(DEAD_VOLUME_STATES)]),
        attached_to=st.sampled_from(["", "i-0123456789abcdef0", "i-elsewhere"]),
        foreign=st.sampled_from(["", "restored from snap-1"]),
        age_seconds=st.none() | st.floats(0, 200),
    ),
    unique_by=lambda volume: volume.growth,
    max_size=6,
)


limits = st.builds(
    Limits,
    volumes=st.none() | st.integers(0, 8),
    total_bytes=st.integers(0, 600 * GIB),
    cooldown_seconds=st.floats(0, 100),
    monthly_usd=st.none() | st.floats(0.1, 60),
)


readings = st.builds(reading_of, st.integers(1, 4000), st.floats(0, 1), devices=st.integers(1, 5))


@given(
    present=volumes,
    reading=readings,
    limits=limits,
    slots=st.none() | st.integers(-2, 30),
    wanted=st.none() | st.integers(0, 65536).map(lambda gib: gib * GIB),
)
def test_no_growth_exceeds_a_limit(
    present: list[Volume],
    reading: Any,
    limits: Limits,
    slots: int | None,
    wanted: int | None,
) -> None:
    """Whatever the world looks like and whoever asks, a growth stays within every limit."""
    inventory = inventory_of(*present, slots_free=slots)
    seen = observation_of(reading, inventory)
    decision = decide(
        seen,
        GrowthPolicy(limits=limits),
        forecast=QUIET,
        wanted_bytes=wanted,
    )
    if isinstance(decision, Grow):
        assert decision.size_bytes % GIB == 0
        assert decision.size_bytes > 0
        alive = [v for v in present if v.state not in DEAD_VOLUME_STATES]
        devices = [volume for volume in alive if seen.is_device(volume)]
        total_bytes = sum(volume.size_bytes for volume in devices)
        assert total_bytes + decision.size_bytes <= limits.total_bytes
        usd = (total_bytes + decision.size_bytes) / GIB * 0.08
        assert limits.monthly_usd is None or usd <= limits.monthly_usd + 1e-6
        assert limits.volumes is None or len(devices) < limits.volumes
        assert slots is None or slots > 0
        ages = [v.age_seconds for v in devices if v.age_seconds is not None]
        assert min(ages, default=inf) >= limits.cooldown_seconds
        # A restored volume may have any ordinal, see next_growth.
        assert decision.growth not in {volume.growth for volume in present if not volume.foreign}


def test_growing_on_and_on_ends_at_the_limits() -> None:
    """A filesystem that is always full grows up to its limits exactly, then is refused."""
    world = SimulatedWorld()
    policy = GrowthPolicy(
        sizing=Sizing(percent=30), limits=Limits(volumes=9, total_bytes=333 * GIB)
    )
    for _ in range(12):
        world.fill(percent=99)
        world.grow(policy)
    assert sum(volume.size_bytes for volume in world.cloud.volumes) == 333 * GIB
    assert len(world.cloud.volumes) <= 9
    assert world.causes(world.events[-1].kind) == ["limits.total"] * (12 - len(world.cloud.volumes))
