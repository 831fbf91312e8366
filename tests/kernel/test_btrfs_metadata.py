"""After an add metadata is safe on the devices there are, for no more than the least work."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, Stopped, Transient
from ebs_autoscale.host.command import run
from ebs_autoscale.model import Rebalance
from tests.kernel.fixtures import Btrfs, Foreign, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3


def sync(path: Path) -> None:
    """Commit, this filesystem only."""
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)


def write_metadata(folder: Path, size_bytes: int) -> None:
    """Extended attributes are metadata only, and grow it faster than anything else."""
    value = os.urandom(12 * 1024)
    folder.mkdir()
    for number in range(size_bytes // len(value)):
        file = folder / f"m{number}"
        file.touch()
        os.setxattr(file, "user.fill", value)


def allocate_data(path: Path) -> None:
    """Turn everything unallocated into data chunks, and leave little free in them."""
    with (path / "ballast").open("wb") as file:
        try:
            for offset in range(0, 16 * GIB, 4 * MIB):
                os.posix_fallocate(file.fileno(), offset, 4 * MIB)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 -- the expected end
    sync(path)


def test_full_moves_metadata_to_the_new_device(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """`full` is needed until metadata lies on the newest device, and then no more."""
    path = btrfs_at(loop(GIB), mkfs=("-m", "dup"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    new = loop(2 * GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    assert filesystem.needs_balance(Rebalance.FULL, new.name)
    assert "Done, had to relocate" in filesystem.balance_metadata(Rebalance.FULL)
    assert not filesystem.needs_balance(Rebalance.FULL, new.name)
    assert not filesystem.needs_balance(Rebalance.FULL, "nvme9n1")


def test_full_needs_nothing_where_the_kernel_would_not_go(
    loop: Loop, btrfs_at: Btrfs, clock: Clock
) -> None:
    """No balance is asked for that would put metadata on another device again and again."""
    filesystem = BtrfsFilesystem(str(btrfs_at(loop(4 * GIB))), clock=clock)
    new = loop(GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    assert not filesystem.needs_balance(Rebalance.FULL, new.name)


@pytest.mark.parametrize("profile", ["dup", "single"])
def test_bounded_moves_nothing_where_metadata_is_safe(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, profile: str
) -> None:
    """With dup and single metadata the new device serves by itself, also when the old is full."""
    path = btrfs_at(loop(GIB), mkfs=("-m", profile))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    allocate_data(path)
    new = loop(2 * GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)
    before = filesystem.read().devices
    filesystem.balance_metadata(Rebalance.BOUNDED)
    assert filesystem.read().devices == before
    write_metadata(path / "metadata", 100 * MIB)
    assert filesystem.read().metadata_room_bytes > 100 * MIB


def test_off_changes_nothing(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """`off` never needs and never does anything."""
    filesystem = BtrfsFilesystem(str(btrfs_at(loop(GIB), loop(GIB))), clock=clock)
    before = filesystem.read()
    assert not filesystem.needs_balance(Rebalance.OFF, before.devices[-1].name)
    filesystem.balance_metadata(Rebalance.OFF)
    assert filesystem.read().devices == before.devices


@pytest.mark.parametrize("mode", [Rebalance.BOUNDED, Rebalance.FULL])
def test_mirrored_metadata_gets_room_on_two_devices(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, mode: Rebalance
) -> None:
    """raid1 with one new device stays writable: data makes room for metadata on an old one."""
    path = btrfs_at(loop(GIB), loop(GIB), mkfs=("-d", "single", "-m", "raid1"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    allocate_data(path)
    new = loop(3 * GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    assert filesystem.needs_balance(mode, new.name)
    starved_bytes = int(filesystem.read().metadata_room_bytes)
    assert filesystem.balance_metadata(mode)
    assert not filesystem.needs_balance(mode, new.name)
    assert filesystem.read().metadata_room_bytes > starved_bytes + 200 * MIB
    write_metadata(path / "metadata", starved_bytes + 50 * MIB)
    sync(path)
    assert len(filesystem.read().devices) == 3


def test_mirrored_metadata_with_room_is_left_alone(
    loop: Loop, btrfs_at: Btrfs, clock: Clock
) -> None:
    """raid1 that has room on two devices needs nothing."""
    filesystem = BtrfsFilesystem(
        str(btrfs_at(loop(GIB), loop(GIB), mkfs=("-m", "raid1"))), clock=clock
    )
    new = loop(GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)
    before = filesystem.read().devices
    filesystem.balance_metadata(Rebalance.BOUNDED)
    assert filesystem.read().devices == before


def test_nothing_is_needed_that_cannot_help(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """With every device full only a growth helps, so no balance is needed."""
    path = btrfs_at(loop(GIB), loop(GIB), mkfs=("-d", "single", "-m", "raid1"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    allocate_data(path)
    newest = filesystem.read().devices[-1].name
    assert not filesystem.needs_balance(Rebalance.BOUNDED, newest)
    assert not filesystem.needs_balance(Rebalance.FULL, newest)


def test_a_stop_cancels_the_balance(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A stop in the middle of a full balance ends it and leaves no operation behind."""
    path = btrfs_at(loop(2 * GIB), mkfs=("-m", "dup"))
    write_metadata(path / "metadata", 180 * MIB)
    sync(path)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    seen: list[str] = []

    def stopping() -> bool:
        # The process that starts it needs some time until it does.
        seen.append(filesystem.exclusive_operation())
        return seen[-1] == "balance"

    with pytest.raises(Stopped):
        filesystem.balance_metadata(Rebalance.FULL, stopping=stopping)
    assert seen[-1] == "balance"
    assert filesystem.exclusive_operation() == "none"


def test_leaves_a_foreign_balance_alone(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, foreign_balance: Foreign
) -> None:
    """Metadata is not balanced while another balance is paused; devices can be added."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with foreign_balance(path):
        run(["btrfs", "balance", "pause", str(path)], timeout_seconds=60)
        assert filesystem.exclusive_operation() == "balance paused"
        with pytest.raises(Transient) as caught:
            filesystem.balance_metadata(Rebalance.BOUNDED)
        assert caught.value.cause is Cause.EXCLUSIVE_OPERATION
        new = loop(GIB)
        filesystem.add_device(new.name, verified=nullcontext)
        assert filesystem.read().has_device(new.name)
