"""What the kernel knows about failing devices is read and reported."""

import os
import re
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from ec2_sandbox.devices.failing import DeviceFault, FailingDevice

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.checks import filesystem as check
from ebs_autoscale.cli import status
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config.schema import Settings
from ebs_autoscale.errors import Cause, CommandFailed, Exit, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.policy import problems_of
from tests.kernel.fixtures import Btrfs, Foreign, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3
Failing = Callable[[int], FailingDevice]


def show_status(path: Path) -> int:
    """Print the status of the filesystem on this path."""
    settings = Settings(mountpoint=str(path))
    return status.show({Path("/config.yaml"): settings}, as_json=False, watch=False)


def test_corruption_is_counted_until_reset(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block that does not match its checksum is counted for the device until it is reset."""
    device = loop(256 * MIB)
    path = btrfs_at(device)
    content = os.urandom(MIB)
    (path / "file").write_bytes(content)
    run(["umount", str(path)], timeout_seconds=60)
    with Path(device.node).open("r+b") as node:
        place = node.read().index(content[:4096])
        node.seek(place)
        node.write(b"x")
    run(["mount", device.node, str(path)], timeout_seconds=60)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    assert filesystem.read().devices[0].errors == (0, 0, 0, 0, 0)
    with pytest.raises(OSError, match="Input/output"):
        (path / "file").read_bytes()
    reading = filesystem.read()
    assert reading.devices[0].errors[3] > 0
    assert [problem.cause for problem in problems_of(reading)] == [Cause.DEVICE_ERRORS]
    assert show_status(path) == Exit.FAILED
    assert "alarm        " in capsys.readouterr().out
    run(["btrfs", "device", "stats", "--reset", str(path)], timeout_seconds=60)
    assert not list(problems_of(filesystem.read()))
    assert show_status(path) == Exit.SUCCESS


def test_status_names_what_runs(
    loop: Loop,
    btrfs_at: Btrfs,
    foreign_balance: Foreign,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The running exclusive operation is in the status, a balance with its progress."""
    path = btrfs_at(loop(2 * GIB))
    with foreign_balance(path):
        show_status(path)
    assert re.search(r"running      balance, \d+ of \d+ chunks moved", capsys.readouterr().out)


def test_a_degraded_mount_is_an_alarm(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Mounted without one of its devices, the filesystem is named as such and not grown."""
    staying, leaving = loop(GIB), loop(GIB)
    path = btrfs_at(staying, leaving, mkfs=("-d", "raid1", "-m", "raid1"))
    run(["umount", str(path)], timeout_seconds=60)
    run(["btrfs", "device", "scan", "--forget", leaving.node], timeout_seconds=60)
    leaving.close()
    run(["mount", "-o", "degraded", staying.node, str(path)], timeout_seconds=60)
    [problem] = problems_of(BtrfsFilesystem(str(path), clock=clock).read())
    assert problem.cause is Cause.MISSING_DEVICE
    assert "devid 2" in problem.sentence


def test_a_device_that_was_torn_off_is_lost(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A block device that the kernel has taken away is missing and has no room, until it is back.

    The kernel gives an NVMe device whose volume is detached the size 0, which is done here to a
    loop device.
    """
    staying, leaving = loop(GIB), loop(GIB)
    path = btrfs_at(staying, leaving, mkfs=("-d", "single", "-m", "raid1"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    for left_bytes in (0, GIB // 2):
        leaving.resize(left_bytes)
        reading = filesystem.read()
        [problem] = problems_of(reading)
        assert problem.cause is Cause.MISSING_DEVICE
        assert leaving.name in problem.sentence
        assert not reading.has_device(leaving.name)
        assert reading.available_bytes <= staying.size_bytes
    leaving.resize(GIB)
    assert not list(problems_of(filesystem.read()))
    assert filesystem.read().devices == before.devices


@pytest.mark.parametrize("torn_off", [(), (1,), (0, 2)])
def test_health_is_not_a_matter_of_names(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, tmp_path: Path, torn_off: tuple[int, ...]
) -> None:
    """Whether the nodes by which devices were registered exist is no sign of their health.

    One of them even bears the name of another device.
    """
    devices = [loop(512 * MIB) for _ in range(3)]
    path = btrfs_at(*devices)
    run(["umount", str(path)], timeout_seconds=60)
    run(["btrfs", "device", "scan", "--forget"], timeout_seconds=60)
    nodes = [tmp_path / devices[1].name, tmp_path / "other", tmp_path / "third"]
    for device, node in zip(devices, nodes, strict=True):
        os.mknod(node, stat.S_IFBLK | 0o600, Path(device.node).stat().st_rdev)
        run(["btrfs", "device", "scan", str(node)], timeout_seconds=60)
    run(["mount", str(nodes[0]), str(path)], timeout_seconds=60)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    assert [device.name for device in filesystem.read().devices] == [d.name for d in devices]
    for node in nodes:
        node.unlink()
    for number in torn_off:
        devices[number].resize(0)
    reading = filesystem.read()
    healthy = {device.name for device in reading.devices if not device.missing}
    assert healthy == {d.name for n, d in enumerate(devices) if n not in torn_off}


def test_errors_that_force_it_read_only_are_still_told(
    failing_loop: Failing, btrfs_at: Btrfs, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """After that there is no reading, but `status` and `check` name the device and its errors.

    A device that does not respond delays no look: the first asks another process, the others not.
    """
    device = failing_loop(256 * MIB)
    path = btrfs_at(device)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    device.fail(DeviceFault.WRITES_REFUSED)
    with suppress(OSError, CommandFailed):
        (path / "file").write_bytes(b"x")
        run(["sync", "--file-system", str(path)], timeout_seconds=60)
    device.fail(DeviceFault.READS_HANG)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(Unfit) as caught:
            filesystem.read()
        seconds.append(time.monotonic() - began)
        assert caught.value.cause is Cause.READ_ONLY
    assert seconds[0] < 3
    assert max(seconds[1:]) < 0.5
    device.fail(DeviceFault.NONE)
    for _ in range(100):
        with pytest.raises(Unfit) as caught:
            filesystem.read()
        if f"umount {path}" in caught.value.hint:
            break
        Event().wait(0.1)
    else:
        pytest.fail(caught.value.hint)
    assert show_status(path) == Exit.UNFIT
    assert f"{device.name} (devid 1): " in capsys.readouterr().out
    lines = check.lines(check.look(check.expected(str(path)), SystemClock()))
    assert [line.verdict for line in lines if device.name in line.sentence] == ["warn"]


def test_a_commit_that_hangs_delays_no_reading(
    loop: Loop, failing_loop: Failing, btrfs_at: Btrfs, clock: Clock
) -> None:
    """While a device keeps the kernel from ending a commit, the loop and a new daemon read on."""
    device = failing_loop(256 * MIB)
    # Metadata is on the other one, so that the commit hangs where it writes the superblocks.
    path = btrfs_at(loop(512 * MIB), device, mkfs=("-m", "single", "-d", "single"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.read()
    (path / "file").write_bytes(b"x")
    device.fail(DeviceFault.WRITES_HANG)
    with subprocess.Popen(["btrfs", "filesystem", "sync", str(path)]) as commit:
        try:
            for _ in range(20):
                Event().wait(0.1)
                began = time.monotonic()
                BtrfsFilesystem(str(path), clock=clock).read()
                assert time.monotonic() - began < 1
                assert filesystem.read().devices[0].errors == (0, 0, 0, 0, 0)
            assert commit.poll() is None
        finally:
            device.fail(DeviceFault.NONE)
