"""A balance never delays an add, whoever started it, and no balance is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from threading import Event

import psutil
import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, Stopped, Transient
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS, BtrfsSysfs
from ebs_autoscale.host import paths
from ebs_autoscale.host.command import run
from ebs_autoscale.model import Rebalance
from tests.kernel.fixtures import Btrfs, Foreign, Loop

pytestmark = pytest.mark.kernel

GIB = 1024**3

# `btrfs` before 5.18 on a kernel before 5.17: no device is added beside a paused balance.
OLD_TOOL = """#!/bin/sh
if [ "$1 $2" = "device add" ] && grep -q paused /sys/fs/btrfs/{uuid}/exclusive_operation; then
    echo "ERROR: unable to start device add, another exclusive operation" \\
        "'balance paused' in progress" >&2
    exit 1
fi
exec {real} "$@"
"""

# A growth that balances metadata, and is ended meanwhile.
BALANCING = """
import signal, sys
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.model import Rebalance
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
filesystem = BtrfsFilesystem(sys.argv[1], clock=SystemClock())
filesystem.balance_metadata(Rebalance.FULL, stopping=lambda: bool(ends))
"""

# `btrfs`, whose balance ends when it is cancelled.
TOOL_UNTIL_CANCELLED = """#!/bin/sh
case "$2" in
cancel) touch {cancelled} ;;
start)
    echo $$ >{pid}.part && mv {pid}.part {pid}
    until [ -e {cancelled} ]; do sleep 0.05; done
    echo "by itself" >{pid}.ended && mv {pid}.ended $(dirname {pid})/ended ;;
esac
"""


@pytest.fixture
def filesystem(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> BtrfsFilesystem:
    """A filesystem of one device."""
    return BtrfsFilesystem(str(btrfs_at(loop(2 * GIB))), clock=clock)


@pytest.fixture(params=["now", "before 5.17"])
def sysfs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sysfs say what this kernel says, or what older ones call a paused balance: `balance`."""
    if request.param == "now":
        return
    published = BtrfsSysfs.exclusive_operation
    monkeypatch.setattr(
        BtrfsSysfs,
        "exclusive_operation",
        lambda self: published(self).removesuffix(" paused"),
    )


def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait for a condition, and fail after this long."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        Event().wait(0.02)
    pytest.fail(f"no success after {seconds:.0f} s")


def is_running(filesystem: BtrfsFilesystem) -> bool:
    """Whether a balance runs; a process that is to resume one needs some time until it does."""
    published = SYSFS / filesystem.uuid / "exclusive_operation"
    return published.read_text("ascii") == "balance\n"


@pytest.mark.usefixtures("sysfs")
def test_is_paused_and_resumed(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: Foreign
) -> None:
    """Another process' balance is paused for an add, and resumed when metadata is balanced."""
    new = loop(GIB)
    told: list[str] = []
    with foreign_balance(Path(filesystem.mountpoint)):
        filesystem.add_device(new.name, verified=nullcontext, tell=told.append)
        assert filesystem.read().has_device(new.name)
        assert filesystem.exclusive_operation() == "balance paused"
        assert len(told) == 1
        for mode in Rebalance:
            assert filesystem.needs_balance(mode, new.name)
        assert filesystem.balance_metadata(Rebalance.OFF, tell=told.append)
        assert "Done" in told[-1]
    assert filesystem.exclusive_operation() == "none"
    assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)


@pytest.mark.usefixtures("sysfs")
def test_is_paused_again_by_a_stop(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: Foreign
) -> None:
    """A stop while it is resumed pauses it again, and it still has to be resumed."""
    new, newer = loop(GIB), loop(GIB)
    with foreign_balance(Path(filesystem.mountpoint)):
        filesystem.add_device(new.name, verified=nullcontext)
        with pytest.raises(Stopped):
            filesystem.balance_metadata(Rebalance.OFF, stopping=lambda: is_running(filesystem))
        assert filesystem.exclusive_operation() == "balance paused"
        filesystem.add_device(newer.name, verified=nullcontext)
        assert filesystem.needs_balance(Rebalance.OFF, newer.name)


@pytest.mark.usefixtures("sysfs")
def test_what_its_owner_paused_stays_paused(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: Foreign
) -> None:
    """Only a balance that we paused is resumed, and not another one that its owner pauses."""
    path, new = filesystem.mountpoint, loop(GIB)
    with foreign_balance(Path(path)):
        filesystem.add_device(new.name, verified=nullcontext)
        run(["btrfs", "balance", "cancel", path], timeout_seconds=60)
        assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)
        filesystem.balance_metadata(Rebalance.OFF)
    with foreign_balance(Path(path)):
        run(["btrfs", "balance", "pause", path], timeout_seconds=60)
        filesystem.add_device(loop(GIB).name, verified=nullcontext)
        assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)
        with pytest.raises(Transient) as caught:
            filesystem.balance_metadata(Rebalance.BOUNDED)
        assert caught.value.cause is Cause.EXCLUSIVE_OPERATION


def test_what_its_owner_resumed_is_no_longer_ours(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: Foreign
) -> None:
    """A balance that was resumed and paused again since we paused it is not ours to resume."""
    path, new = filesystem.mountpoint, loop(GIB)
    with foreign_balance(Path(path)):
        filesystem.add_device(new.name, verified=nullcontext)
        with subprocess.Popen(["btrfs", "balance", "resume", path], stdout=subprocess.DEVNULL):
            until(lambda: filesystem.exclusive_operation() == "balance")
            subprocess.run(["btrfs", "balance", "pause", path], check=False, capture_output=True)
        if filesystem.exclusive_operation() != "balance paused":
            pytest.skip("the balance ended before it was paused")
        assert not filesystem.needs_balance(Rebalance.OFF, new.name)


def test_questions_change_nothing(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: Foreign
) -> None:
    """Whether a balance is needed can be asked by anyone at any time; only commands forget it."""
    path, new = filesystem.mountpoint, loop(GIB)
    mark = paths.balance_mark(filesystem.uuid)
    with foreign_balance(Path(path)):
        filesystem.add_device(new.name, verified=nullcontext)
        run(["btrfs", "balance", "cancel", path], timeout_seconds=60)
        assert not filesystem.needs_balance(Rebalance.OFF, new.name)
        assert mark.exists()
        filesystem.balance_metadata(Rebalance.OFF)
        assert not mark.exists()


def test_its_owner_may_pause_what_was_resumed(
    filesystem: BtrfsFilesystem, loop: Loop, foreign_balance: Foreign
) -> None:
    """A balance that its owner pauses while we have it resumed stays paused."""
    path, new = filesystem.mountpoint, loop(GIB)

    def pause() -> bool:
        if is_running(filesystem):
            run(["btrfs", "balance", "pause", path], timeout_seconds=60)
        return False

    with foreign_balance(Path(path)):
        filesystem.add_device(new.name, verified=nullcontext)
        with pytest.raises(Transient) as caught:
            filesystem.balance_metadata(Rebalance.OFF, stopping=pause)
        assert caught.value.cause is Cause.BALANCE
        assert filesystem.exclusive_operation() == "balance paused"
        assert not filesystem.needs_balance(Rebalance.BOUNDED, new.name)


@pytest.mark.usefixtures("sysfs")
def test_is_cancelled_where_a_pause_does_not_help(
    filesystem: BtrfsFilesystem,
    loop: Loop,
    foreign_balance: Foreign,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Old kernels add no device beside a paused balance: it is cancelled, and reported."""
    real = shutil.which("btrfs")
    tool = tmp_path / "btrfs"
    tool.write_text(OLD_TOOL.format(uuid=filesystem.uuid, real=real), "utf-8")
    tool.chmod(0o755)
    new = loop(GIB)
    told: list[str] = []
    with foreign_balance(Path(filesystem.mountpoint)):
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        filesystem.add_device(new.name, verified=nullcontext, tell=told.append)
    assert len(told) == 2
    assert filesystem.read().has_device(new.name)
    assert filesystem.exclusive_operation() == "none"


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_ours_is_never_killed(
    filesystem: BtrfsFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """No signal reaches a balance, however the growth ends: it is cancelled, or left running."""
    tool, pid, cancelled = tmp_path / "btrfs", tmp_path / "pid", tmp_path / "cancelled"
    tool.write_text(TOOL_UNTIL_CANCELLED.format(pid=pid, cancelled=cancelled), "utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    growth = subprocess.Popen([sys.executable, "-c", BALANCING, filesystem.mountpoint])
    until(pid.exists)
    balance = psutil.Process(int(pid.read_text("ascii")))
    growth.send_signal(signal.SIGKILL if end == "kill" else signal.SIGTERM)
    growth.wait()
    assert cancelled.exists() is (end == "stop")
    if end == "kill":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            balance.send_signal(number)
        Event().wait(0.2)
        assert balance.is_running()
        cancelled.touch()
    psutil.wait_procs([balance], timeout=10)
    assert (tmp_path / "ended").read_text("ascii") == "by itself\n"


def test_tells_how_far_it_is(filesystem: BtrfsFilesystem, foreign_balance: Foreign) -> None:
    """While a balance runs its chunks are counted, without a subprocess."""
    with foreign_balance(Path(filesystem.mountpoint)):
        assert re.match(r"\d+ of \d+ ", filesystem.balance_progress())
    assert filesystem.balance_progress() == ""


def test_the_phantom_of_two_adds_is_named(clock: Clock, btrfs_at: Btrfs, loop: Loop) -> None:
    """The paused balance that two simultaneous adds leave behind is not taken for a real one."""
    for _ in range(20):
        # A new filesystem each time: the race may also force it read-only.
        path = btrfs_at(loop(2 * GIB))
        adds = [
            subprocess.Popen(["btrfs", "device", "add", "-K", loop(GIB).node, path])
            for _ in range(2)
        ]
        if [add.wait() for add in adds] != [0, 0]:
            continue
        filesystem = BtrfsFilesystem(str(path), clock=clock)
        if filesystem.exclusive_operation() == "balance paused":
            break
    else:
        pytest.skip("this kernel leaves no phantom")
    with pytest.raises(Transient) as caught:
        filesystem.balance_metadata(Rebalance.BOUNDED)
    assert f"umount {path}" in caught.value.hint
    new = loop(GIB)
    filesystem.add_device(new.name, verified=nullcontext)
    assert filesystem.read().has_device(new.name)
