"""A growth from look to result, stopped and killed wherever that can happen."""

from dataclasses import replace
from math import inf

import pytest

from ebs_autoscale.ec2.requests import DEVICE_NAMES
from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.model import (
    GIB,
    MIB,
    DecisionKind,
    GrowthId,
    Inventory,
    Rebalance,
    Stage,
)
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthMethod, GrowthPolicy, Limits, Sizing
from ebs_autoscale.resize.growth import Outcome, grow_once
from ebs_autoscale.telemetry.events import Event, EventKind
from tests.simulated.clock import Killed
from tests.simulated.cloud import GONE, Latencies, node_name
from tests.simulated.host import FILESYSTEM
from tests.simulated.world import SimulatedWorld
from tests.unit.samples import ADDING

# Some looks, and the volume that replaces it; a deadline would take longer.
AT_ONCE_SECONDS = 40.0


def low_world() -> SimulatedWorld:
    """A world that needs one growth, with the delays EC2 has on a slow day."""
    world = SimulatedWorld()
    world.fill(percent=90)
    world.filesystem.balance_seconds = 3.0
    world.cloud.latencies.visible = 1.0
    world.cloud.latencies.mapping = 3.0
    return world


def require_one_good_volume(world: SimulatedWorld) -> None:
    """What every growth must end with: one volume, a device, protected, metadata balanced."""
    (volume,) = world.cloud.volumes
    assert node_name(volume) in world.filesystem.devices
    assert volume.growth == GrowthId(FILESYSTEM, 1)
    assert volume.protected_at < inf
    assert world.filesystem.balanced
    assert len(world.filesystem.devices) == 2


def whole_growth() -> SimulatedWorld:
    """One that nothing disturbs, to count its sleeps and calls."""
    world = low_world()
    assert world.grow() is Outcome.DONE
    return world


UNDISTURBED = whole_growth()


def test_a_growth_tells_what_its_devices_take() -> None:
    """The loop learns the throughput of a new device as it is added, and of all at each look."""
    world = whole_growth()
    node = node_name(world.cloud.volumes[0])
    for told in range(1, 3):
        found = [event for event in world.events if event.kind is EventKind.THROUGHPUT]
        assert [event.device for event in found] == told * [node]
        assert {event.bytes_per_second for event in found} == {125 * MIB}
        assert world.grow() is Outcome.HELD


def test_a_whole_growth() -> None:
    """A growth buys one volume and makes it a protected device; all of it is told in order."""
    world = whole_growth()
    require_one_good_volume(world)
    (decided,) = [event for event in world.events if event.kind is EventKind.DECIDED]
    assert decided.decision is DecisionKind.GROW
    assert world.steps() == world.steps(EventKind.STEP_DONE)
    assert world.steps() == [*ADDING]
    (done,) = [event for event in world.events if event.kind is EventKind.GROWTH_DONE]
    assert done.growth == "6a92f8de-1"
    assert done.seconds
    assert not world.told(EventKind.WARNING)


def test_a_second_run_has_nothing_to_do() -> None:
    """A finished growth is not done again: the next run holds and changes nothing."""
    world = whole_growth()
    before = world.at.calls.copy()
    assert world.grow() is Outcome.HELD
    changed = {call for call, count in (world.at.calls - before).items() if count}
    assert changed == {"read", "inventory"}


@pytest.mark.parametrize("cause", [Cause.MISSING_TOOL, Cause.CAPABILITY, Cause.NO_BTRFS_PROGS])
def test_ec2_is_asked_for_nothing_that_cannot_be_used(cause: Cause) -> None:
    """The growth fails before its first call to EC2, and goes on once the host can use it."""
    world = low_world()
    world.filesystem.not_growable = Unfit("this host cannot use more space", cause=cause)
    assert world.grow() is Outcome.UNFIT
    assert set(world.at.calls) == {"read"}
    (told,) = [event for event in world.events if event.kind is EventKind.GROWTH_FAILED]
    assert told.cause is cause
    world.filesystem.not_growable = None
    assert world.grow() is Outcome.DONE
    require_one_good_volume(world)


@pytest.mark.parametrize("sleeps", range(UNDISTURBED.clock.slept))
def test_a_stop_at_any_wait_loses_nothing(sleeps: int) -> None:
    """Stopped between or inside any two steps, the next run finishes that same growth."""
    world = low_world()
    world.clock.sleeps_left = sleeps

    assert world.grow() is Outcome.STOPPED
    assert len(world.told(EventKind.GROWTH_STOPPED)) == 1
    assert world.restart().grow() is Outcome.DONE
    require_one_good_volume(world)


@pytest.mark.parametrize("tenths", range(0, 140, 7))
def test_a_stop_at_any_time_loses_nothing(tenths: int) -> None:
    """A stop in the middle of a wait is as harmless as one at its beginning."""
    world = low_world()
    world.clock.stop_at_seconds = world.clock.now_seconds() + tenths / 10

    assert world.grow() in {Outcome.STOPPED, Outcome.DONE}
    world.restart().grow()
    require_one_good_volume(world)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stop_takes_effect_between_steps(number: int) -> None:
    """A stop that comes as a step ends is obeyed before the next one begins."""
    world = low_world()
    world.cloud.latencies = Latencies(create=0, attach=0, node=0)
    world.filesystem.balance_seconds = 0

    def stop_after(event: Event) -> None:
        world.events.append(event)
        done = event.kind is EventKind.STEP_DONE and event.number == number
        world.clock.stopping = world.clock.stopping or done

    ports = replace(world.ports(), emit=stop_after)
    assert grow_once(ports, GrowthPolicy(), Forecast()) is Outcome.STOPPED
    assert len(world.told(EventKind.STEP_STARTED)) == number
    assert world.restart().grow() is Outcome.DONE
    require_one_good_volume(world)


@pytest.mark.parametrize("boundary", range(UNDISTURBED.at.passed))
def test_death_at_any_boundary_loses_nothing(boundary: int) -> None:
    """Killed before or after the effect of any call, the next run finishes that same growth."""
    world = low_world()
    world.at.kill_at = boundary
    with pytest.raises(Killed):
        world.grow()

    world.restart().grow()

    require_one_good_volume(world)


@pytest.mark.parametrize("boundary", range(0, UNDISTURBED.at.passed, 3))
def test_dying_again_and_again_still_converges(boundary: int) -> None:
    """Processes that each die a little later still come to one volume, a device."""
    world = low_world()
    for later in range(UNDISTURBED.at.passed):
        world.at.kill_at = world.at.passed + boundary + later
        try:
            world.grow()
        except Killed:
            continue
        break
    world.restart().grow()
    require_one_good_volume(world)


@pytest.mark.parametrize("call", ["create", "attach", "add_device"])
@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_lost_call_is_made_good(call: str, *, answer_lost: bool) -> None:
    """A call that fails, or succeeds without our hearing it, costs one more run and no volume."""
    world = low_world()
    world.cloud.latencies.mapping = 0.0
    world.fail(
        call, Transient("connection reset", cause=Cause.EC2_UNREACHABLE), answer_lost=answer_lost
    )

    assert world.grow() is Outcome.FAILED
    assert world.causes(EventKind.GROWTH_FAILED) == ["ec2 unreachable"]
    assert world.grow() is Outcome.DONE
    require_one_good_volume(world)


def test_an_invisible_volume_is_not_bought_again() -> None:
    """A create whose answer is lost and whose volume is not visible yet yields the same volume."""
    world = low_world()
    world.cloud.latencies.visible = 20.0
    world.fail(
        "create", Transient("connection reset", cause=Cause.EC2_UNREACHABLE), answer_lost=True
    )
    world.grow()
    assert world.grow() is Outcome.DONE
    require_one_good_volume(world)


def test_what_is_not_blank_is_set_aside() -> None:
    """A volume with something on it is told, never added, and the same run grows without it."""
    world = low_world()
    world.cloud.put(GrowthId(FILESYSTEM, 1), 50 * GIB).blank = False
    world.clock.sleep(world.cloud.latencies.visible)

    assert world.grow() is Outcome.DONE

    first, second = world.cloud.volumes
    assert "not blank" in world.causes(EventKind.WARNING)
    assert not world.told(EventKind.GROWTH_FAILED)
    assert node_name(first) not in world.filesystem.devices
    assert node_name(second) in world.filesystem.devices
    assert second.growth.ordinal == 2


def test_what_is_attached_elsewhere_is_left_there() -> None:
    """A volume on another instance is reported, and growth goes on without it."""
    world = low_world()
    stray = world.cloud.put(GrowthId(FILESYSTEM, 1), 50 * GIB)
    stray.attached_to, stray.attached_at = "i-elsewhere", 0.0
    world.clock.sleep(world.cloud.latencies.visible)

    assert world.grow() is Outcome.DONE

    assert world.causes(EventKind.WARNING) == ["unused volumes"]
    assert stray.attached_to == "i-elsewhere"
    assert len(world.filesystem.devices) == 2


def test_nothing_is_set_aside_for_a_passing_failure() -> None:
    """A failure that may pass ends the run instead of buying another volume."""
    world = low_world()
    world.cloud.put(GrowthId(FILESYSTEM, 1), 50 * GIB)
    world.fail("attach", Unfit("not allowed", cause=Cause.DENIED))
    assert world.grow() is Outcome.UNFIT
    assert len(world.cloud.volumes) == 1


@pytest.mark.parametrize("stage", [Stage.CREATED, Stage.ATTACHED])
@pytest.mark.parametrize("state", ["deleting", "deleted", "error", GONE])
def test_a_lost_volume_is_told_and_replaced(state: str, stage: Stage) -> None:
    """A volume that vanishes while it is made is told, and soon replaced in the same growth.

    Also one that EC2 had shown and does not show any more: that is not one not visible yet.
    """
    world = low_world()
    began = world.clock.now_seconds()
    volume = world.cloud.put(GrowthId(FILESYSTEM, 1), 50 * GIB)
    volume.dead_as, volume.dead_from = state, began + 5
    if stage is Stage.CREATED:
        world.cloud.latencies.create = 10.0
    else:
        world.cloud.hanging_names.add(DEVICE_NAMES[0])

    world.clock.sleep(2)
    assert world.grow() is Outcome.DONE
    (told,) = [e for e in world.events if e.cause is Cause.VOLUME_LOST]
    assert told.kind is EventKind.TENDED
    assert volume.id in told.sentence
    assert state in told.sentence
    assert world.cloud.volumes[1].growth.ordinal == 2
    assert len(world.filesystem.devices) == 2
    assert world.clock.now_seconds() - began < AT_ONCE_SECONDS


def test_unbalanced_metadata_is_a_warning() -> None:
    """When metadata cannot be balanced the space is usable, and a later run balances it."""
    world = low_world()
    world.fail("balance_metadata", Transient("a balance runs", cause=Cause.EXCLUSIVE_OPERATION))

    assert world.grow() is Outcome.DONE
    assert world.causes(EventKind.WARNING) == ["unbalanced"]
    assert not world.filesystem.balanced
    assert len(world.filesystem.devices) == 2

    assert world.grow() is Outcome.DONE
    assert world.steps()[-1] == "BalanceMetadata"
    require_one_good_volume(world)


def test_members_are_looked_after_when_the_space_is_there() -> None:
    """What is amiss with older volumes costs calls: they come after the device that is needed."""
    world = low_world()
    assert world.grow() is Outcome.DONE
    world.cloud.volumes[0].protected_at = inf
    world.fill(95)
    world.events.clear()
    world.fail("set_delete_on_termination", Unfit("it is denied", cause=Cause.DENIED), times=2)
    assert world.grow() is Outcome.DONE
    told = [(event.kind, event.volume) for event in world.events]
    added = max(i for i, (kind, _) in enumerate(told) if kind is EventKind.STEP_DONE)
    assert told[added + 1 :] == [
        (EventKind.WARNING, world.cloud.volumes[0].id),
        (EventKind.INVENTORY, None),
        (EventKind.GROWTH_DONE, world.cloud.volumes[-1].id),
    ]


def test_balancing_can_be_turned_off() -> None:
    """With metadata.rebalance off, unbalanced metadata is never a reason to act."""
    world = low_world()
    world.rebalance = Rebalance.OFF
    assert world.grow() is Outcome.DONE
    assert world.grow() is Outcome.HELD


def test_a_refusal_is_told_and_changes_nothing() -> None:
    """A limit refuses with its key, reason and hint, and nothing is bought."""
    world = low_world()
    assert world.grow(GrowthPolicy(limits=Limits(volumes=0))) is Outcome.REFUSED
    assert world.causes(EventKind.GROWTH_REFUSED) == ["limits.volumes"]
    (refused,) = [event for event in world.events if event.kind is EventKind.GROWTH_REFUSED]
    assert "10 GiB" in refused.sentence
    assert refused.hint
    assert not world.cloud.volumes


@pytest.mark.parametrize("call", ["read", "inventory"])
def test_failing_to_look_changes_nothing(call: str) -> None:
    """Who cannot see does not act: the failure is told with its cause."""
    world = low_world()
    world.fail(call, Unfit("/scratch is not mounted", cause=Cause.NOT_MOUNTED))
    assert world.grow() is Outcome.UNFIT
    assert world.causes(EventKind.GROWTH_FAILED) == ["not mounted"]
    assert not world.cloud.volumes


def test_quota_is_told() -> None:
    """A create that the account's quota forbids fails with that cause and leaves nothing."""
    world = low_world()
    world.cloud.quota_volumes = 0
    assert world.grow() is Outcome.UNFIT
    assert world.causes(EventKind.GROWTH_FAILED) == ["quota"]


def test_what_is_deleted_while_ec2_answers_cancels() -> None:
    """The filesystem is looked at after EC2, so that space freed meanwhile creates nothing."""
    world = low_world()
    inventory = world.cloud.inventory

    def slowly(filesystem: str) -> Inventory:
        world.fill(percent=10)
        return inventory(filesystem)

    world.cloud.inventory = slowly  # type: ignore[method-assign] # of this world only
    assert world.grow() is Outcome.HELD
    assert world.cloud.volumes == []


def test_a_refusal_is_told_and_metadata_balanced_beside_it() -> None:
    """What a limit forbids does not keep metadata from being balanced, and is the last word."""
    world = SimulatedWorld()
    world.fill(95)
    assert world.grow() is Outcome.DONE
    world.filesystem.balanced = False
    world.fill(95)
    only_add = Sizing(method=GrowthMethod.ADD)
    policy = GrowthPolicy(sizing=only_add, limits=Limits(volumes=1))
    assert world.grow(policy) is Outcome.REFUSED
    assert world.filesystem.balanced
    assert world.causes(EventKind.GROWTH_REFUSED) == ["limits.volumes"] * 2
    assert world.events[-1].kind is EventKind.GROWTH_REFUSED
    assert world.grow(policy) is Outcome.REFUSED
    assert world.causes(EventKind.GROWTH_REFUSED) == ["limits.volumes"] * 3


def test_nothing_is_added_beside_a_device_without_superblock() -> None:
    """An add that was not completed is told at each look, until it is; nothing else is tried."""
    world = low_world()
    world.filesystem.devices["nvme1n1"] = GIB
    world.filesystem.unwritten = {"nvme1n1"}
    for times in (1, 2, 3):
        assert world.grow() is Outcome.UNFIT
        assert world.causes(EventKind.GROWTH_FAILED) == ["incomplete add"] * times
    assert not world.cloud.volumes
    world.filesystem.unwritten = set()
    assert world.grow() is Outcome.DONE


def test_a_volume_that_cannot_be_written_is_set_aside() -> None:
    """It is named, and the growth goes on with another one."""
    world = low_world()
    world.at.calls.clear()
    world.fail("add_device", Unfit("nvme1n1 refuses to be written", cause=Cause.UNWRITABLE))
    assert world.grow() is Outcome.DONE
    (told,) = [event for event in world.events if event.cause is Cause.UNWRITABLE]
    # A failure would be followed by a pause.
    assert told.kind is EventKind.WARNING
    assert told.volume == world.cloud.volumes[0].id
