"""The first volume of a filesystem: there is one, however often it is asked for."""

from dataclasses import replace
from uuid import UUID

import pytest

from ebs_autoscale.errors import Cause, Refused
from ebs_autoscale.model import GIB, GrowthId
from ebs_autoscale.policy import next_growth
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.provision.first_volume import NoFilesystem, obtain, uuid_for
from ebs_autoscale.resize import observe
from tests.simulated.clock import Killed
from tests.simulated.world import SimulatedWorld

OWNER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"


def test_a_uuid_that_never_changes() -> None:
    """The UUID depends on instance and mountpoint alone, and is the same in every version."""
    name = uuid_for(OWNER, "/scratch")
    assert name == "1786edb8-522e-5536-96ac-0fb546f6e8d0"
    assert UUID(name).version == 5
    assert len({name, uuid_for(OWNER, "/a"), uuid_for("", "/scratch")}) == 3


@pytest.fixture
def world() -> SimulatedWorld:
    """A world that needs one growth."""
    return SimulatedWorld()


def first(world: SimulatedWorld, policy: GrowthPolicy | None = None) -> str:
    """The id of the first volume, as one run of `init` obtains it."""
    ports = replace(world.ports(), filesystem=NoFilesystem(world.filesystem.uuid, "/scratch"))
    volume, node = obtain(ports, policy or GrowthPolicy(), 20 * GIB)
    assert node
    return volume.id


def test_created_as_growth_zero(world: SimulatedWorld) -> None:
    """It is attached, has ordinal 0 and is deleted with the instance; a second run finds it."""
    first_id = first(world)
    assert first(world) == first_id
    (volume,) = world.cloud.volumes
    assert (volume.growth, volume.size_bytes) == (GrowthId(world.filesystem.uuid, 0), 20 * GIB)
    assert volume.protected_at > 0


def test_killed_anywhere_it_is_created_once(world: SimulatedWorld) -> None:
    """Killed before or after any call, the next run ends with that one volume."""
    deaths = 0
    while True:
        world = SimulatedWorld()
        world.at.kill_at = deaths
        try:
            first(world)
        except Killed:
            deaths += 1
            first(world.restart())
            assert len(world.cloud.volumes) == 1
        else:
            break
    assert deaths > 10


def test_within_the_limits(world: SimulatedWorld) -> None:
    """`init` creates no volume that a growth may not create."""
    with pytest.raises(Refused) as caught:
        first(world, GrowthPolicy(limits=Limits(total_bytes=GIB // 2)))
    assert caught.value.cause is Cause.LIMIT_TOTAL
    assert world.cloud.volumes == []


def test_the_next_growth_is_the_first(world: SimulatedWorld) -> None:
    """With the volume of ordinal 0 as its only device, a filesystem grows by growth 1."""
    first(world)
    assert next_growth(observe(world.ports())).ordinal == 1
