"""What every implementation of the Cloud port guarantees."""

from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause, NameTaken, Transient, Unfit
from ebs_autoscale.model import GIB, GrowthId, Volume
from tests.contract.clouds import (
    INVENTORY,
    CloudUnderTest,
    Conditions,
    Start,
    in_memory,
    over_http,
)
from tests.unit.samples import FILESYSTEM

GROWTH = GrowthId(FILESYSTEM, 7)
NEXT_GROWTH = GrowthId(FILESYSTEM, 8)
OTHER = GrowthId("00000000-0000-4000-8000-00000000000f", 7)
NAME = "/dev/xvdba"
NEXT_NAME = "/dev/xvdbb"


@pytest.fixture(params=["in memory", "over http"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begin with each implementation in turn."""
    if request.param == "in memory":
        return in_memory
    return over_http(tmp_path, monkeypatch)


def create(tested: CloudUnderTest, growth: GrowthId = GROWTH, size_bytes: int = 20 * GIB) -> Volume:
    """The volume of a growth, just created."""
    return tested.cloud.create(growth, size_bytes, INVENTORY)


def refreshed(tested: CloudUnderTest, volume: Volume) -> Volume:
    """The volume as it is now; it must be visible."""
    seen = tested.cloud.refresh(volume)
    assert seen is not None
    return seen


def available(tested: CloudUnderTest, growth: GrowthId = GROWTH) -> Volume:
    """A volume that was created and has become available."""
    volume = create(tested, growth)
    tested.clock.sleep(10)
    return refreshed(tested, volume)


def attached(tested: CloudUnderTest, growth: GrowthId = GROWTH) -> Volume:
    """A volume that was created and attached."""
    volume = available(tested, growth)
    tested.cloud.attach(volume, NAME, INVENTORY)
    tested.clock.sleep(10)
    return refreshed(tested, volume)


def test_create_is_idempotent(start: Start) -> None:
    """The same growth asked for again, at once or an hour later, is the same volume."""
    with start(Conditions()) as tested:
        first = create(tested)
        assert create(tested).id == first.id
        tested.clock.sleep(3600)
        assert create(tested).id == first.id
        assert tested.count() == 1
        assert (first.growth, first.size_bytes) == (GROWTH, 20 * GIB)
        assert first.state == "creating"


def test_each_growth_has_its_own_volume(start: Start) -> None:
    """Another ordinal or another filesystem is another volume."""
    with start(Conditions()) as tested:
        ids = {create(tested, growth).id for growth in (GROWTH, NEXT_GROWTH, OTHER)}
        assert len(ids) == 3


def test_a_volume_becomes_available(start: Start) -> None:
    """A volume is `creating` until it is `available`, and then attached nowhere."""
    with start(Conditions(create_seconds=5)) as tested:
        volume = create(tested)
        tested.clock.sleep(4)
        assert refreshed(tested, volume).state == "creating"
        tested.clock.sleep(1.1)
        seen = refreshed(tested, volume)
        assert (seen.state, seen.attached_to, seen.attachment_state) == ("available", "", "")


def test_an_empty_inventory(start: Start) -> None:
    """Before the first growth there are no volumes, the root's name is taken, slots are known."""
    with start(Conditions()) as tested:
        inventory = tested.cloud.inventory(FILESYSTEM)
        assert inventory.volumes == ()
        assert inventory.device_names == {"/dev/xvda"}
        assert inventory.slots_free == 26


def test_the_inventory_has_what_stages_are_derived_from(start: Start) -> None:
    """The inventory shows size, state and attachment, and no volume of another filesystem."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        available(tested, OTHER)
        newer = create(tested, NEXT_GROWTH, 30 * GIB)
        tested.clock.sleep(60)
        inventory = tested.cloud.inventory(FILESYSTEM)
        assert {v.id: (v.growth.ordinal, v.size_bytes // GIB) for v in inventory.volumes} == {
            volume.id: (7, 20),
            newer.id: (8, 30),
        }
        seen = next(v for v in inventory.volumes if v.id == volume.id)
        assert (seen.state, seen.attachment_state) == ("in-use", "attached")
        assert seen.attached_to == inventory.instance_id
        assert seen.device_name == NAME
        assert not seen.delete_on_termination
        assert inventory.device_names == {"/dev/xvda", NAME}
        assert inventory.slots_free == 25
        (newest,) = (v for v in inventory.volumes if v.id == newer.id)
        assert newest.age_seconds == pytest.approx(60, abs=2)


def test_an_attachment_takes_time(start: Start) -> None:
    """A volume is `attaching` to this instance at once, and `attached` later."""
    with start(Conditions(attach_seconds=5)) as tested:
        volume = available(tested)
        tested.cloud.attach(volume, NAME, INVENTORY)
        seen = refreshed(tested, volume)
        assert (seen.attachment_state, seen.device_name) == ("attaching", NAME)
        assert seen.attached_to == tested.cloud.inventory(FILESYSTEM).instance_id
        tested.clock.sleep(5.1)
        assert refreshed(tested, volume).attachment_state == "attached"


@pytest.mark.parametrize("hidden", [(), (NAME,)])
def test_a_name_in_use_is_refused(start: Start, hidden: tuple[str, ...]) -> None:
    """A name in use, visible or not, is NameTaken; another name is accepted."""
    with start(Conditions(hidden_names=hidden)) as tested:
        if not hidden:
            attached(tested)
        volume = available(tested, NEXT_GROWTH)
        with pytest.raises(NameTaken):
            tested.cloud.attach(volume, NAME, INVENTORY)
        assert NAME not in tested.cloud.inventory(FILESYSTEM).device_names or not hidden
        tested.cloud.attach(volume, NEXT_NAME, INVENTORY)


def test_only_an_available_volume_is_attached(start: Start) -> None:
    """A volume that is being created, or is attached already, is refused for now."""
    with start(Conditions()) as tested:
        volume = create(tested)
        with pytest.raises(Transient) as caught:
            tested.cloud.attach(volume, NAME, INVENTORY)
        assert caught.value.cause is Cause.STATE
        volume = attached(tested)
        with pytest.raises(Transient) as caught:
            tested.cloud.attach(volume, NEXT_NAME, INVENTORY)
        assert caught.value.cause is Cause.STATE


def test_delete_on_termination_is_read_back(start: Start) -> None:
    """DeleteOnTermination is off after the attach, on once it was set, and may be set again."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        assert not volume.delete_on_termination
        for _ in range(2):
            tested.cloud.set_delete_on_termination(volume)
            assert refreshed(tested, volume).delete_on_termination
        assert tested.cloud.inventory(FILESYSTEM).volumes[0].delete_on_termination


def test_delete_on_termination_needs_an_attachment(start: Start) -> None:
    """It cannot be set on a volume that is not attached; that may succeed later."""
    with start(Conditions()) as tested:
        with pytest.raises(Transient) as caught:
            tested.cloud.set_delete_on_termination(available(tested))
        assert caught.value.cause is Cause.MAPPING_NOT_VISIBLE


def test_a_deleted_volume_is_not_shown(start: Start) -> None:
    """A volume that was deleted refreshes to None and is not in the inventory."""
    with start(Conditions()) as tested:
        volume = available(tested)
        tested.delete(volume.id)
        tested.clock.sleep(10)
        assert tested.cloud.refresh(volume) is None
        assert tested.cloud.inventory(FILESYSTEM).volumes == ()


def test_visibility_takes_time(start: Start) -> None:
    """A volume that EC2 does not show yet is None; asking for it again creates no other."""
    with start(Conditions(visible_seconds=8)) as tested:
        volume = create(tested)
        assert tested.cloud.refresh(volume) is None
        assert tested.cloud.inventory(FILESYSTEM).volumes == ()
        assert create(tested).id == volume.id
        tested.clock.sleep(8.1)
        assert refreshed(tested, volume).id == volume.id
        assert tested.count() == 1


@pytest.mark.parametrize("visible_seconds", [0.0, 8.0])
def test_a_quota_hides_no_volume(start: Start, visible_seconds: float) -> None:
    """At the quota a growth that has its volume gets it; for another an operator must act.

    No time passes: the refusal created nothing, and what is not listed yet is found by a later try.
    """
    with start(Conditions(quota_volumes=1, visible_seconds=visible_seconds)) as tested:
        volume = create(tested)
        began = tested.clock.now_seconds()
        with pytest.raises(Unfit) as caught:
            create(tested, NEXT_GROWTH)
        assert caught.value.cause is Cause.QUOTA
        assert tested.clock.now_seconds() == began
        tested.clock.sleep(visible_seconds)
        assert create(tested).id == volume.id
        assert tested.count() == 1


def test_a_deleted_volume_is_replaced(start: Start) -> None:
    """When a growth's volume was deleted, another is created, as often as needed."""
    with start(Conditions()) as tested:
        seen = set()
        for _ in range(3):
            volume = available(tested)
            assert volume.growth == GROWTH
            seen.add(volume.id)
            tested.delete(volume.id)
            tested.clock.sleep(10)
        assert len(seen) == 3


def test_a_detached_volume_can_be_attached_again(start: Start) -> None:
    """A detach takes time, frees the name, and may be repeated."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        for _ in range(2):
            tested.cloud.detach(volume)
            tested.clock.sleep(10)
        seen = refreshed(tested, volume)
        assert (seen.state, seen.attached_to, seen.device_name) == ("available", "", "")
        assert tested.cloud.inventory(FILESYSTEM).device_names == {"/dev/xvda"}
        tested.cloud.attach(seen, NAME, INVENTORY)
        tested.clock.sleep(10)
        assert not refreshed(tested, volume).delete_on_termination


def test_only_a_detached_volume_is_deleted(start: Start) -> None:
    """Deleting an attached volume is refused for now; an available one is deleted."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        with pytest.raises(Transient) as caught:
            tested.cloud.delete(volume)
        assert caught.value.cause is Cause.STATE
        assert refreshed(tested, volume).attachment_state == "attached"
        spare = available(tested, NEXT_GROWTH)
        tested.cloud.delete(spare)
        tested.clock.sleep(10)
        assert tested.cloud.refresh(spare) is None
