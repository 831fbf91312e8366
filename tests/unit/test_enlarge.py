"""A growth that enlarges a volume, stopped, killed and refused wherever that can happen."""

from dataclasses import replace

import pytest

from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.model import GIB, DecisionKind, StepKind
from ebs_autoscale.policy.settings import GrowthMethod, GrowthPolicy, Limits, Sizing
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.clock import Killed
from tests.simulated.cloud import node_name
from tests.simulated.world import SimulatedWorld

# Two volumes are all that there may be.
POLICY = GrowthPolicy(limits=Limits(volumes=2))
CREATING = ("create", "attach", "add_device")
STEPS = [StepKind.ENLARGE_VOLUME, StepKind.RESIZE_DEVICE, StepKind.BALANCE_METADATA]


def full_world() -> SimulatedWorld:
    """A filesystem with as many volumes as it may have, of 50 and 75 GiB, short of space again."""
    world = SimulatedWorld()
    for _ in range(2):
        world.fill(90)
        assert world.grow(POLICY) is Outcome.DONE
    assert sizes(world) == [50, 75]
    world.fill(90)
    world.events.clear()
    world.at.calls.clear()
    world.at.passed = 0
    world.clock.slept = 0
    return world


def sizes(world: SimulatedWorld) -> list[int]:
    """The sizes of all volumes in GiB, as they are now."""
    return [world.cloud.size_of(volume) // GIB for volume in world.cloud.volumes]


def require_enlarged_once(world: SimulatedWorld) -> None:
    """What every story of one shortage ends with: one modification, used to the last byte."""
    assert len(world.cloud.enlarged) == 1
    assert sizes(world) == [163, 75]
    assert len(world.cloud.volumes) == 2
    for volume in world.cloud.volumes:
        assert world.filesystem.devices[node_name(volume)] == world.cloud.size_of(volume)


def undisturbed() -> SimulatedWorld:
    """One that nothing disturbs, to count its sleeps and calls."""
    world = full_world()
    assert world.grow(POLICY) is Outcome.DONE
    return world


UNDISTURBED = undisturbed()


def test_the_smallest_volume_is_enlarged_where_there_can_be_no_other() -> None:
    """It is told like any growth: why, which volume, by how much, and what that costs."""
    world = undisturbed()
    require_enlarged_once(world)
    assert world.steps() == world.steps(EventKind.STEP_DONE) == STEPS
    (decided,) = [event for event in world.events if event.kind is EventKind.DECIDED]
    assert decided.decision is DecisionKind.ENLARGE
    first = world.cloud.volumes[0]
    said = f"{first.id}, the smallest of 2, is enlarged from 50 GiB to 163 GiB"
    assert said in decided.sentence
    assert "2 of 2 volumes exist already" in decided.sentence
    (done,) = [event for event in world.events if event.kind is EventKind.GROWTH_DONE]
    assert (done.growth, done.volume) == ("6a92f8de-1@163GiB", first.id)
    assert done.size_bytes == 113 * GIB
    assert done.added_usd_per_month == pytest.approx(113 * 0.08)
    assert done.usd_per_month == pytest.approx((163 + 75) * 0.08)
    assert not world.at.calls.keys() & set(CREATING)


def test_no_volume_becomes_larger_than_a_device_can_be_used() -> None:
    """As of an MBR, which describes 2 TiB; a volume that is larger already is left as it is."""
    world = full_world()
    world.filesystem.usable_bytes = 60 * GIB
    assert world.grow(POLICY) is Outcome.DONE
    assert sizes(world) == [60, 75]
    world.fill(90)
    assert world.grow(POLICY) is Outcome.REFUSED
    assert sizes(world) == [60, 75]


def test_a_growth_that_adds_a_volume_asks_for_no_modifications() -> None:
    """What only an enlargement needs to know costs the others no call."""
    world = SimulatedWorld()
    world.fill(90)
    assert world.grow() is Outcome.DONE
    assert "with_modifications" not in world.at.calls


def test_a_second_run_has_nothing_to_do() -> None:
    """A finished enlargement is not done again, however long EC2 goes on optimizing."""
    world = undisturbed()
    assert world.grow(POLICY) is Outcome.HELD
    require_enlarged_once(world)


@pytest.mark.parametrize("sleeps", range(0, UNDISTURBED.clock.slept, 2))
def test_a_stop_at_any_wait_loses_nothing(sleeps: int) -> None:
    """Stopped between or inside any two steps, the next run finishes that same enlargement."""
    world = full_world()
    world.clock.sleeps_left = sleeps
    assert world.grow(POLICY) is Outcome.STOPPED
    world.restart().grow(POLICY)
    require_enlarged_once(world)


@pytest.mark.parametrize("listed", [-9.0, 0.0, 30.0])
@pytest.mark.parametrize("boundary", range(UNDISTURBED.at.passed))
def test_death_at_any_boundary_loses_nothing(boundary: int, listed: float) -> None:
    """Killed before or after the effect of any call, the next run finishes that enlargement.

    Whether EC2 lists the new size before it can be used, or long after.
    """
    world = full_world()
    world.cloud.latencies.modify = 20.0
    world.cloud.latencies.listed = listed
    world.at.kill_at = boundary
    with pytest.raises(Killed):
        world.grow(POLICY)
    world.restart().grow(POLICY)
    require_enlarged_once(world)


@pytest.mark.parametrize("boundary", range(0, UNDISTURBED.at.passed, 3))
def test_dying_again_and_again_still_converges(boundary: int) -> None:
    """Processes that each die a little later still come to one modification."""
    world = full_world()
    for later in range(UNDISTURBED.at.passed):
        world.at.kill_at = world.at.passed + boundary + later
        try:
            world.grow(POLICY)
        except Killed:
            continue
        break
    world.restart().grow(POLICY)
    require_enlarged_once(world)


@pytest.mark.parametrize("listed", [-3.0, 0.0, 30.0])
@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize("call", ["enlarge", "with_modifications", "resize_device"])
def test_a_lost_call_is_made_good(call: str, listed: float, *, answer_lost: bool) -> None:
    """A call that fails, or succeeds unheard, enlarges no second volume, even if EC2 lists late."""
    world = full_world()
    world.cloud.latencies.listed = listed
    lost = Transient("connection reset", cause=Cause.EC2_UNREACHABLE)
    world.fail(call, lost, answer_lost=answer_lost)
    assert world.grow(POLICY) is Outcome.FAILED
    assert world.causes(EventKind.GROWTH_FAILED) == ["ec2 unreachable"]
    world.grow(POLICY)
    require_enlarged_once(world)


@pytest.mark.parametrize("policy", [POLICY, GrowthPolicy()])
@pytest.mark.parametrize("short", [False, True])
def test_an_operator_s_own_enlargement_is_used(policy: GrowthPolicy, *, short: bool) -> None:
    """Space that is there already is used first, without a call that changes anything in EC2."""
    world = full_world()
    if not short:
        world.fill(10)
    volume = world.cloud.volumes[1]
    volume.size_bytes = 400 * GIB
    assert world.grow(policy) is Outcome.DONE
    assert world.filesystem.devices[node_name(volume)] == 400 * GIB
    assert world.steps() == STEPS[1:]
    assert not world.at.calls.keys() & {*CREATING, "enlarge", "with_modifications"}


def test_an_operator_s_running_modification_is_space_to_come() -> None:
    """What somebody else has asked for a moment before is waited for, not asked for again."""
    world = full_world()
    second = world.cloud.volumes[1]
    second.target_bytes, second.modified_at = 400 * GIB, [world.clock.now_seconds()]
    assert world.grow(POLICY) is Outcome.DONE
    assert sizes(world) == [50, 400]
    assert not world.cloud.enlarged


def test_a_volume_that_is_still_optimized_is_passed_over() -> None:
    """Its turn comes again; until then another one is enlarged, and none is asked for in vain."""
    world = undisturbed()
    world.fill(95)
    world.cloud.volumes[1].size_bytes = 400 * GIB
    assert world.grow(POLICY) is Outcome.DONE  # uses what the operator has added
    world.fill(95)
    world.at.calls.clear()
    assert world.grow(POLICY) is Outcome.DONE
    assert world.at.calls["enlarge"] == 1
    assert [each for each, _ in world.cloud.enlarged] == [v.id for v in world.cloud.volumes]


def test_the_day_s_modifications_are_used_up_and_come_back() -> None:
    """Both volumes were modified four times: that is a refusal, told by EC2's words, and passes."""
    world = full_world()
    world.cloud.latencies.optimize = 0.0
    policy = replace(POLICY, sizing=Sizing(fixed_bytes=60 * GIB))
    for _ in range(8):
        assert world.grow(policy) is Outcome.DONE
        world.fill(90)
    assert world.grow(policy) is Outcome.REFUSED
    (refused,) = [event for event in world.events if event.kind is EventKind.GROWTH_REFUSED]
    assert refused.cause is Cause.MODIFICATIONS
    assert all(volume.id in refused.sentence for volume in world.cloud.volumes)
    assert refused.sentence.count("VolumeModificationRateExceeded") == 2
    assert not world.causes(EventKind.WARNING)
    before = sizes(world)

    world.clock.sleep(24 * 3600)
    assert world.grow(policy) is Outcome.DONE
    assert all(now >= then for now, then in zip(sizes(world), before, strict=True))


@pytest.mark.parametrize("call", ["enlarge", "with_modifications"])
def test_a_role_that_may_not_enlarge_gets_the_refusal_of_before(call: str) -> None:
    """Without the permission `auto` refuses by the limit, and says what would help as well."""
    world = full_world()
    hint = "`ebs-autoscale iam-policy --enlarge` prints the policy"
    world.fail(call, Unfit("it is denied", hint=hint, cause=Cause.DENIED))
    assert world.grow(POLICY) is Outcome.REFUSED
    assert world.causes(EventKind.GROWTH_REFUSED) == ["limits.volumes"]
    (refused,) = [event for event in world.events if event.kind is EventKind.GROWTH_REFUSED]
    assert refused.hint == f"raise limits.volumes; or {hint}"
    assert not world.causes(EventKind.WARNING)
    assert not world.cloud.enlarged


def test_a_role_that_must_enlarge_and_may_not_is_an_alarm() -> None:
    """With the method `enlarge` a denial is one like any other."""
    world = full_world()
    world.fail("enlarge", Unfit("it is denied", cause=Cause.DENIED))
    only = replace(POLICY, sizing=Sizing(method=GrowthMethod.ENLARGE))
    assert world.grow(only) is Outcome.UNFIT
    assert world.causes(EventKind.GROWTH_FAILED) == ["denied"]


@pytest.mark.parametrize(
    "error",
    [
        Unfit("UnsupportedOperation", cause=Cause.VOLUME_KIND),
        Unfit("InvalidParameterValue", cause=Cause.REQUEST),
        Transient("IncorrectState", cause=Cause.STATE),
        Transient("VolumeModificationRateExceeded", cause=Cause.MODIFICATIONS),
    ],
)
def test_what_ec2_refuses_for_one_volume_it_does_for_another(error: Transient | Unfit) -> None:
    """The next volume is enlarged in the same run."""
    world = full_world()
    world.fail("enlarge", error)
    assert world.grow(POLICY) is Outcome.DONE
    assert sizes(world) == [50, 188]


def test_a_modification_that_fails_or_hangs_costs_one_more_volume_at_most() -> None:
    """EC2 failed one volume: the next one helps, and the first is tried again later."""
    world = full_world()
    first, second = world.cloud.volumes
    world.cloud.failing = {first.id}
    assert world.grow(POLICY) is Outcome.DONE
    assert sizes(world) == [50, 188]
    assert world.causes(EventKind.WARNING) == ["modification failed"]
    world.fill(95)
    assert world.grow(POLICY) is Outcome.REFUSED
    assert world.causes(EventKind.GROWTH_REFUSED) == ["modifications"]
    assert [each for each, _ in world.cloud.enlarged] == [first.id, second.id, first.id]


def test_a_modification_that_hangs_counts_as_space_to_come() -> None:
    """One that EC2 does not get done is waited for a minute, then counted against the limits."""
    world = full_world()
    world.cloud.latencies.modify = 1e6
    policy = replace(POLICY, limits=Limits(volumes=2, total_bytes=238 * GIB))
    assert world.grow(policy) is Outcome.REFUSED
    assert [gib // GIB for _, gib in world.cloud.enlarged] == [163]
    assert world.causes(EventKind.GROWTH_REFUSED) == ["limits.total"]
    assert world.causes(EventKind.WARNING) == ["slow modification"]


def test_a_kernel_that_does_not_notice_costs_no_growth() -> None:
    """A block device that keeps its size is told, and the next volume is enlarged."""
    world = full_world()
    first = world.cloud.volumes[0]
    world.block_devices.sizes[node_name(first)] = 50 * GIB
    assert world.grow(POLICY) is Outcome.DONE
    assert world.causes(EventKind.WARNING) == ["old size"]
    del world.block_devices.sizes[node_name(first)]
    assert world.grow(POLICY) is Outcome.DONE
    assert world.filesystem.devices[node_name(first)] == world.cloud.size_of(first)


def test_another_balance_ends_the_growth_for_now() -> None:
    """Beside another exclusive operation nothing could be added either."""
    world = full_world()
    world.fail("resize_device", Transient("a balance runs", cause=Cause.EXCLUSIVE_OPERATION))
    assert world.grow(POLICY) is Outcome.FAILED
    assert world.grow(POLICY) is Outcome.DONE
    require_enlarged_once(world)


@pytest.mark.parametrize("method", [GrowthMethod.ADD, GrowthMethod.ENLARGE])
def test_the_method_can_be_fixed(method: GrowthMethod) -> None:
    """`add` never enlarges, `enlarge` never adds, whatever the limits would allow."""
    world = full_world()
    policy = GrowthPolicy(sizing=Sizing(method=method))
    assert world.grow(policy) is Outcome.DONE
    assert len(world.cloud.volumes) == (3 if method is GrowthMethod.ADD else 2)
    assert bool(world.cloud.enlarged) is (method is GrowthMethod.ENLARGE)


def test_nothing_to_enlarge_is_an_error_that_says_so() -> None:
    """With the method `enlarge` and no volume of ours in the filesystem."""
    world = SimulatedWorld()
    world.fill(90)
    assert world.grow(GrowthPolicy(sizing=Sizing(method=GrowthMethod.ENLARGE))) is Outcome.REFUSED
    assert world.causes(EventKind.GROWTH_REFUSED) == ["growth.method"]
    assert not world.cloud.volumes
