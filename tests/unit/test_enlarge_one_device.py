"""A growth of XFS or ext4, which enlarges the one volume, wherever it is stopped or refused."""

import pytest

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import GIB, FilesystemKind, GrowthId, StepKind
from ebs_autoscale.policy import GrowthMethod, GrowthPolicy, Sizing
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.clock import Killed
from tests.simulated.cloud import INSTANCE, node_name
from tests.simulated.host import FILESYSTEM
from tests.simulated.world import SimulatedWorld

STEPS = [StepKind.ENLARGE_VOLUME, StepKind.RESIZE_DEVICE]
CREATING = {"create", "attach", "add_device", "keep_reserve", "balance_metadata"}
# What happens to an operator's own volume with the instance is not ours to decide.
CREATING |= {"set_delete_on_termination"}


def full_world(kind: FilesystemKind = FilesystemKind.XFS) -> SimulatedWorld:
    """A nearly full filesystem on the volume that `init` has made ours."""
    world = SimulatedWorld(reserve_bytes=None)
    volume = world.cloud.put(GrowthId(FILESYSTEM, 0), 100 * GIB)
    volume.attached_to, volume.attached_at, volume.device_name = INSTANCE, -100.0, "/dev/xvda"
    volume.created_at, volume.foreign = -1000.0, "restored from snap-1"
    world.filesystem.kind = kind
    world.filesystem.devices = {node_name(volume): 100 * GIB}
    world.fill(90)
    return world


def size_of(world: SimulatedWorld) -> int:
    """What the filesystem has, in GiB; its volume has as much, and there is no other."""
    (volume,) = world.cloud.volumes
    assert world.filesystem.size_bytes == world.cloud.size_of(volume)
    return world.filesystem.size_bytes // GIB


def undisturbed() -> SimulatedWorld:
    """One that nothing disturbs."""
    world = full_world()
    assert world.grow() is Outcome.DONE
    return world


UNDISTURBED = undisturbed()


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.EXT4])
@pytest.mark.parametrize("method", [GrowthMethod.AUTO, GrowthMethod.ENLARGE])
def test_it_is_enlarged(kind: FilesystemKind, method: GrowthMethod) -> None:
    """In two steps, with free slots or without; nothing is created, balanced or reserved."""
    world = full_world(kind)
    world.cloud.slots = 0
    assert world.grow(GrowthPolicy(sizing=Sizing(method=method))) is Outcome.DONE
    assert world.steps() == STEPS
    assert size_of(world) == 150
    assert not world.at.calls.keys() & CREATING
    assert world.grow() is Outcome.HELD


@pytest.mark.parametrize("boundary", range(UNDISTURBED.at.passed))
def test_death_at_any_boundary_loses_nothing(boundary: int) -> None:
    """Killed before or after the effect of any call, the next run finishes that enlargement."""
    world = full_world()
    world.at.kill_at = boundary
    with pytest.raises(Killed):
        world.grow()
    world.restart().grow()
    assert size_of(world) == 150
    assert len(world.cloud.enlarged) == 1


@pytest.mark.parametrize(
    ("call", "error", "outcome"),
    [
        ("enlarge", Unfit("UnsupportedOperation", cause=Cause.VOLUME_KIND), Outcome.UNFIT),
        ("enlarge", Unfit("UnauthorizedOperation", cause=Cause.DENIED), Outcome.UNFIT),
        ("with_modifications", Unfit("denied", cause=Cause.DENIED), Outcome.UNFIT),
        ("enlarge", Unfit("quota", cause=Cause.QUOTA), Outcome.UNFIT),
        ("enlarge", Transient("IncorrectState", cause=Cause.STATE), Outcome.FAILED),
        ("resize_device", Transient("xfs_growfs failed", cause=Cause.RESIZE), Outcome.FAILED),
    ],
)
def test_a_failure_ends_under_its_own_cause(
    call: str, error: EbsAutoscaleError, outcome: Outcome
) -> None:
    """There is no other volume to go on with: each cause has its back-off, none is a refusal."""
    world = full_world()
    world.fail(call, error)
    assert world.grow() is outcome
    assert world.causes(EventKind.GROWTH_FAILED) == [error.cause.value]
    assert not world.causes(EventKind.GROWTH_REFUSED) + world.causes(EventKind.WARNING)
    assert world.grow() is Outcome.DONE
    assert size_of(world) == 150


def test_a_modification_that_hangs_is_waited_for() -> None:
    """It is told, and its space is used once it is there; no second one is asked for."""
    world = full_world()
    world.cloud.latencies.modify = 100.0
    assert world.grow() is Outcome.FAILED
    assert world.causes(EventKind.GROWTH_FAILED) == ["slow modification"]
    assert world.grow() is Outcome.DONE
    assert size_of(world) == 150
    assert len(world.cloud.enlarged) == 1


def test_ec2_is_not_done_with_the_last_modification() -> None:
    """That is a refusal which says that it passes; no call is made in vain."""
    world = undisturbed()
    world.fill(95)
    world.at.calls.clear()
    assert world.grow() is Outcome.REFUSED
    (refused,) = [event for event in world.events if event.kind is EventKind.GROWTH_REFUSED]
    assert refused.cause is Cause.MODIFICATIONS
    assert "not completed" in refused.sentence
    assert "tries again after 5 min" in (refused.hint or "")
    assert "enlarge" not in world.at.calls
    world.clock.sleep(world.cloud.latencies.optimize)
    assert world.grow() is Outcome.DONE
    assert size_of(world) > 150


def test_the_day_s_modifications_are_used_up_and_come_back() -> None:
    """EC2's own words say so; the next day it goes on."""
    world = full_world()
    world.cloud.latencies.optimize = 0.0
    policy = GrowthPolicy(sizing=Sizing(fixed_bytes=20 * GIB))
    for _ in range(4):
        assert world.grow(policy) is Outcome.DONE
        world.fill(95)
    assert world.grow(policy) is Outcome.REFUSED
    (refused,) = [event for event in world.events if event.kind is EventKind.GROWTH_REFUSED]
    assert refused.cause is Cause.MODIFICATIONS
    assert "VolumeModificationRateExceeded" in refused.sentence
    assert "tries again after 5 min" in (refused.hint or "")
    before = size_of(world)
    world.clock.sleep(24 * 3600)
    assert world.grow(policy) is Outcome.DONE
    assert size_of(world) > before


@pytest.mark.parametrize("method", list(GrowthMethod))
def test_an_operator_s_own_enlargement_is_used(method: GrowthMethod) -> None:
    """Whatever growth.method says, and without a call that changes anything in EC2."""
    world = full_world()
    world.cloud.volumes[0].size_bytes = 400 * GIB
    assert world.grow(GrowthPolicy(sizing=Sizing(method=method))) is Outcome.DONE
    assert size_of(world) == 400
    assert world.steps() == STEPS[1:]
    assert not world.at.calls.keys() & {*CREATING, "enlarge", "with_modifications"}


def test_a_volume_without_our_tags_is_never_modified() -> None:
    """The refusal says how it becomes ours."""
    world = full_world()
    world.cloud.volumes[0].growth = GrowthId("11111111-0000-4000-8000-000000000001", 0)
    assert world.grow() is Outcome.REFUSED
    (refused,) = [event for event in world.events if event.kind is EventKind.GROWTH_REFUSED]
    assert refused.cause is Cause.METHOD
    assert "`ebs-autoscale init /scratch`" in (refused.hint or "")
    assert not world.cloud.enlarged
    assert "create" not in world.at.calls


def test_a_loose_volume_of_the_older_script_stays_where_it_is() -> None:
    """Nothing can be added to the filesystem, so that none is tagged as ours to wait for it."""
    world = full_world()
    world.adopt = True
    world.fill(50)
    loose = world.cloud.put(GrowthId("", 0), 20 * GIB)
    loose.created_at = -1000.0
    before = world.cloud.predecessors()
    assert world.grow() is Outcome.HELD
    assert world.cloud.predecessors() == before
    assert loose.attached_to == ""


def test_a_device_that_grew_to_less_than_asked() -> None:
    """What is there is used; the rest is waited for, and never asked for again."""
    world = full_world()
    node = node_name(world.cloud.volumes[0])
    for size_gib, outcome in (
        (100, Outcome.FAILED),
        (120, Outcome.DONE),
        (120, Outcome.FAILED),
        (150, Outcome.DONE),
    ):
        world.fill(90)
        world.block_devices.sizes[node] = size_gib * GIB
        assert world.grow() is outcome
        assert world.filesystem.devices[node] == size_gib * GIB
    assert world.cloud.enlarged == [(world.cloud.volumes[0].id, 150 * GIB)]
