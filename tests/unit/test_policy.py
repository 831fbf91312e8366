"""What is decided, and which steps are missing: tables, properties, and plans carried out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    GIB,
    AddDevice,
    AttachVolume,
    BalanceMetadata,
    CreateVolume,
    Finish,
    Grow,
    GrowthId,
    Hold,
    Stage,
)
from ebs_autoscale.policy import next_growth, waiting
from ebs_autoscale.policy.decision import decide, stage_of, steps_for
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.resize.growth import observe
from ebs_autoscale.resize.steps import carry_out
from tests.simulated.world import SimulatedWorld
from tests.unit.samples import FILESYSTEM, inventory_of, observation_of, reading_of, volume_of

QUIET = Forecast()


ROOMY = reading_of(100, 50)


FULL = reading_of(100, 5)


def limited(**limits: Any) -> GrowthPolicy:
    """A policy that differs in its limits only."""
    return GrowthPolicy(limits=Limits(**limits))


def test_comfort_holds() -> None:
    """With room and nothing left half-done there is nothing to do, and the reason has figures."""
    decision = decide(observation_of(ROOMY, inventory_of()), GrowthPolicy(), forecast=QUIET)
    assert decision == Hold("50.0 % (50 GiB) available")
    assert steps_for(decision) == ()


def test_shortage_grows() -> None:
    """Without room the next growth is named, sized and explained."""
    decision = decide(observation_of(FULL, inventory_of()), GrowthPolicy(), forecast=QUIET)
    assert decision == Grow(
        growth=GrowthId(FILESYSTEM, 1),
        size_bytes=50 * GIB,
        reason="5.0 % (5 GiB) available, less than 20 %; 50 GiB for about 4.00 USD a month at list "
        "price: 50 % of the current size",
        usd_per_month=4.0,
    )


@pytest.mark.parametrize(("wanted_gib", "size_gib"), [(0, 50), (7, 7), (1024, 1024)])
def test_an_operator_may_grow_at_will(wanted_gib: int, size_gib: int) -> None:
    """A wish is granted without shortage, of the size wished for; 0 is the usual size."""
    decision = decide(
        observation_of(ROOMY, inventory_of()),
        GrowthPolicy(),
        forecast=QUIET,
        wanted_bytes=wanted_gib * GIB,
    )
    assert isinstance(decision, Grow)
    assert decision.size_bytes == size_gib * GIB
    assert decision.usd_per_month == pytest.approx(size_gib * 0.08)
    assert f"{decision.usd_per_month:.2f} USD a month at list price" in decision.reason
    assert "requested by an operator" in decision.reason


TWO = (volume_of(1), volume_of(2))


TWO_DEVICES = reading_of(100, 5, devices=3)


@given(available=st.floats(20, 100), more=st.floats(0, 80))
def test_hold_is_stable(available: float, more: float) -> None:
    """Where it holds it holds with more room too, and deciding again changes nothing."""
    inventory = inventory_of(*TWO)
    for room in (available, min(100, available + more)):
        reading = reading_of(100, room, devices=3)
        first = decide(observation_of(reading, inventory), GrowthPolicy(), forecast=QUIET)
        assert isinstance(first, Hold)
        assert decide(observation_of(reading, inventory), GrowthPolicy(), forecast=QUIET) == first


LOOSE: dict[str, Any] = {
    "attached_to": "",
    "attachment_state": "",
    "delete_on_termination": False,
}


@pytest.mark.parametrize(
    ("changes", "devices", "balanced", "stage"),
    [
        (LOOSE | {"state": "creating"}, 1, True, Stage.CREATED),
        (LOOSE | {"state": "available"}, 1, True, Stage.CREATED),
        ({"attachment_state": "attaching", "hidden": True}, 1, True, Stage.CREATED),
        ({"attachment_state": "attaching"}, 1, True, Stage.CREATED),
        ({"hidden": True}, 1, True, Stage.CREATED),
        ({"delete_on_termination": False}, 1, True, Stage.ATTACHED),
        ({"attached_to": "i-elsewhere"}, 1, True, Stage.CREATED),
        ({"attachment_state": "detaching"}, 1, True, Stage.CREATED),
        ({}, 1, True, Stage.ATTACHED),
        ({}, 2, False, Stage.ADDED),
        ({"delete_on_termination": False}, 2, True, Stage.BALANCED),
        ({}, 2, True, Stage.BALANCED),
    ],
)
def test_stages(changes: dict[str, Any], devices: int, stage: Stage, *, balanced: bool) -> None:
    """The stage follows from what EC2 and the kernel show, and from nothing else."""
    volume = volume_of(1, **{key: value for key, value in changes.items() if key != "hidden"})
    seen = observation_of(
        reading_of(100, 50, devices=devices),
        inventory_of(volume),
        hidden=frozenset({volume.id} if "hidden" in changes else ()),
        metadata_balanced=balanced,
    )
    assert stage_of(volume, seen) is stage


def test_only_the_newest_device_can_be_unbalanced() -> None:
    """Unbalanced metadata belongs to the newest device's growth; those before it are over."""
    seen = observation_of(TWO_DEVICES, inventory_of(*TWO), metadata_balanced=False)
    stages = [stage_of(volume, seen) for volume in TWO]
    assert stages == [Stage.BALANCED, Stage.ADDED]


def test_what_was_begun_comes_first() -> None:
    """The unfinished growth is finished before any limit, wish or shortage counts."""
    volumes = (volume_of(1), volume_of(4, **LOOSE), volume_of(3, **LOOSE), volume_of(2))
    decision = decide(
        observation_of(TWO_DEVICES, inventory_of(*volumes, slots_free=0)),
        limited(volumes=0, total_bytes=0),
        forecast=QUIET,
        wanted_bytes=0,
    )
    assert isinstance(decision, Finish)
    assert decision.growth == GrowthId(FILESYSTEM, 4)
    assert decision.stage is Stage.CREATED
    assert "vol-0004 is in-use" in decision.reason


@pytest.mark.parametrize("state", sorted(DEAD_VOLUME_STATES))
def test_dead_volumes_are_not_revived(state: str) -> None:
    """A volume that is gone or broken is nothing to finish, and its name is not used again."""
    inventory = inventory_of(volume_of(1, **(LOOSE | {"state": state})))
    seen = observation_of(FULL, inventory)
    assert waiting(seen) is None
    assert next_growth(seen).ordinal == 2


def test_unbalanced_metadata_waits_for_space() -> None:
    """With room, unbalanced metadata is balanced; without, growing comes first."""
    inventory = inventory_of(*TWO)
    calm = decide(
        observation_of(
            replace(TWO_DEVICES, available_bytes=50 * GIB), inventory, metadata_balanced=False
        ),
        GrowthPolicy(),
        forecast=QUIET,
    )
    assert isinstance(calm, Finish)
    assert steps_for(calm) == (BalanceMetadata(growth=TWO[1].growth),)
    assert isinstance(
        decide(
            observation_of(TWO_DEVICES, inventory, metadata_balanced=False),
            GrowthPolicy(),
            forecast=QUIET,
        ),
        Grow,
    )


@given(
    devices=st.integers(1, 40),
    bought=st.integers(0, 39),
    hidden=st.integers(0, 39),
)
def test_a_name_is_never_given_twice(devices: int, bought: int, hidden: int) -> None:
    """Members whose volumes EC2 does not show yet count: their names are not given again."""
    ordinals = range(1, min(bought, devices - 1) + 1)
    visible = [volume_of(ordinal) for ordinal in ordinals if ordinal <= bought - hidden]
    reading = reading_of(100, 5, devices=devices)
    seen = observation_of(reading, inventory_of(*visible))
    assert next_growth(seen).ordinal not in ordinals


GROWTH = GrowthId(FILESYSTEM, 7)


ALL_STEPS = (
    CreateVolume(growth=GROWTH, size_bytes=GIB),
    AttachVolume(growth=GROWTH),
    AddDevice(growth=GROWTH),
    BalanceMetadata(growth=GROWTH),
)


@pytest.mark.parametrize(
    ("stage", "done"),
    [(Stage.CREATED, 1), (Stage.ATTACHED, 2), (Stage.ADDED, 3), (Stage.BALANCED, 4)],
)
def test_steps_that_are_done_are_dropped(stage: Stage, done: int) -> None:
    """To finish a growth is the rest of the same steps in the same order."""
    assert steps_for(Grow(growth=GROWTH, size_bytes=GIB, reason="")) == ALL_STEPS
    assert (
        steps_for(Finish(growth=GROWTH, volume_id="vol-1", stage=stage, reason=""))
        == ALL_STEPS[done:]
    )


@pytest.mark.parametrize("done", range(5))
def test_planning_again_leaves_the_rest(done: int) -> None:
    """After any number of steps, looking again gives exactly the steps that were left."""
    world = SimulatedWorld()
    world.fill(percent=90)
    seen = observe(world.ports())
    plan = steps_for(decide(seen, GrowthPolicy(), forecast=QUIET))
    if done:
        carry_out(plan[:done], None, seen, world.ports())

    again = decide(observe(world.ports()), GrowthPolicy(), forecast=QUIET)

    assert steps_for(again) == plan[done:]
