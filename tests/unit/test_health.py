"""What is wrong with a filesystem is named, with what to do."""

from dataclasses import replace

import pytest

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import GIB, Device, Quota
from ebs_autoscale.policy.health import problems_of
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.growths import Watch, failed
from tests.unit.samples import reading_of

HEALTHY = reading_of(100, 50)
ADDED = Device(devid=2, name="nvme1n1", size_bytes=1, unallocated_bytes=1, errors=(0,) * 5)


def test_nothing_is_wrong() -> None:
    """A healthy filesystem has no problems, also one whose devices have counters at zero."""
    assert not [*problems_of(replace(HEALTHY, devices=(ADDED,)))]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((3, 0, 0, 0, 0), "nvme1n1 (devid 2): 3 failed writes"),
        ((0, 1, 2, 0, 0), "1 failed read, 2 failed flushes"),
        ((0, 0, 0, 5, 7), "5 corrupted blocks, 7 generation errors"),
    ],
)
def test_a_failing_device_is_named(errors: tuple[int, ...], words: str) -> None:
    """Each counter that is not zero is told, with how to find out what is hit."""
    reading = replace(HEALTHY, devices=(*HEALTHY.devices, replace(ADDED, errors=errors)))
    (problem,) = problems_of(reading)
    assert problem.cause is Cause.DEVICE_ERRORS
    assert words in problem.sentence
    assert "btrfs scrub start /scratch" in problem.hint


def test_a_missing_device_is_named() -> None:
    """A device that the kernel runs without is an alarm, and no volume is created for it."""
    missing = replace(ADDED, name="", missing=True, errors=())
    (problem,) = problems_of(replace(HEALTHY, devices=(missing,)))
    assert problem.cause is Cause.MISSING_DEVICE
    assert "devid 2" in problem.sentence
    assert problem.hint


def test_full_is_named() -> None:
    """That programs get ENOSPC is told, and of what there is no more."""
    for reading, what in (
        (replace(HEALTHY, available_bytes=0), "data"),
        (replace(HEALTHY, metadata_headroom_bytes=2**21), "metadata"),
    ):
        (problem,) = problems_of(reading)
        assert problem.cause is Cause.FULL
        assert f"for {what}" in problem.sentence


@pytest.mark.parametrize(
    ("limit_gib", "left_gib", "is_told"),
    [
        (0.1, 0.1, True),  # little, though nothing is used yet
        (100, 9, True),
        (40, 11, False),
        (100, 60, False),  # space ends before the quota does
        (500, 49, True),
    ],
)
def test_a_quota_is_told_before_it_ends(limit_gib: float, left_gib: float, is_told: bool) -> None:  # noqa: FBT001 -- a table
    """A quota that leaves little, and less than there is, is a problem; more space is no help."""
    quota = Quota(qgroup="0/5", limit_bytes=int(limit_gib * GIB), left_bytes=int(left_gib * GIB))
    causes = [problem.cause for problem in problems_of(replace(HEALTHY, quota=quota))]
    assert causes == ([Cause.QGROUP_LIMIT] if is_told else [])


@pytest.mark.parametrize(
    "cause", [Cause.READ_ONLY, Cause.NOT_MOUNTED, Cause.OTHER_FILESYSTEM, Cause.READING]
)
def test_what_is_not_looked_at_is_not_over(cause: Cause) -> None:
    """A condition ends when its cause is gone, not when it can no longer be seen."""
    watch = Watch()
    failing = replace(watch.listed[0], errors=(3, 0, 0, 0, 0))
    watch.available_gib, watch.listed = 0, (failing,)
    watch.growths.course = lambda: failed(Cause.QUOTA)
    watch.look_for(10)
    watch.lasting_error = Unfit("it is", cause=cause)
    watch.look_for(10)
    assert not watch.causes(EventKind.CONDITION_ENDED)
    assert {"device errors", "full", cause.value} <= {*watch.view.conditions}
    watch.lasting_error, watch.available_gib, watch.listed = None, 50, HEALTHY.devices
    watch.look_for(10)
    assert {"device errors", "full", cause.value} <= {*watch.causes(EventKind.CONDITION_ENDED)}


def test_devices_are_judged_on_a_read_only_filesystem() -> None:
    """Errors that force it read-only are told, although there is no reading."""
    watch = Watch()
    watch.look_for(10)
    watch.lasting_error = Unfit("it is", cause=Cause.READ_ONLY)
    watch.listed = (replace(watch.listed[0], errors=(3, 0, 0, 0, 0)),)
    watch.look_for(10)
    assert {*watch.view.conditions} == {"read-only", "device errors"}
    watch.listed = HEALTHY.devices
    watch.look_for(10)
    assert {*watch.view.conditions} == {"read-only"}


def test_the_daemon_tells_it_once_and_grows_all_the_same() -> None:
    """A problem that space can help with is an alarm, begins once, and ends with its cause."""
    watch = Watch()
    watch.available_gib = 0
    watch.growths.course = lambda: failed(Cause.QUOTA)
    watch.look_for(60)
    assert watch.causes(EventKind.CONDITION_BEGAN).count("full") == 1
    assert watch.growths.starts_at
    watch.available_gib = 50
    watch.look_for(10)
    assert "full" in watch.causes(EventKind.CONDITION_ENDED)
