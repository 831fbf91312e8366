"""Only what we created blank is ours to finish: volumes with our tags, and what becomes of each."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import GIB, Device, Grow, GrowthId, Inventory, Reading, Volume
from ebs_autoscale.policy import Tried, next_growth, unused_volumes, waiting
from ebs_autoscale.policy.decision import decide
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.cloud import INSTANCE, Ebs, node_name
from tests.simulated.host import FILESYSTEM
from tests.simulated.world import SimulatedWorld
from tests.unit.samples import inventory_of, observation_of, reading_of, volume_of

LOOSE: dict[str, Any] = {"attached_to": "", "attachment_state": "", "state": "available"}
FULL = reading_of(100, 5, devices=3)
DEVICES = (volume_of(1), volume_of(2))


def devids(*numbers: int) -> Reading:
    """A full filesystem with devices of these devids."""
    devices = tuple(
        Device(devid=n, name=f"nvme{n - 1}n1", size_bytes=GIB, unallocated_bytes=0) for n in numbers
    )
    return replace(FULL, devices=devices)


@pytest.mark.parametrize(
    ("reading", "others", "is_waiting"),
    [
        (FULL, [volume_of(3, **LOOSE)], True),
        (FULL, [volume_of(3, **LOOSE | {"state": "creating"})], True),
        (FULL, [volume_of(3)], True),
        (FULL, [volume_of(900, **LOOSE)], True),
        # Below a device: removed from the filesystem, set aside, or a copy.
        (FULL, [volume_of(2, id="vol-2b", **LOOSE)], False),
        (FULL, [volume_of(0, **LOOSE)], False),
        (FULL, [volume_of(-1, **LOOSE)], False),
        (FULL, [volume_of(10**17, **LOOSE)], False),
        # EC2 lists fewer devices than the kernel has, or some were removed.
        (devids(1, 2, 3, 7), [volume_of(6, **LOOSE)], False),
        (devids(1, 2, 3, 7), [volume_of(7, **LOOSE)], True),
        # No growth created these.
        (FULL, [volume_of(3, foreign="restored from snap-1", **LOOSE)], False),
        (FULL, [volume_of(3, **LOOSE | {"state": "error"})], False),
        (FULL, [volume_of(3, **LOOSE | {"state": "deleting"})], False),
        (FULL, [volume_of(3, attached_to="i-elsewhere")], False),
        # Which of two is the copy?
        (FULL, [volume_of(3, **LOOSE), volume_of(3, id="vol-3b", **LOOSE)], False),
    ],
)
def test_what_can_be_waiting(reading: Reading, others: list[Volume], *, is_waiting: bool) -> None:
    """Only the newest growth's own volume waits; any other is reported, and nothing else."""
    seen = observation_of(reading, inventory_of(*DEVICES, *others))
    waits, problem = waiting(seen), unused_volumes(seen)
    assert (waits in others) is is_waiting
    is_gone = others[0].state == "deleting"
    assert (problem is None) is (is_waiting or is_gone)
    if problem:
        assert all(volume.id in problem.sentence for volume in others)
        assert problem.hint


@given(
    ordinals=st.lists(st.integers(-1, 2 * 10**18), max_size=6),
    devices=st.integers(1, 9),
    foreign=st.sampled_from(["", "restored from snap-1"]),
)
def test_a_growth_is_the_newest(ordinals: list[int], devices: int, foreign: str) -> None:
    """A growth's volume waits for it, whatever ordinals somebody wrote into tags before."""
    others = [
        volume_of(1, id=f"vol-x{i}", growth=GrowthId(FILESYSTEM, o), foreign=foreign, **LOOSE)
        for i, o in enumerate(ordinals)
    ]
    reading = reading_of(100, 5, devices=devices)
    growth = next_growth(observation_of(reading, inventory_of(*others)))
    assert growth.ordinal >= devices
    assert growth.ordinal == devices if foreign else growth.ordinal not in ordinals
    assert len(str(growth.ordinal)) <= 4
    mine = volume_of(1, id="vol-mine", growth=growth, **LOOSE)
    seen = observation_of(reading, inventory_of(*others, mine))
    # One far above was never counted; created again, the client token finds it.
    assert waiting(seen) == mine or growth.ordinal > devices + 999


def test_what_was_tried_is_not_tried_again() -> None:
    """What is set aside is passed over, not for an older one, and its ordinal is not used again."""
    seen = observation_of(
        FULL, inventory_of(*DEVICES, volume_of(3, **LOOSE), volume_of(4, **LOOSE))
    )
    tried = Tried(set_aside=frozenset({"vol-0004"}), ordinal=6)
    assert waiting(seen, tried) is None
    assert next_growth(seen, tried).ordinal == 7


@pytest.mark.parametrize(
    "limits", [Limits(volumes=3), Limits(total_bytes=60 * GIB), Limits(cooldown_seconds=60)]
)
def test_others_count_against_no_limit(limits: Limits) -> None:
    """Volumes that are not in the filesystem, however many and new, keep it from no growth."""
    others = [
        volume_of(1, id="vol-removed", age_seconds=1.0, **LOOSE),
        volume_of(8, id="vol-restored", age_seconds=1.0, foreign="restored from snap-1", **LOOSE),
        volume_of(-1, id="vol-odd", age_seconds=1.0, **LOOSE),
    ]
    seen = observation_of(FULL, inventory_of(*DEVICES, *others))
    policy = GrowthPolicy(limits=limits)
    assert isinstance(decide(seen, policy, forecast=Forecast()), Grow)
    mine = volume_of(9, age_seconds=1.0)
    tried = Tried(created=frozenset({mine.id}), set_aside=frozenset({mine.id}), ordinal=9)
    seen = observation_of(FULL, inventory_of(*DEVICES, *others, mine))
    assert not isinstance(decide(seen, policy, forecast=Forecast(), tried=tried), Grow)


def test_what_is_told_of_unused_volumes() -> None:
    """Each is named with its size, cost and standing, and what they cost together."""
    others = [
        volume_of(1, id="vol-a", usd_per_month=1.6, **LOOSE),
        volume_of(2, id="vol-b", usd_per_month=2.4, attached_to="i-elsewhere"),
        volume_of(4, id="vol-c", usd_per_month=None, foreign="restored from snap-9", **LOOSE),
    ]
    problem = unused_volumes(observation_of(FULL, inventory_of(*DEVICES, *others[:2])))
    assert problem
    for part in ("vol-a", "20 GiB", "1.60 USD", "vol-b", "i-elsewhere", "4.00 USD"):
        assert part in problem.sentence
    problem = unused_volumes(observation_of(FULL, inventory_of(*DEVICES, *others)))
    assert problem
    assert "snap-9" in problem.sentence
    assert problem.cause is Cause.UNUSED_VOLUMES


@pytest.fixture
def world() -> SimulatedWorld:
    """A world that needs one growth."""
    world = SimulatedWorld()
    world.fill(percent=90)
    return world


def put(world: SimulatedWorld, ordinal: int, **changes: Any) -> Ebs:
    """A volume with our tags, not blank, that was there before."""
    volume = world.cloud.put(GrowthId(FILESYSTEM, ordinal), 20 * GIB)
    volume.blank = False
    for name, value in changes.items():
        setattr(volume, name, value)
    if volume.attached_to:
        volume.attached_at, volume.device_name = 0.0, f"/dev/xvdc{chr(ord('a') + ordinal)}"
    return volume


@pytest.mark.parametrize("attached_to", ["", INSTANCE])
def test_removed_devices_keep_nothing_from_growing(world: SimulatedWorld, attached_to: str) -> None:
    """However many devices were removed, attached or not, the filesystem grows, without them."""
    removed = [put(world, n, removed=True, attached_to=attached_to) for n in (1, 2, 3)]
    world.clock.sleep(10)
    assert world.grow() is Outcome.DONE
    assert len(world.filesystem.devices) == 2
    assert world.cloud.volumes[-1].growth.ordinal == 4
    world.clock.sleep(10)
    for volume in removed:
        assert world.cloud.find(volume.id).attached_to == attached_to
        assert volume.protected_at == inf
    world.fill(percent=95)
    assert world.grow() is Outcome.DONE
    # Those below the newest device are not even looked at.
    assert world.at.calls["detach"] == (0 if attached_to else 1)
    assert "unused volumes" in world.causes(EventKind.WARNING)


def test_restored_volumes_are_not_touched(world: SimulatedWorld) -> None:
    """Volumes of a backup are neither attached nor deleted with the instance, and reported."""
    restored = [put(world, n, foreign=f"restored from snap-{n}") for n in (1, 1, 2, 40)]
    world.clock.sleep(10)
    assert world.grow() is Outcome.DONE
    assert world.at.calls["attach"] == 1
    assert len(world.filesystem.devices) == 2
    (told,) = [event for event in world.events if event.cause is Cause.UNUSED_VOLUMES]
    assert all(volume.id in told.sentence for volume in restored)


@pytest.mark.parametrize("hangs", [False, True])
def test_what_somebody_else_attached_meanwhile_stays(
    world: SimulatedWorld, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """The volume was loose at the look; another's attachment of it is not undone."""
    theirs = world.cloud.put(GrowthId(FILESYSTEM, 1), 20 * GIB)
    theirs.blank = False
    world.clock.sleep(10)
    ask = world.cloud.attach

    def be_faster(volume: Volume, device_name: str, inventory: Inventory) -> None:
        if volume.id == theirs.id and not theirs.attached_to:
            theirs.attached_to, theirs.device_name = INSTANCE, "/dev/xvdcz"
            theirs.attached_at = inf if hangs else world.clock.now_seconds()
        ask(volume, device_name, inventory)

    monkeypatch.setattr(world.cloud, "attach", be_faster)
    world.grow()
    world.clock.sleep(10)
    assert world.cloud.find(theirs.id).device_name == "/dev/xvdcz"
    assert world.at.calls["detach"] == 0
    assert len(world.filesystem.devices) == 2


@pytest.mark.parametrize("adopt", [False, True])
def test_what_is_not_blank_is_put_back(world: SimulatedWorld, *, adopt: bool) -> None:
    """A loose volume with something on it is left as it was: detached, not deleted by EC2."""
    growth = GrowthId("", 0) if adopt else GrowthId(FILESYSTEM, 1)
    loose = world.cloud.put(growth, 20 * GIB)
    loose.blank, world.adopt = False, adopt
    world.clock.sleep(10)
    assert world.grow() is Outcome.DONE
    assert node_name(loose) not in world.filesystem.devices
    assert len(world.filesystem.devices) == 2
    world.clock.sleep(10)
    assert not world.cloud.find(loose.id).attached_to
    assert world.at.calls["set_delete_on_termination"] == 1
    assert world.causes(EventKind.WARNING)[0] == "not blank"


def test_a_blank_one_is_protected_once_it_is_a_device(world: SimulatedWorld) -> None:
    """A volume that an earlier run created gets DeleteOnTermination after the add, not before."""
    world.cloud.put(GrowthId(FILESYSTEM, 1), 50 * GIB)
    world.clock.sleep(10)
    world.fail("add_device", Unfit("not now", cause=Cause.INCOMPLETE_ADD))
    assert world.grow() is Outcome.UNFIT
    assert world.at.calls["set_delete_on_termination"] == 0
    assert world.grow() is Outcome.DONE
    assert world.cloud.volumes[0].protected_at < inf
