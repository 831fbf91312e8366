"""DeleteOnTermination: set on every volume, and never in the way of space."""

from math import inf

import pytest

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.resize.attach import MAPPING_PATIENCE_SECONDS
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.world import SimulatedWorld

THROTTLED = Transient("RequestLimitExceeded", cause=Cause.THROTTLED)


@pytest.fixture
def world() -> SimulatedWorld:
    """A world that needs one growth."""
    world = SimulatedWorld()
    world.fill(percent=90)
    return world


def test_members_that_lost_their_protection_get_it_back(world: SimulatedWorld) -> None:
    """DeleteOnTermination of every device is looked at in each run, and repaired."""
    assert world.grow() is Outcome.DONE
    world.cloud.volumes[0].protected_at = inf
    assert world.grow() is Outcome.HELD
    assert world.cloud.volumes[0].protected_at < inf


def test_a_protection_that_cannot_be_repaired_is_told(world: SimulatedWorld) -> None:
    """EC2 failing while a device's DeleteOnTermination is repaired fails no look."""
    assert world.grow() is Outcome.DONE
    world.cloud.volumes[0].protected_at = inf
    world.fail("set_delete_on_termination", Transient("InternalError", cause=Cause.EC2_ERROR))
    assert world.grow() is Outcome.HELD
    assert world.causes(EventKind.WARNING) == ["unprotected"]
    assert world.grow() is Outcome.HELD
    assert world.cloud.volumes[0].protected_at < inf


@pytest.mark.parametrize(
    "error", [THROTTLED, Transient("UnsupportedInstanceAttribute", cause=Cause.MAPPING_NOT_VISIBLE)]
)
def test_a_protection_that_fails_delays_no_growth(
    world: SimulatedWorld, error: EbsAutoscaleError
) -> None:
    """While EC2 does not protect a volume it goes into service with a warning, in good time."""
    world.fail("set_delete_on_termination", error, times=inf)
    began = world.clock.now_seconds()
    assert world.grow() is Outcome.DONE
    assert world.clock.now_seconds() - began < 2 * MAPPING_PATIENCE_SECONDS + 20
    assert world.causes(EventKind.WARNING) == ["unprotected"]
    assert len(world.filesystem.devices) == 2

    world.at.faults.clear()
    assert world.grow() is Outcome.HELD
    assert world.cloud.volumes[0].protected_at < inf
    assert world.causes(EventKind.WARNING) == ["unprotected"]


def test_a_passing_failure_to_protect_is_no_alarm(world: SimulatedWorld) -> None:
    """What a repetition in the same growth protects is told nobody."""
    world.fail("set_delete_on_termination", THROTTLED)
    assert world.grow() is Outcome.DONE
    assert world.cloud.volumes[0].protected_at < inf
    assert not world.told(EventKind.WARNING)


def test_an_unprotected_volume_is_finished_after_a_crash(world: SimulatedWorld) -> None:
    """Killed between an attach without protection and the add, the next run adds the volume."""
    world.fail("set_delete_on_termination", THROTTLED, times=inf)
    world.fail("add_device", Transient("not now", cause=Cause.ADD))
    assert world.grow() is Outcome.FAILED
    assert world.grow() is Outcome.DONE
    assert len(world.cloud.volumes) == 1
    assert len(world.filesystem.devices) == 2


def test_a_denied_protection_is_a_warning(world: SimulatedWorld) -> None:
    """Who may not set DeleteOnTermination is told so once, and the volume goes into service."""
    denied = Unfit("not allowed", hint="allow it", cause=Cause.DENIED)
    world.fail("set_delete_on_termination", denied, times=inf)
    assert world.grow() is Outcome.DONE
    assert world.causes(EventKind.WARNING) == ["denied"]
    (warning,) = [event for event in world.events if event.kind is EventKind.WARNING]
    assert warning.volume == world.cloud.volumes[0].id
    assert warning.hint == denied.hint
    assert len(world.filesystem.devices) == 2


def test_protection_can_be_turned_off(world: SimulatedWorld) -> None:
    """With delete_on_termination false nothing is set, and growths are complete without."""
    world.delete_on_termination = False
    assert world.grow() is Outcome.DONE
    assert world.at.calls["set_delete_on_termination"] == 0
    assert world.grow() is Outcome.HELD


def test_a_mapping_not_visible_yet_is_waited_for(world: SimulatedWorld) -> None:
    """Protection is tried again while EC2 does not show the attachment to that call."""
    world.cloud.latencies.mapping = 20.0
    assert world.grow() is Outcome.DONE
    assert world.at.calls["set_delete_on_termination"] > 1
    assert world.cloud.volumes[0].protected_at < inf
