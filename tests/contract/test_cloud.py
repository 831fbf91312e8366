"""What every implementation of the Cloud port keeps to."""

from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause, NameTaken, Transient, Unfit
from ebs_autoscale.model import GIB, GrowthId, Volume
from tests.contract.clouds import Conditions, Start, Steered, in_memory, over_http
from tests.unit.samples import FILESYSTEM

GROWTH = GrowthId(FILESYSTEM, 7)
OTHER = GrowthId("00000000-0000-4000-8000-00000000000f", 7)
NAME = "/dev/xvdba"


@pytest.fixture(params=["in memory", "over http"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begin with each implementation in turn."""
    if request.param == "in memory":
        return in_memory
    return over_http(tmp_path, monkeypatch)


def refreshed(steered: Steered, volume: Volume) -> Volume:
    """The volume as it is now; it must be visible."""
    seen = steered.cloud.refresh(volume)
    assert seen is not None
    return seen


def available(steered: Steered, growth: GrowthId = GROWTH) -> Volume:
    """A volume that was bought and waited for."""
    volume = steered.cloud.create(growth, 20 * GIB)
    steered.clock.sleep(10)
    return refreshed(steered, volume)


def attached(steered: Steered, growth: GrowthId = GROWTH, name: str = NAME) -> Volume:
    """A volume that was attached and waited for."""
    volume = available(steered, growth)
    steered.cloud.attach(volume, name)
    steered.clock.sleep(10)
    return refreshed(steered, volume)


def test_to_create_twice_buys_once(start: Start) -> None:
    """The same growth asked for again, at once or much later, is the same volume."""
    with start(Conditions()) as steered:
        first = steered.cloud.create(GROWTH, 20 * GIB)
        assert steered.cloud.create(GROWTH, 20 * GIB).id == first.id
        steered.clock.sleep(3600)
        assert steered.cloud.create(GROWTH, 20 * GIB).id == first.id
        assert steered.count() == 1
        assert (first.growth, first.size_bytes) == (GROWTH, 20 * GIB)
        assert first.state == "creating"


def test_growths_have_their_own_volumes(start: Start) -> None:
    """Another ordinal or another filesystem is another volume."""
    with start(Conditions()) as steered:
        growths = [GROWTH, GrowthId(FILESYSTEM, 8), OTHER]
        assert len({steered.cloud.create(growth, 20 * GIB).id for growth in growths}) == 3


def test_a_volume_becomes_available(start: Start) -> None:
    """A volume is `creating` until it is `available`, and belongs to nobody."""
    with start(Conditions(create_seconds=5)) as steered:
        volume = steered.cloud.create(GROWTH, 20 * GIB)
        steered.clock.sleep(4)
        assert refreshed(steered, volume).state == "creating"
        steered.clock.sleep(1.1)
        seen = refreshed(steered, volume)
        assert (seen.state, seen.attached_to, seen.attachment_state) == ("available", "", "")


def test_an_empty_inventory(start: Start) -> None:
    """Before the first growth nothing is ours, the root's name is taken, slots are known."""
    with start(Conditions()) as steered:
        inventory = steered.cloud.inventory(FILESYSTEM)
        assert inventory.volumes == ()
        assert inventory.device_names == {"/dev/xvda"}
        assert inventory.slots_free == 26
        assert inventory.seconds_since_last_create is None


def test_the_inventory_shows_what_stages_need(start: Start) -> None:
    """All that stages are derived from is in the inventory, and nothing of other filesystems."""
    with start(Conditions()) as steered:
        volume = attached(steered)
        available(steered, OTHER)
        newer = steered.cloud.create(GrowthId(FILESYSTEM, 8), 30 * GIB)
        steered.clock.sleep(60)
        inventory = steered.cloud.inventory(FILESYSTEM)
        assert {v.id: v.growth.ordinal for v in inventory.volumes} == {volume.id: 7, newer.id: 8}
        assert {v.id: v.size_bytes // GIB for v in inventory.volumes} == {
            volume.id: 20,
            newer.id: 30,
        }
        seen = next(v for v in inventory.volumes if v.id == volume.id)
        assert (seen.state, seen.attachment_state) == ("in-use", "attached")
        assert seen.attached_to == inventory.instance_id
        assert seen.device_name == NAME
        assert not seen.delete_on_termination
        assert inventory.device_names == {"/dev/xvda", NAME}
        assert inventory.slots_free == 25
        assert inventory.seconds_since_last_create == pytest.approx(60, abs=2)


def test_an_attachment_takes_its_time(start: Start) -> None:
    """A volume is `attaching` to us at once, and `attached` later."""
    with start(Conditions(attach_seconds=5)) as steered:
        volume = available(steered)
        steered.cloud.attach(volume, NAME)
        seen = refreshed(steered, volume)
        assert (seen.attachment_state, seen.device_name) == ("attaching", NAME)
        assert seen.attached_to == steered.cloud.inventory(FILESYSTEM).instance_id
        steered.clock.sleep(5.1)
        assert refreshed(steered, volume).attachment_state == "attached"


@pytest.mark.parametrize("hidden", [(), (NAME,)])
def test_a_taken_name_is_refused(start: Start, hidden: tuple[str, ...]) -> None:
    """A name in use, visible or not, is NameTaken; the volume can be attached under another."""
    with start(Conditions(hidden_names=hidden)) as steered:
        if not hidden:
            attached(steered)
        volume = available(steered, GrowthId(FILESYSTEM, 8))
        with pytest.raises(NameTaken):
            steered.cloud.attach(volume, NAME)
        assert NAME not in steered.cloud.inventory(FILESYSTEM).device_names or not hidden
        steered.cloud.attach(volume, "/dev/xvdbb")


def test_only_an_available_volume_is_attached(start: Start) -> None:
    """A volume that is being created or attached already is refused for now."""
    with start(Conditions()) as steered:
        volume = steered.cloud.create(GROWTH, 20 * GIB)
        with pytest.raises(Transient) as caught:
            steered.cloud.attach(volume, NAME)
        assert caught.value.cause is Cause.STATE
        volume = attached(steered)
        with pytest.raises(Transient) as caught:
            steered.cloud.attach(volume, "/dev/xvdbb")
        assert caught.value.cause is Cause.STATE


def test_protection_is_read_back(start: Start) -> None:
    """DeleteOnTermination is off after the attach, on after it was set, and setting repeats."""
    with start(Conditions()) as steered:
        volume = attached(steered)
        assert not volume.delete_on_termination
        for _ in range(2):
            steered.cloud.delete_on_termination(volume)
            assert refreshed(steered, volume).delete_on_termination
        assert steered.cloud.inventory(FILESYSTEM).volumes[0].delete_on_termination


def test_protection_needs_an_attachment(start: Start) -> None:
    """A volume that is not attached cannot be protected: that may pass."""
    with start(Conditions()) as steered:
        with pytest.raises(Transient) as caught:
            steered.cloud.delete_on_termination(available(steered))
        assert caught.value.cause is Cause.MAPPING_NOT_VISIBLE


def test_what_is_gone_is_not_shown(start: Start) -> None:
    """A volume that was deleted refreshes to None, and the inventory has none."""
    with start(Conditions()) as steered:
        volume = available(steered)
        steered.delete(volume.id)
        steered.clock.sleep(10)
        assert steered.cloud.refresh(volume) is None
        assert steered.cloud.inventory(FILESYSTEM).volumes == ()


def test_visibility_takes_its_time(start: Start) -> None:
    """A volume that EC2 does not show yet is None, then there; to create it again buys nothing."""
    with start(Conditions(visible_seconds=8)) as steered:
        volume = steered.cloud.create(GROWTH, 20 * GIB)
        assert steered.cloud.refresh(volume) is None
        assert steered.cloud.inventory(FILESYSTEM).volumes == ()
        assert steered.cloud.create(GROWTH, 20 * GIB).id == volume.id
        steered.clock.sleep(8.1)
        assert refreshed(steered, volume).id == volume.id
        assert steered.count() == 1


@pytest.mark.parametrize("visible_seconds", [0.0, 8.0])
def test_a_quota_hides_no_volume(start: Start, visible_seconds: float) -> None:
    """At the quota a growth that has its volume gets it; another is told that a human must act."""
    with start(Conditions(quota_volumes=1, visible_seconds=visible_seconds)) as steered:
        volume = steered.cloud.create(GROWTH, 20 * GIB)
        assert steered.cloud.create(GROWTH, 20 * GIB).id == volume.id
        with pytest.raises(Unfit) as caught:
            steered.cloud.create(GrowthId(FILESYSTEM, 8), 20 * GIB)
        assert caught.value.cause is Cause.QUOTA
        assert steered.count() == 1


def test_a_deleted_volume_is_replaced(start: Start) -> None:
    """When a growth's volume was deleted, to create it again buys another, as often as needed."""
    with start(Conditions()) as steered:
        seen = set()
        for _ in range(3):
            volume = available(steered)
            assert volume.growth == GROWTH
            seen.add(volume.id)
            steered.delete(volume.id)
            steered.clock.sleep(10)
        assert len(seen) == 3


def test_what_is_detached_can_be_attached_again(start: Start) -> None:
    """A detach takes its time, frees the name, and repeats without harm."""
    with start(Conditions()) as steered:
        volume = attached(steered)
        for _ in range(2):
            steered.cloud.detach(volume)
            steered.clock.sleep(10)
        seen = refreshed(steered, volume)
        assert (seen.state, seen.attached_to, seen.device_name) == ("available", "", "")
        assert steered.cloud.inventory(FILESYSTEM).device_names == {"/dev/xvda"}
        steered.cloud.attach(seen, NAME)
        steered.clock.sleep(10)
        assert not refreshed(steered, volume).delete_on_termination


def test_only_a_free_volume_is_deleted(start: Start) -> None:
    """An attached volume is refused, for now; an available one is gone."""
    with start(Conditions()) as steered:
        volume = attached(steered)
        with pytest.raises(Transient) as caught:
            steered.cloud.delete(volume)
        assert caught.value.cause is Cause.STATE
        assert refreshed(steered, volume).attachment_state == "attached"
        spare = available(steered, GrowthId(FILESYSTEM, 8))
        steered.cloud.delete(spare)
        steered.clock.sleep(10)
        assert steered.cloud.refresh(spare) is None
