"""A device is extended to its volume while the filesystem is mounted, full, and in use."""

import os
from contextlib import suppress

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.errors import Cause, Transient
from ebs_autoscale.filesystems.btrfs import repair
from ebs_autoscale.host.command import run
from tests.kernel.fixtures import Btrfs, FakeClock, Foreign, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3


def test_extends_the_device_that_became_larger(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock
) -> None:
    """Of a full filesystem of two devices the one that grew is extended, and can be written."""
    first, second = loop(GIB), loop(GIB)
    path = btrfs_at(first, second, mkfs=("-d", "single", "-m", "raid1"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with (path / "ballast").open("wb") as file, suppress(OSError):
        for offset in range(0, 2 * GIB, MIB):
            os.posix_fallocate(file.fileno(), offset, MIB)
    before = {each.name: each for each in filesystem.read().devices}
    assert before[second.name].capacity_bytes == before[second.name].size_bytes == GIB

    second.resize(3 * GIB)
    assert {each.name: each.capacity_bytes for each in filesystem.read().devices} == {
        first.name: GIB,
        second.name: 3 * GIB,
    }
    for _ in range(2):
        filesystem.resize_device(second.name)
        sizes = {each.name: each.size_bytes for each in filesystem.read().devices}
        assert sizes == {first.name: GIB, second.name: 3 * GIB}
    with (path / "needed").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, GIB)


def test_waits_for_another_operation_within_bounds(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock, foreign_removal: Foreign
) -> None:
    """Beside a removal nothing is extended; once it has ended the device is."""
    first, second = loop(2 * GIB), loop(2 * GIB)
    path = btrfs_at(first, second, mkfs=("-d", "single", "-m", "single"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    first.resize(3 * GIB)
    with foreign_removal(path) as end:
        with pytest.raises(Transient) as caught:
            filesystem.resize_device(first.name)
        assert caught.value.cause is Cause.EXCLUSIVE_OPERATION
        clock.on_sleep = end
        filesystem.resize_device(first.name)
    assert {each.name: each.size_bytes for each in filesystem.read().devices}[first.name] == 3 * GIB


@pytest.mark.parametrize("full", [False, True])
def test_a_paused_balance_gives_way_only_when_space_is_gone(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock, foreign_balance: Foreign, *, full: bool
) -> None:
    """The kernel extends nothing beside one: it is left alone unless space is about to run out."""
    device = loop(3 * GIB)
    path = btrfs_at(device, mkfs=("-d", "single", "-m", "single"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with foreign_balance(path):
        run(["btrfs", "balance", "pause", str(path)], timeout_seconds=60)
        assert filesystem.exclusive_operation() == "balance paused"
        device.resize(4 * GIB)
        if full:
            with (path / "more").open("wb") as file, suppress(OSError):
                for offset in range(0, 3 * GIB, MIB):
                    os.posix_fallocate(file.fileno(), offset, MIB)
            filesystem.resize_device(device.name)
            assert filesystem.exclusive_operation() == "none"
            assert filesystem.read().devices[0].size_bytes == 4 * GIB
        else:
            with pytest.raises(Transient) as caught:
                filesystem.resize_device(device.name)
            assert caught.value.cause is Cause.EXCLUSIVE_OPERATION
            assert filesystem.exclusive_operation() == "balance paused"


def test_a_resize_that_changes_nothing_is_a_failure(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the tool says that it succeeded: else a growth would be repeated for ever."""
    device = loop(GIB)
    filesystem = BtrfsFilesystem(str(btrfs_at(device)), clock=clock)
    monkeypatch.setattr(repair, "resize_command", lambda *_: ["true"])
    filesystem.resize_device(device.name)
    device.resize(2 * GIB)
    with pytest.raises(Transient, match="still has 1 GiB") as caught:
        filesystem.resize_device(device.name)
    assert caught.value.cause is Cause.RESIZE
