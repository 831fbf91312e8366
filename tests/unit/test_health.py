"""What is wrong with a filesystem is named, with what to do."""

from dataclasses import replace

import pytest

from ebs_autoscale.model import Device
from ebs_autoscale.policy.health import ailments_of
from ebs_autoscale.telemetry.events import EventKind
from tests.simulated.growths import Watch, failed
from tests.unit.samples import reading_of

HEALTHY = reading_of(100, 50)
ADDED = Device(devid=2, name="nvme1n1", size_bytes=1, unallocated_bytes=1, errors=(0,) * 5)


def test_nothing_is_wrong() -> None:
    """A healthy filesystem has no ailments, also one whose devices have counters at zero."""
    assert not ailments_of(replace(HEALTHY, devices=(ADDED,)))


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((3, 0, 0, 0, 0), "nvme1n1 (devid 2): 3 writes;"),
        ((0, 1, 2, 0, 0), "1 reads, 2 flushes;"),
        ((0, 0, 0, 5, 7), "5 corrupted blocks, 7 blocks of another generation;"),
    ],
)
def test_a_failing_member_is_named(errors: tuple[int, ...], words: str) -> None:
    """Each counter that is not zero is told, with how to find out what is hit."""
    reading = replace(HEALTHY, devices=(*HEALTHY.devices, replace(ADDED, errors=errors)))
    sentence = ailments_of(reading)["device errors"]
    assert words in sentence
    assert "btrfs scrub start /scratch" in sentence


def test_a_missing_member_is_named() -> None:
    """A device that the kernel runs without is an alarm, and nothing is bought for it."""
    missing = replace(ADDED, name="", missing=True, errors=())
    found = ailments_of(replace(HEALTHY, devices=(missing,)))
    assert "devid 2; nothing is bought" in found["missing device"]


def test_full_is_named() -> None:
    """That programs get ENOSPC is told, and of what there is no more."""
    for reading, what in (
        (replace(HEALTHY, available_bytes=0), "data"),
        (replace(HEALTHY, metadata_headroom_bytes=2**21), "metadata"),
    ):
        assert f"no room for {what}: programs get ENOSPC now" in ailments_of(reading)["full"]


def test_the_daemon_tells_it_once_and_grows_all_the_same() -> None:
    """An ailment that space can help with is an alarm, begins once, and ends with its cause."""
    watch = Watch()
    watch.available_gib = 0
    watch.growths.course = lambda: failed("quota")
    watch.look_for(60)
    assert watch.causes(EventKind.CONDITION_BEGAN).count("full") == 1
    assert watch.growths.starts_at
    watch.available_gib = 50
    watch.look_for(10)
    assert "full" in watch.causes(EventKind.CONDITION_ENDED)
