"""An instance with fewer slots than EC2 says: volume after volume is created and deleted."""

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.errors import Cause
from ebs_autoscale.policy.backoff import retry_delay_seconds
from ebs_autoscale.resize.growth import Outcome
from tests.faults.catalogue import TRIES_MAX
from tests.faults.instance import Instance
from tests.faults.test_lost_answers import assert_one_volume

FULL = FaultRule(kind=FaultKind.ERROR, action="AttachVolume", code="AttachmentLimitExceeded")

# A growth takes 6 s here; each search for a volume would add 20.
QUICK_SECONDS = 15


@pytest.fixture
def instance(instance: Instance) -> Instance:
    """An instance whose filesystem needs a volume, and that can attach none."""
    instance.http.control.add_fault(FULL)
    return instance


def fail_to_attach(instance: Instance, *, for_hours: float) -> int:
    """Grow as a daemon that has to delete every volume; returns how often it tried."""
    clock = instance.http.clock
    ends_at = clock.now_seconds() + for_hours * 3600
    tries = 0
    while clock.now_seconds() < ends_at:
        tries += 1
        assert instance.grow() is Outcome.UNFIT
        assert instance.events[-1].cause is Cause.SLOTS
        clock.sleep(retry_delay_seconds(Cause.SLOTS, attempts=tries, jitter=0.5))
        assert instance.volumes() == []
    return tries


@pytest.mark.parametrize("hours", [1.5, 13])
def test_a_freed_slot_is_used_at_the_next_try(instance: Instance, hours: float) -> None:
    """However many volumes were deleted, once a slot is free the next try grows quickly."""
    assert fail_to_attach(instance, for_hours=hours) > 5
    instance.http.control.clear_faults()
    began = instance.http.clock.now_seconds()

    assert instance.grow() is Outcome.DONE

    assert instance.http.clock.now_seconds() - began < QUICK_SECONDS
    assert_one_volume(instance)


@pytest.mark.parametrize("kind", [FaultKind.LOST_BEFORE, FaultKind.LOST_AFTER])
@pytest.mark.parametrize("times", [1, TRIES_MAX, TRIES_MAX + 1])
def test_a_lost_answer_after_volumes_were_deleted(
    instance: Instance, kind: FaultKind, *, times: int
) -> None:
    """A create call whose answer is lost, after tokens of deleted volumes, makes one volume."""
    spent = fail_to_attach(instance, for_hours=0.5)
    control = instance.http.control
    control.clear_faults()
    control.add_fault(FaultRule(kind=kind, action="CreateVolume", after=spent, times=times))

    instance.grow_to_the_end()

    assert_one_volume(instance)
