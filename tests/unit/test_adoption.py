"""What the older script left, and what becomes of it."""

from math import inf

import pytest

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import GIB, GrowthId
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.cloud import INSTANCE, Ebs, node_name
from tests.simulated.world import SimulatedWorld

NOBODYS = GrowthId("", 0)


@pytest.fixture
def world() -> SimulatedWorld:
    """A comfortable world with a device, a loose volume and one elsewhere, all a predecessor's."""
    world = SimulatedWorld()
    device, _, elsewhere = (world.cloud.put(NOBODYS, 10 * GIB) for _ in range(3))
    for volume, instance in ((device, INSTANCE), (elsewhere, "i-elsewhere")):
        volume.attached_to, volume.attached_at = instance, 0.0
    world.filesystem.devices[node_name(device)] = device.size_bytes
    world.clock.sleep(10)
    return world


def ours(world: SimulatedWorld) -> list[Ebs]:
    """The volumes that have become ours."""
    return [volume for volume in world.cloud.volumes if volume.growth != NOBODYS]


def test_without_the_wish_nothing_is_touched(world: SimulatedWorld) -> None:
    """Volumes without our tags are invisible unless the operator wants them adopted."""
    assert world.grow() is Outcome.HELD
    assert not ours(world)
    assert not world.at.calls["predecessors"]


def test_members_and_loose_volumes_are_adopted(world: SimulatedWorld) -> None:
    """A device becomes ours and protected, a loose one a device; one attached elsewhere stays."""
    world.adopt = True
    assert world.grow() is Outcome.DONE
    device, loose = ours(world)
    assert device.protected_at <= world.clock.now_seconds()
    assert node_name(loose) in world.filesystem.devices
    assert {device.growth.ordinal, loose.growth.ordinal} == {2, 3}
    assert world.grow() is Outcome.HELD
    assert len(ours(world)) == 2


def test_a_denied_adoption_keeps_no_space_away(world: SimulatedWorld) -> None:
    """A role that may not tag is named; what is needed is bought all the same."""
    world.adopt = True
    world.fill(95)
    world.fail("claim", Unfit("ec2:CreateTags is denied", cause=Cause.DENIED), times=inf)
    assert world.grow() is Outcome.DONE
    assert world.causes(EventKind.WARNING) == ["denied"]
    assert [volume.growth.ordinal for volume in ours(world)] == [2]


def test_what_is_not_blank_is_never_added(world: SimulatedWorld) -> None:
    """A loose volume with something on it is claimed and named, and left as it is."""
    world.adopt = True
    world.cloud.volumes[1].blank = False
    world.grow()
    assert node_name(world.cloud.volumes[1]) not in world.filesystem.devices
