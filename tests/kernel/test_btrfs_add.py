"""A device is added once, without force, and never over any content."""

import os
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.errors import Cause, Stopped, Transient, Unfit
from ebs_autoscale.host.command import run
from tests.kernel.fixtures import Btrfs, FakeClock, Foreign, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3
SINGLE = ("-d", "single", "-m", "single")


def test_adds_to_a_full_filesystem(loop: Loop, btrfs_at: Btrfs, clock: FakeClock) -> None:
    """A filesystem without a free byte gets its device, and what it needed can be written."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with (path / "ballast").open("wb") as file, suppress(OSError):
        for offset in range(0, GIB, MIB):
            os.posix_fallocate(file.fileno(), offset, MIB)
    assert filesystem.read().available_bytes < MIB
    new = loop(2 * GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    reading = filesystem.read()
    assert reading.has_device(new.name)
    assert reading.available_bytes > 1.7 * GIB
    (path / "more").write_bytes(bytes(64 * MIB))


def test_adds_where_metadata_is_full(loop: Loop, btrfs_at: Btrfs, clock: FakeClock) -> None:
    """A filesystem that can take no more files gets its device, and takes files again."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with (path / "ballast").open("wb") as file, suppress(OSError):
        for offset in range(0, GIB, MIB):
            os.posix_fallocate(file.fileno(), offset, MIB)
    with suppress(OSError):
        for number in range(100_000):
            (path / str(number)).touch()
            # An attribute of this size fills most of a leaf.
            os.setxattr(path / str(number), "user.fill", os.urandom(12 * 1024))
    assert filesystem.read().metadata_room_bytes < 8 * MIB
    filesystem.add_device(loop(2 * GIB).name, verified=nullcontext)
    assert filesystem.read().metadata_room_bytes > 100 * MIB
    for number in range(1000):
        (path / f"more-{number}").touch()


def test_a_device_is_not_added_again(loop: Loop, btrfs_at: Btrfs, clock: FakeClock) -> None:
    """Adding a device a second time does nothing: a crash after the add changes nothing."""
    filesystem = BtrfsFilesystem(str(btrfs_at(loop(GIB))), clock=clock)
    new = loop(GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    before = filesystem.read().devices
    filesystem.add_device(new.name, verified=nullcontext)
    assert filesystem.read().devices == before
    assert len(before) == 2


def test_what_has_a_signature_is_refused_by_the_tool_too(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock
) -> None:
    """Even without our own verification a device with a signature is refused: there is no -f."""
    filesystem = BtrfsFilesystem(str(btrfs_at(loop(GIB))), clock=clock)
    used = loop(128 * MIB)
    run(["mkfs.btrfs", "--quiet", used.node], timeout_seconds=60)
    before = Path(used.node).read_bytes()
    with pytest.raises(Unfit) as caught:
        filesystem.add_device(used.name, verified=nullcontext)
    assert caught.value.cause is Cause.NOT_BLANK
    assert Path(used.node).read_bytes() == before


def test_no_such_device(loop: Loop, btrfs_at: Btrfs, clock: FakeClock) -> None:
    """A block device that has not appeared yet is tried again later."""
    filesystem = BtrfsFilesystem(str(btrfs_at(loop(GIB))), clock=clock)
    with pytest.raises(Transient) as caught:
        filesystem.add_device("nvme9n1", verified=nullcontext)
    assert caught.value.cause is Cause.ADD


def test_waits_for_a_foreign_operation(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock, foreign_removal: Foreign
) -> None:
    """While another device is being removed nothing is tried; after that the device is added."""
    path = btrfs_at(loop(3 * GIB), loop(2 * GIB), mkfs=SINGLE)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    new = loop(GIB)
    seen: list[str] = []
    told: list[str] = []
    with foreign_removal(path) as cancel:

        def meanwhile() -> None:
            seen.append(filesystem.exclusive_operation())
            cancel()

        clock.on_sleep = meanwhile
        filesystem.add_device(new.name, verified=nullcontext, tell=told.append)
    assert "device remove" in told[0]
    assert seen[0] == "device remove"
    assert filesystem.read().has_device(new.name)


def test_does_not_wait_for_ever(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock, foreign_removal: Foreign
) -> None:
    """After a minute the add is given up for now; the device is unchanged."""
    path = btrfs_at(loop(3 * GIB), loop(2 * GIB), mkfs=SINGLE)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    new, started = loop(GIB), clock.seconds

    def pass_quickly() -> None:
        clock.seconds += 30

    clock.on_sleep = pass_quickly
    with foreign_removal(path), pytest.raises(Transient) as caught:
        filesystem.add_device(new.name, verified=nullcontext)
    assert caught.value.cause is Cause.EXCLUSIVE_OPERATION
    assert 60 <= clock.seconds - started < 95
    assert new.stored_bytes == 0


def test_a_stop_ends_the_waiting(
    loop: Loop, btrfs_at: Btrfs, clock: FakeClock, foreign_removal: Foreign
) -> None:
    """A requested stop does not wait for the removal of another device."""
    path = btrfs_at(loop(3 * GIB), loop(2 * GIB), mkfs=SINGLE)
    filesystem = BtrfsFilesystem(str(path), clock=clock)

    def stop() -> None:
        raise Stopped

    clock.on_sleep = stop
    with foreign_removal(path), pytest.raises(Stopped):
        filesystem.add_device(loop(GIB).name, verified=nullcontext)
