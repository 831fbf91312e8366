"""Volumes that end in error, get stuck, or are detached or deleted by somebody in mid-growth."""

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, GROWTH_TAG, OWNER_TAG
from ebs_autoscale.errors import Cause
from ebs_autoscale.model import StepKind
from ebs_autoscale.resize.growth import SPOILED_MAX
from ebs_autoscale.telemetry import EventKind
from tests.faults.instance import Instance
from tests.unit.samples import FILESYSTEM

GONE = {"deleting", "deleted"}
# Looks, and the volume that replaces it; a deadline would take 90 s.
AT_ONCE_SECONDS = 40


def left(instance: Instance) -> list[str]:
    """The volumes of growths that are still paid for."""
    return [volume.id for volume in instance.volumes() if volume.state not in GONE]


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        (FaultKind.FAILED, "CreateVolume"),
        (FaultKind.STUCK, "CreateVolume"),
        (FaultKind.UNDONE, "CreateVolume"),
        (FaultKind.UNDONE, "AttachVolume"),
    ],
    ids=["ends in error", "stays creating", "deleted", "detached"],
)
def test_one_spoiled_volume(instance: Instance, kind: FaultKind, action: str) -> None:
    """The same growth goes on as soon as EC2 shows it, with another volume where that is needed."""
    control, clock = instance.http.control, instance.http.clock
    control.add_fault(FaultRule(kind=kind, action=action, times=1))
    began = clock.now_seconds()

    assert instance.grow_to_the_end() == 1

    assert clock.now_seconds() - began < AT_ONCE_SECONDS
    assert len(instance.filesystem.devices) == 2
    assert not control.calls("DetachVolume")
    stuck = {v.id for v in instance.volumes() if v.state == "creating"}
    assert len(set(left(instance)) - stuck) == 1
    assert stuck <= {v for event in instance.events for v in (event.volume or "").split()}


@pytest.mark.parametrize("denied", [False, True], ids=["", "and cannot be deleted"])
def test_every_volume_ends_in_error(instance: Instance, *, denied: bool) -> None:
    """An hour of growths leaves no volume, or few where deleting is denied, and creates few."""
    control = instance.http.control
    control.add_fault(FaultRule(kind=FaultKind.FAILED, action="CreateVolume"))
    if denied:
        code = "UnauthorizedOperation"
        control.add_fault(FaultRule(kind=FaultKind.ERROR, action="DeleteVolume", code=code))
    for _ in range(12):
        instance.grow()
        assert len(left(instance)) <= (SPOILED_MAX + 1 if denied else 0)
        instance.http.clock.sleep(300)
    created = {
        event.volume
        for event in instance.events
        if event.kind is EventKind.STEP_DONE and event.step is StepKind.CREATE_VOLUME
    }
    assert 0 < len(created) <= (SPOILED_MAX + 1 if denied else 2 * 12)
    assert {event.cause for event in instance.events if event.cause} >= {Cause.VOLUME_LOST}

    control.clear_faults()
    if not denied:
        instance.grow_to_the_end()
        assert len(instance.filesystem.devices) == 2


def test_volumes_of_others_are_not_touched(instance: Instance) -> None:
    """Restored and copied volumes with our tags are reported by their id, and nothing else."""
    control = instance.http.control
    owner = instance.http.cloud.identity.owner
    foreign = [
        control.put_volume(
            1,
            tags={OWNER_TAG: owner, FILESYSTEM_TAG: FILESYSTEM, GROWTH_TAG: ordinal},
            content=content,
        )
        for ordinal, content in (
            ("0", {65536: b"data"}),
            ("1", {}),
            ("5", {0: b"data"}),
            ("x", None),
            ("-3", None),
            ("9" * 40, None),
            ("\u0663", None),
        )
    ]
    for number in (2, 3, 4):
        instance.filesystem.enough = number
        instance.grow_to_the_end()
    calls = [call for call in control.calls() if not call.action.startswith("Describe")]
    assert not [volume for volume in foreign if volume in repr(calls)]
    told = " ".join(e.sentence for e in instance.events if e.cause is Cause.UNUSED_VOLUMES)
    assert not [volume for volume in foreign if volume not in told]
