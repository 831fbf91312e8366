"""Lost answers: whatever the call did or did not do, there is one volume, attached once."""

from typing import Literal

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.errors import Cause
from ebs_autoscale.resize.growth import Outcome
from tests.faults.catalogue import TRIES_MAX
from tests.faults.instance import Instance

GROWTH_STEPS = ("CreateVolume", "AttachVolume", "ModifyInstanceAttribute")

# Kind of fault, and whether the effect has happened before it.
MISHAPS: list[tuple[FaultKind, Literal["before", "after"]]] = [
    (FaultKind.LOST_BEFORE, "before"),
    (FaultKind.LOST_AFTER, "after"),
    (FaultKind.HTTP, "before"),
    (FaultKind.HTTP, "after"),
]


def assert_one_volume(instance: Instance, *, number: int = 1) -> None:
    """This many volumes exist, each attached, deleted with the instance, and a device once."""
    volumes = instance.volumes()
    assert len(volumes) == number
    assert all(volume.attachment_state == "attached" for volume in volumes)
    assert all(volume.delete_on_termination for volume in volumes)
    assert instance.filesystem.devices[1:] == [f"node-{volume.id}" for volume in volumes]


@pytest.mark.parametrize("times", [1, TRIES_MAX, TRIES_MAX + 1])
@pytest.mark.parametrize(("kind", "when"), MISHAPS, ids=str)
@pytest.mark.parametrize("action", GROWTH_STEPS)
def test_a_lost_answer(
    instance: Instance,
    action: str,
    kind: FaultKind,
    when: Literal["before", "after"],
    *,
    times: int,
) -> None:
    """Whether one answer is lost, all of a call's tries or more, the growth has one volume."""
    rule = FaultRule(kind=kind, action=action, when=when, times=times)
    instance.http.control.add_fault(rule)

    processes = instance.grow_to_the_end()

    assert_one_volume(instance)
    assert processes <= 3
    assert len(instance.http.control.calls(action)) <= times + TRIES_MAX


@pytest.mark.parametrize(("kind", "when"), MISHAPS, ids=str)
def test_a_lost_answer_while_detaching(
    instance: Instance, kind: FaultKind, when: Literal["before", "after"]
) -> None:
    """A stuck attachment is detached and tried again, also when the detach's answer is lost."""
    control = instance.http.control
    control.add_fault(FaultRule(kind=FaultKind.STUCK, action="AttachVolume", times=1))
    control.add_fault(FaultRule(kind=kind, action="DetachVolume", when=when, times=1))

    instance.grow_to_the_end()

    assert_one_volume(instance)
    names = [call.params["Device"] for call in control.calls("AttachVolume")]
    assert len(set(names)) == len(names) == 2


@pytest.mark.parametrize("times", [1, TRIES_MAX])
@pytest.mark.parametrize(("kind", "when"), MISHAPS, ids=str)
def test_a_lost_answer_while_deleting(
    instance: Instance, kind: FaultKind, when: Literal["before", "after"], *, times: int
) -> None:
    """A volume without a slot is deleted, or named in a warning; the growth fails for slots."""
    control = instance.http.control
    code = "AttachmentLimitExceeded"
    control.add_fault(FaultRule(kind=FaultKind.ERROR, action="AttachVolume", code=code))
    control.add_fault(FaultRule(kind=kind, action="DeleteVolume", when=when, times=times))

    assert instance.grow() is Outcome.UNFIT

    assert instance.events[-1].cause is Cause.SLOTS
    instance.http.clock.sleep(10)
    left = [volume.id for volume in instance.volumes()]
    assert set(left) <= {event.volume for event in instance.events}
    control.clear_faults()
    instance.grow_to_the_end()
    assert_one_volume(instance)


def test_throttled_a_third_of_the_time(instance: Instance, botocore_waits: list[float]) -> None:
    """With 30 % of all calls throttled, growth after growth succeeds within three tries."""
    control = instance.http.control
    control.add_fault(FaultRule(kind=FaultKind.THROTTLE, probability=0.3))
    for number in range(2, 12):
        instance.filesystem.enough = number
        assert instance.grow_to_the_end(tries=3) <= 3

    assert_one_volume(instance, number=10)
    assert len(control.calls()) < 10 * 30
    assert botocore_waits
