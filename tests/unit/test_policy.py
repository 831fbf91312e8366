"""What is decided, and which steps are missing: tables, properties, and plans carried out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.executor import carry_out
from ebs_autoscale.growth import observe
from ebs_autoscale.model import (
    GIB,
    AddDevice,
    AttachVolume,
    CreateVolume,
    Finish,
    Grow,
    GrowthId,
    Hold,
    Refuse,
    Settle,
    Stage,
    Volume,
)
from ebs_autoscale.policy import (
    DEAD_STATES,
    decide,
    next_growth,
    stage_of,
    steps_for,
    unfinished,
)
from ebs_autoscale.rules import GrowthPolicy, Limits, Sizing
from ebs_autoscale.space import Forecast
from tests.simulated.world import SimulatedWorld
from tests.unit.samples import FILESYSTEM, inventory_of, reading_of, volume_of

QUIET = Forecast()
ROOMY = reading_of(100, 50)
FULL = reading_of(100, 5)


def limited(**limits: Any) -> GrowthPolicy:
    """A policy that differs in its limits only."""
    return GrowthPolicy(limits=Limits(**limits))


def test_comfort_holds() -> None:
    """With room and nothing left half-done there is nothing to do, and the reason has figures."""
    decision = decide(ROOMY, inventory_of(), GrowthPolicy(), forecast=QUIET)
    assert decision == Hold("50.0 % (50 GiB) available")
    assert steps_for(decision) == ()


def test_shortage_grows() -> None:
    """Without room the next growth is named, sized and explained."""
    decision = decide(FULL, inventory_of(), GrowthPolicy(), forecast=QUIET)
    assert decision == Grow(
        growth=GrowthId(FILESYSTEM, 1),
        size_bytes=50 * GIB,
        reason="5.0 % (5 GiB) available, less than 20 %",
    )


@pytest.mark.parametrize(("wanted_gib", "size_gib"), [(0, 50), (7, 7), (4000, 4000)])
def test_an_operator_may_grow_at_will(wanted_gib: int, size_gib: int) -> None:
    """A wish is granted without shortage, of the size wished for; 0 is the usual size."""
    decision = decide(
        ROOMY, inventory_of(), GrowthPolicy(), forecast=QUIET, wanted_bytes=wanted_gib * GIB
    )
    assert isinstance(decision, Grow)
    assert (decision.size_bytes, decision.reason) == (size_gib * GIB, "asked for by an operator")


TWO = (volume_of(1), volume_of(2))
TWO_MEMBERS = reading_of(100, 5, members=3)


@pytest.mark.parametrize("wanted_bytes", [None, 0, 30 * GIB])
@pytest.mark.parametrize(
    ("limits", "inventory", "limit", "said"),
    [
        ({"volumes": 2}, {}, "limits.volumes", "2 of 2 volumes"),
        ({"volumes": 1}, {}, "limits.volumes", "2 of 1 volumes"),
        ({"volumes": 0}, {}, "limits.volumes", "2 of 0 volumes"),
        ({}, {"slots_free": 0}, "limits.volumes", "no attachment slot left"),
        ({}, {"slots_free": -1}, "limits.volumes", "no attachment slot left"),
        ({"volumes": 9}, {"slots_free": 0}, "limits.volumes", "no attachment slot left"),
        ({"total_bytes": 40 * GIB}, {}, "limits.total", "have 40 of 40 GiB"),
        ({"total_bytes": 41 * GIB - 1}, {}, "limits.total", "have 40 of 41 GiB"),
        ({"total_bytes": 0}, {}, "limits.total", "have 40 of 0 GiB"),
        (
            {"cooldown_seconds": 60},
            {"seconds_since_last_create": 59.0},
            "limits.cooldown",
            "only 59 s old",
        ),
    ],
)
def test_each_limit_refuses_under_its_own_key(
    limits: dict[str, Any],
    inventory: dict[str, Any],
    limit: str,
    said: str,
    wanted_bytes: int | None,
) -> None:
    """A limit refuses growth, wished for or needed, by its key, with its figures and a hint."""
    decision = decide(
        TWO_MEMBERS,
        inventory_of(*TWO, **inventory),
        limited(**limits),
        forecast=QUIET,
        wanted_bytes=wanted_bytes,
    )
    assert isinstance(decision, Refuse)
    assert decision.limit == limit
    assert said in decision.reason
    assert decision.hint
    assert steps_for(decision) == ()


@pytest.mark.parametrize(
    ("limits", "inventory"),
    [
        ({"volumes": 3}, {}),
        ({"volumes": 3}, {"slots_free": 1}),
        ({}, {"slots_free": None}),
        ({"cooldown_seconds": 60}, {"seconds_since_last_create": 60.0}),
        ({"cooldown_seconds": 60}, {"seconds_since_last_create": None}),
        ({"cooldown_seconds": 0}, {"seconds_since_last_create": 0.0}),
    ],
)
def test_a_limit_not_reached_allows(limits: dict[str, Any], inventory: dict[str, Any]) -> None:
    """One volume, slot or second inside the limit is enough; what is unknown limits nothing."""
    decision = decide(
        TWO_MEMBERS, inventory_of(*TWO, **inventory), limited(**limits), forecast=QUIET
    )
    assert isinstance(decision, Grow)


def test_the_last_volume_is_trimmed_to_the_total() -> None:
    """The size that would cross limits.total is cut to whole GiB that fit, and that is said."""
    decision = decide(
        TWO_MEMBERS, inventory_of(*TWO), limited(total_bytes=63 * GIB + 5), forecast=QUIET
    )
    assert isinstance(decision, Grow)
    assert decision.size_bytes == 23 * GIB
    assert "50 GiB trimmed" in decision.reason


volumes = st.lists(
    st.builds(
        volume_of,
        st.integers(1, 99),
        size_bytes=st.integers(1, 100).map(lambda gib: gib * GIB),
        state=st.sampled_from(["in-use", "available", "creating", *sorted(DEAD_STATES)]),
        attached_to=st.sampled_from(["", "i-0123456789abcdef0", "i-elsewhere"]),
        node=st.sampled_from(["", "nvme1n1", "nvme2n1", "nvme9n1"]),
    ),
    unique_by=lambda volume: volume.growth,
    max_size=6,
)
limits = st.builds(
    Limits,
    volumes=st.none() | st.integers(0, 8),
    total_bytes=st.integers(0, 600 * GIB),
    cooldown_seconds=st.floats(0, 100),
)
readings = st.builds(reading_of, st.integers(1, 4000), st.floats(0, 1), members=st.integers(1, 5))


@given(
    present=volumes,
    reading=readings,
    limits=limits,
    slots=st.none() | st.integers(-2, 30),
    age=st.none() | st.floats(0, 200),
    wanted=st.none() | st.integers(0, 65536).map(lambda gib: gib * GIB),
)
def test_no_growth_exceeds_a_limit(
    present: list[Volume],
    reading: Any,
    limits: Limits,
    slots: int | None,
    age: float | None,
    wanted: int | None,
) -> None:
    """Whatever the world looks like and whoever asks, a growth stays within every limit."""
    inventory = inventory_of(*present, slots_free=slots, seconds_since_last_create=age)
    decision = decide(
        reading, inventory, GrowthPolicy(limits=limits), forecast=QUIET, wanted_bytes=wanted
    )
    if isinstance(decision, Grow):
        assert decision.size_bytes % GIB == 0
        assert decision.size_bytes > 0
        assert inventory.managed_bytes + decision.size_bytes <= limits.total_bytes
        assert limits.volumes is None or len(present) < limits.volumes
        assert slots is None or slots > 0
        assert age is None or age >= limits.cooldown_seconds
        assert decision.growth not in {volume.growth for volume in present}


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


@given(available=st.floats(20, 100), more=st.floats(0, 80))
def test_hold_is_stable(available: float, more: float) -> None:
    """Where it holds it holds with more room too, and deciding again changes nothing."""
    inventory = inventory_of(*TWO)
    for room in (available, min(100, available + more)):
        reading = reading_of(100, room, members=3)
        first = decide(reading, inventory, GrowthPolicy(), forecast=QUIET)
        assert isinstance(first, Hold)
        assert decide(reading, inventory, GrowthPolicy(), forecast=QUIET) == first


LOOSE: dict[str, Any] = {
    "attached_to": "",
    "attachment_state": "",
    "node": "",
    "delete_on_termination": False,
}


@pytest.mark.parametrize(
    ("changes", "members", "settled", "stage"),
    [
        (LOOSE | {"state": "creating"}, 1, True, Stage.CREATED),
        (LOOSE | {"state": "available"}, 1, True, Stage.CREATED),
        ({"attachment_state": "attaching", "node": ""}, 1, True, Stage.CREATED),
        ({"attachment_state": "attaching"}, 1, True, Stage.CREATED),
        ({"node": ""}, 1, True, Stage.CREATED),
        ({"delete_on_termination": False}, 1, True, Stage.CREATED),
        ({"attached_to": "i-elsewhere"}, 1, True, Stage.CREATED),
        ({"attachment_state": "detaching"}, 1, True, Stage.CREATED),
        ({}, 1, True, Stage.ATTACHED),
        ({}, 2, False, Stage.MEMBER),
        ({"delete_on_termination": False}, 2, True, Stage.SETTLED),
        ({}, 2, True, Stage.SETTLED),
    ],
)
def test_stages(changes: dict[str, Any], members: int, stage: Stage, *, settled: bool) -> None:
    """The stage follows from what EC2 and the kernel show, and from nothing else."""
    volume = volume_of(1, **changes)
    inventory = inventory_of(volume, metadata_settled=settled)
    assert stage_of(volume, reading_of(100, 50, members=members), inventory) is stage


def test_only_the_newest_member_can_be_unsettled() -> None:
    """What is unsettled is the newest member's growth; those before it are over."""
    inventory = inventory_of(*TWO, metadata_settled=False)
    stages = [stage_of(volume, TWO_MEMBERS, inventory) for volume in TWO]
    assert stages == [Stage.SETTLED, Stage.MEMBER]


def test_what_was_begun_comes_first_oldest_first() -> None:
    """Unfinished growths are finished before any limit, wish or shortage counts, oldest first."""
    volumes = (volume_of(1), volume_of(4, **LOOSE), volume_of(3, **LOOSE), volume_of(2))
    decision = decide(
        TWO_MEMBERS,
        inventory_of(*volumes, slots_free=0),
        limited(volumes=0, total_bytes=0),
        forecast=QUIET,
        wanted_bytes=0,
    )
    assert isinstance(decision, Finish)
    assert (decision.growth.ordinal, decision.stage) == (3, Stage.CREATED)
    assert "vol-0003 is in-use" in decision.reason


def test_what_is_set_aside_is_passed_over() -> None:
    """A volume set aside is never finished; the next one is, and at last a new one is bought."""
    inventory = inventory_of(volume_of(1, **LOOSE), volume_of(2, **LOOSE))
    aside: set[str] = set()
    ordinals = []
    for _ in range(3):
        decision = decide(FULL, inventory, GrowthPolicy(), forecast=QUIET, set_aside=aside)
        assert isinstance(decision, Finish | Grow)
        ordinals.append(decision.growth.ordinal)
        aside |= {volume.id for volume in inventory.volumes if volume.growth == decision.growth}
    assert ordinals == [1, 2, 3]


@pytest.mark.parametrize("state", sorted(DEAD_STATES))
def test_dead_volumes_are_not_revived(state: str) -> None:
    """A volume that is gone or broken is nothing to finish, and its name is not used again."""
    inventory = inventory_of(volume_of(1, **(LOOSE | {"state": state})))
    assert unfinished(FULL, inventory) is None
    assert next_growth(FULL, inventory).ordinal == 2


def test_unsettled_metadata_is_finished_in_peace_time() -> None:
    """With room, unsettled metadata is settled; without, growing comes first."""
    inventory = inventory_of(*TWO, metadata_settled=False)
    calm = decide(
        replace(TWO_MEMBERS, available_bytes=50 * GIB), inventory, GrowthPolicy(), forecast=QUIET
    )
    assert isinstance(calm, Finish)
    assert steps_for(calm) == (Settle(growth=TWO[1].growth),)
    assert isinstance(decide(TWO_MEMBERS, inventory, GrowthPolicy(), forecast=QUIET), Grow)


@given(
    members=st.integers(1, 40),
    bought=st.integers(0, 39),
    hidden=st.integers(0, 39),
)
def test_a_name_is_never_given_twice(members: int, bought: int, hidden: int) -> None:
    """Members whose volumes EC2 does not show yet count: their names are not given again."""
    ordinals = range(1, min(bought, members - 1) + 1)
    visible = [volume_of(ordinal) for ordinal in ordinals if ordinal <= bought - hidden]
    reading = reading_of(100, 5, members=members)
    assert next_growth(reading, inventory_of(*visible)).ordinal not in ordinals


GROWTH = GrowthId(FILESYSTEM, 7)
ALL_STEPS = (
    CreateVolume(growth=GROWTH, size_bytes=GIB),
    AttachVolume(growth=GROWTH),
    AddDevice(growth=GROWTH),
    Settle(growth=GROWTH),
)


@pytest.mark.parametrize(
    ("stage", "done"),
    [(Stage.CREATED, 1), (Stage.ATTACHED, 2), (Stage.MEMBER, 3), (Stage.SETTLED, 4)],
)
def test_steps_that_are_done_are_dropped(stage: Stage, done: int) -> None:
    """To finish a growth is the rest of the same steps in the same order."""
    assert steps_for(Grow(growth=GROWTH, size_bytes=GIB, reason="")) == ALL_STEPS
    assert steps_for(Finish(growth=GROWTH, stage=stage, reason="")) == ALL_STEPS[done:]


@pytest.mark.parametrize("done", range(5))
def test_planning_again_leaves_the_rest(done: int) -> None:
    """After any number of steps, looking again gives exactly the steps that were left."""
    world = SimulatedWorld()
    world.fill(percent=90)
    reading, inventory = observe(world.ports())
    plan = steps_for(decide(reading, inventory, GrowthPolicy(), forecast=QUIET))
    if done:
        carry_out(plan[:done], inventory, world.ports())

    again = decide(*observe(world.ports()), GrowthPolicy(), forecast=QUIET)

    assert steps_for(again) == plan[done:]
