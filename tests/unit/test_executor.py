"""Each step against what EC2 and the kernel can do to it."""

from itertools import pairwise
from math import inf

import pytest

from ebs_autoscale.ec2.requests import DEVICE_NAMES
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import GIB, GrowthId
from ebs_autoscale.resize.attach import NAMES_TRIED_MAX, NODE_USUALLY_HERE_SECONDS
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.resize.replacement import SET_ASIDE_MAX
from ebs_autoscale.telemetry.events import EventKind
from ebs_autoscale.volumes import (
    ATTACH_STUCK_AFTER_SECONDS,
    CREATE_PATIENCE_SECONDS,
    LOOK_MAX_SECONDS,
    VISIBLE_PATIENCE_SECONDS,
)
from tests.simulated.cloud import node_name
from tests.simulated.host import FILESYSTEM
from tests.simulated.world import SimulatedWorld


@pytest.fixture
def world() -> SimulatedWorld:
    """A world that needs one growth."""
    world = SimulatedWorld()
    world.fill(percent=90)
    return world


def test_a_taken_name_is_not_asked_for_again(world: SimulatedWorld) -> None:
    """Names that EC2 refuses without showing them are passed over for the next ones."""
    world.cloud.hidden_names = set(DEVICE_NAMES[: NAMES_TRIED_MAX - 1])
    assert world.grow() is Outcome.DONE
    assert world.at.calls["attach"] == NAMES_TRIED_MAX
    assert world.cloud.volumes[0].device_name == DEVICE_NAMES[NAMES_TRIED_MAX - 1]


def test_asking_for_names_is_bounded(world: SimulatedWorld) -> None:
    """When name after name is refused the step gives up, naming them, and keeps its volume."""
    world.cloud.hidden_names = set(DEVICE_NAMES)
    assert world.grow() is Outcome.FAILED
    assert world.at.calls["attach"] == NAMES_TRIED_MAX
    assert world.causes(EventKind.GROWTH_FAILED) == ["name taken"]
    assert DEVICE_NAMES[0] in world.told(EventKind.GROWTH_FAILED)[0]


def test_names_mapped_on_the_host_are_not_asked_for(world: SimulatedWorld) -> None:
    """A name that exists in /dev is taken, though EC2 does not list it; also as its alias."""
    world.block_devices.mapped_names = frozenset({"/dev/sdba", "/dev/xvdbb"})
    world.cloud.foreign_names |= {"/dev/sdbc"}
    assert world.grow() is Outcome.DONE
    assert world.cloud.volumes[0].device_name == "/dev/xvdbd"
    assert world.at.calls["attach"] == 1


def test_no_name_left_asks_nobody(world: SimulatedWorld) -> None:
    """With every name taken there is nothing to ask EC2 for."""
    world.cloud.foreign_names |= set(DEVICE_NAMES)
    world.cloud.slots = None
    assert world.grow() is Outcome.FAILED
    assert world.at.calls["attach"] == 0
    assert world.causes(EventKind.GROWTH_FAILED) == ["name taken"]


@pytest.mark.parametrize("seconds", [0.0, 4.0, 30.0, 80.0])
def test_a_late_node_is_waited_for(world: SimulatedWorld, seconds: float) -> None:
    """A block device that comes late is used, and the volume is protected long before."""
    world.cloud.latencies.node = seconds
    assert world.grow() is Outcome.DONE
    volume = world.cloud.volumes[0]
    assert volume.protected_at - volume.attached_at <= NODE_USUALLY_HERE_SECONDS + 1


def test_a_node_that_never_comes_is_tried_under_another_name(world: SimulatedWorld) -> None:
    """Without a block device the attach is taken back once, then the step fails in time."""
    world.cloud.latencies.node = inf
    began = world.clock.now_seconds()
    assert world.grow() is Outcome.FAILED
    assert world.causes(EventKind.GROWTH_FAILED) == ["stuck attach"]
    assert world.causes(EventKind.WARNING) == ["stuck attach"] * 4
    assert world.at.calls["attach"] == 2 * 2
    assert world.clock.now_seconds() - began < 5 * ATTACH_STUCK_AFTER_SECONDS
    assert not world.cloud.volumes


def test_an_attach_that_hangs_succeeds_under_another_name(world: SimulatedWorld) -> None:
    """An attach still attaching after its patience is detached and done anew in the same run."""
    world.cloud.hanging_names.add(DEVICE_NAMES[0])
    assert world.grow() is Outcome.DONE
    (volume,) = world.cloud.volumes
    assert volume.device_name == DEVICE_NAMES[1]
    assert node_name(volume) in world.filesystem.devices


def test_a_member_is_never_detached(world: SimulatedWorld) -> None:
    """A device whose block device cannot be told for a while is not taken for one that hangs."""
    assert world.grow() is Outcome.DONE
    attached_at = world.cloud.volumes[0].attached_at
    world.cloud.latencies.node = inf
    for _ in range(3):
        world.grow()
        world.fill(percent=95)
    world.clock.sleep(60)
    assert world.cloud.find(world.cloud.volumes[0].id).attached_at == attached_at


def test_hanging_volumes_are_deleted_again(world: SimulatedWorld) -> None:
    """A volume that hangs for ever costs one more volume in a growth, and both are deleted."""
    world.cloud.latencies.attach = inf
    for growths in range(1, 4):
        assert world.grow() is Outcome.FAILED
        assert world.at.calls["create"] == 2 * growths
        assert not world.cloud.volumes

    world.cloud.latencies.attach = 2.0
    assert world.grow() is Outcome.DONE
    assert len(world.filesystem.devices) == 2


def test_a_hanging_volume_that_cannot_be_deleted(world: SimulatedWorld) -> None:
    """Without the right to delete, a volume that hangs costs one more, however often it is tried.

    The newest is finished once that is possible.
    """
    world.cloud.latencies.attach = inf
    world.fail("delete", Unfit("ec2:DeleteVolume is denied", cause=Cause.DENIED), times=inf)
    for _ in range(5):
        assert world.grow() is Outcome.FAILED
        assert world.causes(EventKind.GROWTH_FAILED)[-1] == "stuck attach"
    assert len(world.cloud.volumes) == 2

    world.cloud.latencies.attach = 2.0
    assert world.grow() is Outcome.DONE
    assert len(world.cloud.volumes) == 2
    assert node_name(world.cloud.volumes[1]) in world.filesystem.devices


def test_an_attach_whose_answer_was_lost_is_taken_as_done(world: SimulatedWorld) -> None:
    """When EC2 says on a repetition that the volume is in use, by us, the growth goes on."""
    lost = Transient("VolumeInUse", cause=Cause.STATE)
    world.fail("attach", lost, answer_lost=True)
    assert world.grow() is Outcome.DONE
    assert len(world.cloud.volumes) == 1


def test_a_volume_without_a_slot_is_given_back(world: SimulatedWorld) -> None:
    """When the instance takes no more volumes the fresh one is deleted, and the limit is told."""
    world.cloud.attachments_max = 0
    assert world.grow() is Outcome.UNFIT
    assert world.causes(EventKind.GROWTH_FAILED) == ["slots"]
    assert not world.cloud.volumes


def test_an_older_volume_without_a_slot_is_kept(world: SimulatedWorld) -> None:
    """What an earlier run may have attached is not known to be blank, so it is kept and told."""
    world.cloud.put(GrowthId(FILESYSTEM, 1), 50 * GIB)
    world.cloud.attachments_max = 0
    assert world.grow() is Outcome.UNFIT
    assert world.causes(EventKind.GROWTH_FAILED) == ["slots"]
    assert len(world.cloud.volumes) == 1


def test_a_lost_member_stops_buying(world: SimulatedWorld) -> None:
    """When the kernel has lost a device nothing is bought, and the device is named."""
    world.filesystem.lost = True
    assert world.grow() is Outcome.UNFIT
    assert world.causes(EventKind.GROWTH_FAILED) == ["missing device"]
    assert "devid 1" in world.told(EventKind.GROWTH_FAILED)[0]
    assert not world.cloud.volumes


@pytest.mark.parametrize(
    ("stuck", "cause", "within_seconds"),
    [
        ("create", "slow create", 2 * CREATE_PATIENCE_SECONDS),
        ("visible", "not visible", 3 * VISIBLE_PATIENCE_SECONDS),
        ("attach", "stuck attach", 4 * ATTACH_STUCK_AFTER_SECONDS + 20),
    ],
)
def test_what_is_stuck_ends_in_time(
    world: SimulatedWorld, stuck: str, cause: str, within_seconds: float
) -> None:
    """A transition that never ends costs one more volume, fails soon, and is gone on with."""
    setattr(world.cloud.latencies, stuck, inf)
    if stuck == "visible":
        world.cloud.latencies.create = 1000.0
    began = world.clock.now_seconds()

    assert world.grow() is Outcome.FAILED
    assert world.causes(EventKind.GROWTH_FAILED) == [cause]
    assert world.clock.now_seconds() - began < within_seconds + 5 * LOOK_MAX_SECONDS

    setattr(world.cloud.latencies, stuck, 0.0)
    world.clock.sleep(1000)
    assert world.grow() is Outcome.DONE
    assert len(world.filesystem.devices) == 2
    assert len(world.cloud.volumes) <= 2


def test_ec2_is_asked_ever_more_rarely(world: SimulatedWorld) -> None:
    """The looks at a slow creation grow apart up to a bound, so few calls go a long way."""
    world.cloud.latencies.create = inf
    world.grow()
    looks = CREATE_PATIENCE_SECONDS / LOOK_MAX_SECONDS + 5
    assert world.at.calls["refresh"] <= 2 * looks


def test_an_invisible_volume_is_waited_for(world: SimulatedWorld) -> None:
    """A volume that EC2 does not show yet after its creation is no failure."""
    world.cloud.latencies.visible = 20.0
    world.cloud.latencies.create = 1.0
    assert world.grow() is Outcome.DONE


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CommandFailed(("btrfs", "device", "add"), 1, "ERROR: something"), Outcome.FAILED),
        (Transient("a balance runs", cause=Cause.EXCLUSIVE_OPERATION), Outcome.FAILED),
        (Unfit("incomplete add", cause=Cause.INCOMPLETE_ADD), Outcome.UNFIT),
    ],
)
def test_a_failed_add_is_repeated_with_the_same_volume(
    world: SimulatedWorld, error: EbsAutoscaleError, outcome: Outcome
) -> None:
    """When the filesystem does not take the device, the next run tries that volume again."""
    world.fail("add_device", error)
    assert world.grow() is outcome
    assert world.causes(EventKind.GROWTH_FAILED) == [error.cause.value]
    assert world.grow() is Outcome.DONE
    assert len(world.cloud.volumes) == 1


def test_the_size_is_proved_before_the_add(world: SimulatedWorld) -> None:
    """A node of another size than EC2 told is never added; the next growth goes on without it."""
    world.fail("add_device", Transient("not now", cause=Cause.ADD))
    world.grow()
    odd = node_name(world.cloud.volumes[0])
    world.block_devices.sizes[odd] = 49 * GIB
    assert world.grow() is Outcome.DONE
    assert world.causes(EventKind.WARNING)[0] == "size"
    assert odd not in world.filesystem.devices


@pytest.mark.parametrize(
    ("cause", "bound"),
    [
        (Cause.CLAIMED, 2),
        (Cause.DEVICE, 2),
        (Cause.DEVICE_UNREADABLE, 3),
        (Cause.UNWRITABLE, 3),
        (Cause.SIZE, 3),
    ],
)
def test_volumes_of_no_use_are_bounded(world: SimulatedWorld, cause: Cause, bound: int) -> None:
    """Growth after growth finds each volume of no use; once it is not, the last one is added."""
    world.fail("add_device", Unfit("of no use", cause=cause), times=inf)
    for _ in range(5):
        assert world.grow() is Outcome.UNFIT
        assert len(world.cloud.volumes) == bound
    world.at.faults.clear()
    assert world.grow() is Outcome.DONE
    assert len(world.cloud.volumes) == bound


def test_buying_stops_when_nothing_is_ever_blank(world: SimulatedWorld) -> None:
    """Volume after volume with something on it ends in a bounded number of purchases."""
    world.cloud.all_blank = False
    for _ in range(10):
        assert world.grow() is Outcome.UNFIT
    assert len(world.cloud.volumes) == SET_ASIDE_MAX + 1


def test_steps_are_told_with_their_fields(world: SimulatedWorld) -> None:
    """Each step has a start and an end with growth, number and volume, and ends carry seconds."""
    world.grow()
    ends = [event for event in world.events if event.kind is EventKind.STEP_DONE]
    assert [(e.fields["step"], e.fields["number"], e.fields["steps"]) for e in ends] == [
        ("CreateVolume", 1, 4),
        ("AttachVolume", 2, 4),
        ("AddDevice", 3, 4),
        ("BalanceMetadata", 4, 4),
    ]
    assert {event.fields["volume"] for event in ends} == {world.cloud.volumes[0].id}
    assert {event.fields["growth"] for event in ends} == {"6a92f8de-1"}
    assert world.cloud.volumes[0].id in ends[1].sentence
    assert "nvme1n1 (4.4 s)" in ends[1].sentence
    told = [event.kind for event in world.events if event.kind is not EventKind.INVENTORY]
    starts = [i for i, kind in enumerate(told) if kind is EventKind.STEP_STARTED]
    for start, following in pairwise([*starts, len(told) - 1]):
        assert told[following - 1] is EventKind.STEP_DONE
        assert EventKind.STEP_DONE not in told[start : following - 1]
