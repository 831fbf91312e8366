"""A balance never keeps a growth waiting, whoever started it, and nobody's balance gets lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Protocol

import psutil
import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Stopped, Transient
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.host.command import run
from ebs_autoscale.model import Rebalance

pytestmark = pytest.mark.kernel

GIB = 1024**3
Loop = Callable[[int], LoopDevice]

# `btrfs` as it was before 5.18, on a kernel before 5.17: nothing is added beside a paused balance.
OLD_TOOL = """#!/bin/sh
if [ "$1 $2" = "device add" ] && grep -q paused /sys/fs/btrfs/{uuid}/exclusive_operation; then
    echo "ERROR: unable to start device add, another exclusive operation" \\
        "'balance paused' in progress" >&2
    exit 1
fi
exec {real} "$@"
"""

# A growth that settles, and is killed in the middle of it.
SETTLING = """
import sys
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.model import Rebalance
BtrfsFilesystem(sys.argv[1], clock=SystemClock()).balance_metadata(Rebalance.FULL)
"""


class Btrfs(Protocol):
    """The `btrfs_at` fixture."""

    def __call__(self, *devices: LoopDevice, mkfs: tuple[str, ...] = ...) -> Path:
        """Make and mount."""


class ForeignBalance(Protocol):
    """The `foreign_balance` fixture."""

    def __call__(self, path: Path) -> AbstractContextManager[Callable[[], None]]:
        """Let one run on this path; it can be cancelled."""


@pytest.fixture
def filesystem(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> BtrfsFilesystem:
    """A filesystem of one device."""
    return BtrfsFilesystem(str(btrfs_at(loop(2 * GIB))), clock=clock)


@pytest.fixture(params=["now", "before 5.17"])
def sysfs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sysfs have the words of this kernel, or of one that calls a paused balance `balance`."""
    if request.param == "now":
        return
    published = BtrfsSysfs.exclusive_operation
    monkeypatch.setattr(
        BtrfsSysfs,
        "exclusive_operation",
        lambda self: published(self).removesuffix(" paused"),
    )


def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait for a condition, in vain for so long at most."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        Event().wait(0.02)
    pytest.fail("in vain")


@pytest.mark.usefixtures("sysfs")
def test_gives_way_and_is_taken_up_again(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: ForeignBalance
) -> None:
    """Somebody's balance is paused for an add, and run to its end when metadata is settled."""
    new = loop(GIB)
    told: list[str] = []
    with foreign_balance(Path(filesystem.mountpoint)):
        filesystem.add_device(new.name, tell=told.append)
        assert filesystem.read().has_device(new.name)
        assert filesystem.exclusive_operation() == "balance paused"
        assert "somebody's balance gives way to this growth" in told[0]
        for mode in Rebalance:
            assert filesystem.needs_balance(mode, new.name)
        assert filesystem.balance_metadata(Rebalance.OFF, tell=told.append)
        assert "taken up again: Done" in told[-1]
    assert filesystem.exclusive_operation() == "none"
    assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)


@pytest.mark.usefixtures("sysfs")
def test_gives_way_again_and_again(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: ForeignBalance
) -> None:
    """A stop while it is taken up pauses it once more, and it is still to be taken up."""
    new, newer = loop(GIB), loop(GIB)
    with foreign_balance(Path(filesystem.mountpoint)):
        filesystem.add_device(new.name)
        with pytest.raises(Stopped, match="gives way once more"):
            filesystem.balance_metadata(Rebalance.OFF, stopping=lambda: True)
        assert filesystem.exclusive_operation() == "balance paused"
        filesystem.add_device(newer.name)
        assert filesystem.needs_balance(Rebalance.OFF, newer.name)


@pytest.mark.usefixtures("sysfs")
def test_what_its_owner_paused_stays_paused(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: ForeignBalance
) -> None:
    """Only what gave way to a growth is taken up; after it is over the next pause is not ours."""
    path, new = filesystem.mountpoint, loop(GIB)
    with foreign_balance(Path(path)):
        filesystem.add_device(new.name)
        run(["btrfs", "balance", "cancel", path], timeout_seconds=60)
        assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)
    with foreign_balance(Path(path)):
        run(["btrfs", "balance", "pause", path], timeout_seconds=60)
        filesystem.add_device(loop(GIB).name)
        assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)
        with pytest.raises(Transient, match="balance paused"):
            filesystem.balance_metadata(Rebalance.BOUNDED)


def test_its_owner_may_pause_what_was_taken_up(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: ForeignBalance
) -> None:
    """Who pauses his balance while we have it run again is not overruled."""
    path, new = filesystem.mountpoint, loop(GIB)

    def pause() -> bool:
        run(["btrfs", "balance", "pause", path], timeout_seconds=60)
        return False

    with foreign_balance(Path(path)):
        filesystem.add_device(new.name)
        with pytest.raises(Transient, match="somebody paused or cancelled"):
            filesystem.balance_metadata(Rebalance.OFF, stopping=pause)
        assert filesystem.exclusive_operation() == "balance paused"
        assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)


@pytest.mark.usefixtures("sysfs")
def test_is_cancelled_where_a_pause_does_not_help(
    filesystem: BtrfsFilesystem,
    loop: Loop,
    foreign_balance: ForeignBalance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Old kernels add nothing beside a paused balance: it is cancelled, and that is told."""
    real = shutil.which("btrfs")
    tool = tmp_path / "btrfs"
    tool.write_text(OLD_TOOL.format(uuid=filesystem.uuid, real=real), "utf-8")
    tool.chmod(0o755)
    new = loop(GIB)
    told: list[str] = []
    with foreign_balance(Path(filesystem.mountpoint)):
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        filesystem.add_device(new.name, tell=told.append)
    assert "so it is cancelled" in told[-1]
    assert filesystem.read().has_device(new.name)
    assert filesystem.exclusive_operation() == "none"


def test_ours_dies_with_us(
    filesystem: BtrfsFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the growth is killed its balance ends too, and is not taken for somebody else's."""
    tool, begun = tmp_path / "btrfs", tmp_path / "begun"
    tool.write_text(f"#!/bin/sh\necho $$ >{begun}.part && mv {begun}.part {begun}\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    growth = subprocess.Popen([sys.executable, "-c", SETTLING, filesystem.mountpoint])
    until(begun.exists)
    growth.kill()
    growth.wait()
    until(lambda: not psutil.pid_exists(int(begun.read_text("ascii"))), seconds=10)


def test_tells_how_far_it_is(filesystem: BtrfsFilesystem, foreign_balance: ForeignBalance) -> None:
    """While a balance runs its chunks are counted, without a process."""
    with foreign_balance(Path(filesystem.mountpoint)):
        words = filesystem.balance_progress().split()
        assert words[3:] == ["chunks", "moved"]
    assert filesystem.balance_progress() == ""


def test_the_phantom_of_two_adds_is_named(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """What two device adds at once leave behind is told apart from a balance that is paused."""
    path = filesystem.mountpoint
    for _ in range(20):
        adds = [
            subprocess.Popen(["btrfs", "device", "add", "-K", loop(GIB).node, path])
            for _ in range(2)
        ]
        for add in adds:
            add.wait()
        if filesystem.exclusive_operation() == "balance paused":
            break
    else:
        pytest.skip("this kernel leaves no phantom")
    with pytest.raises(Transient, match="phantom") as caught:
        filesystem.balance_metadata(Rebalance.BOUNDED)
    assert f"umount {path}" in caught.value.hint
    new = loop(GIB)
    filesystem.add_device(new.name)
    assert filesystem.read().has_device(new.name)
