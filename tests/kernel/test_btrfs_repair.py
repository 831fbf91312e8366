"""A device that fails while it is added is told with one advice, which repairs the filesystem."""

import gc
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Protocol

import pytest
from ec2_sandbox.devices.failing import DeviceFault, FailingDevice

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.checks import filesystem as check
from ebs_autoscale.cli.look import Looker
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config.schema import Settings
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Unfit
from ebs_autoscale.filesystems.btrfs import mount, repair
from ebs_autoscale.filesystems.btrfs.repair import add_command
from ebs_autoscale.host import blank
from ebs_autoscale.host.command import run

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3
Failing = Callable[[int], FailingDevice]
Scene = tuple[BtrfsFilesystem, FailingDevice, FailingDevice]


class Btrfs(Protocol):
    """The `btrfs_at` fixture."""

    def __call__(self, *devices: FailingDevice, mkfs: tuple[str, ...] = ...) -> Path:
        """Make and mount."""


@pytest.fixture
def scene(
    failing_loop: Failing,
    btrfs_at: Btrfs,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """A filesystem that fstab lists, its device, and a blank one."""
    # A host under load takes longer to start the process that looks at the devices.
    monkeypatch.setattr(mount, "_QUESTION_WAIT_SECONDS", 30.0)
    old, new = failing_loop(GIB), failing_loop(GIB)
    path = btrfs_at(old)
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{old.node} {path} btrfs noauto 0 0\n", "ascii")
    run(["mount", "--bind", str(fstab), "/etc/fstab"], timeout_seconds=10)
    yield BtrfsFilesystem(str(path), clock=clock), old, new
    run(["umount", "--lazy", "/etc/fstab"], timeout_seconds=10)


def add_unwritten(filesystem: BtrfsFilesystem, new: FailingDevice) -> None:
    """The add is committed; the superblock of the new device is not written."""
    new.fail(DeviceFault.WRITES_REFUSED)
    run(add_command(new.name, filesystem.mountpoint), timeout_seconds=10)


def abort(filesystem: BtrfsFilesystem, old: FailingDevice, *command: str) -> None:
    """The kernel aborts what this command begins, and forces the filesystem read-only."""
    old.fail(DeviceFault.WRITES_REFUSED)
    Path(filesystem.mountpoint, "content").write_bytes(bytes(MIB))
    with suppress(CommandFailed):
        run(command, timeout_seconds=10)
    old.fail(DeviceFault.NONE)


def healthy(filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice) -> None:
    """Nothing is wrong."""
    del filesystem, old, new


def unmounted(filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice) -> None:
    """It was unmounted."""
    del old, new
    run(["umount", filesystem.mountpoint], timeout_seconds=10)


def unwritten(filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice) -> None:
    """The new device has no superblock, and nothing was written since."""
    del old
    add_unwritten(filesystem, new)


def unwritten_used(filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice) -> None:
    """The new device has no superblock, and programs wrote to it."""
    del old
    add_unwritten(filesystem, new)
    for number in range(40):
        Path(filesystem.mountpoint, str(number)).write_bytes(bytes(8 * MIB))
    with suppress(CommandFailed):
        run(["btrfs", "filesystem", "sync", filesystem.mountpoint], timeout_seconds=10)


def aborted(filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice) -> None:
    """The add was aborted: the kernel lists the new device, the filesystem does not count it."""
    abort(filesystem, old, *add_command(new.name, filesystem.mountpoint))


def unwritten_read_only(
    filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice
) -> None:
    """The add was committed without a superblock; later the kernel forced it read-only."""
    add_unwritten(filesystem, new)
    abort(filesystem, old, "btrfs", "filesystem", "sync", filesystem.mountpoint)


def forced_read_only(filesystem: BtrfsFilesystem, old: FailingDevice, new: FailingDevice) -> None:
    """The kernel forced it read-only, with no add in it."""
    del new
    abort(filesystem, old, "btrfs", "filesystem", "sync", filesystem.mountpoint)


def daemon_advice(filesystem: BtrfsFilesystem) -> tuple[Cause | None, str]:
    """What the loop or the look of a growth says."""
    try:
        filesystem.read()
        filesystem.verify_devices()
    except EbsAutoscaleError as error:
        return error.cause, error.hint
    return None, ""


def status_advice(path: str) -> str:
    """What `status` says."""
    settings = Settings(mountpoint=path)
    seen = Looker(Path("/config.yaml"), settings, SystemClock()).look()
    if seen.unfit:
        return seen.unfit.hint
    wrong = seen.filesystem.problems if seen.filesystem else ()
    return " ".join(each.hint for each in wrong if each.cause is not Cause.DEVICE_ERRORS)


def check_advice(path: str) -> str:
    """What `check` says."""
    seen = check.look(check.FilesystemSeen(mountpoint=path), SystemClock())
    # The device below a failing one is a copy of it, which is another line.
    wrong = (line for line in check.lines(seen) if line.verdict == "fail")
    return " ".join(line.hint for line in wrong if line.name in {"mount", "add"})


@pytest.mark.parametrize(
    ("happens", "cause"),
    [
        (healthy, None),
        (unmounted, Cause.NOT_MOUNTED),
        (unwritten, Cause.INCOMPLETE_ADD),
        (unwritten_used, Cause.INCOMPLETE_ADD),
        (aborted, Cause.READ_ONLY),
        (unwritten_read_only, Cause.READ_ONLY),
        (forced_read_only, Cause.READ_ONLY),
    ],
)
def test_one_advice_which_helps(
    scene: Scene,
    happens: Callable[[BtrfsFilesystem, FailingDevice, FailingDevice], None],
    cause: Cause | None,
) -> None:
    """The daemon, `status` and `check` give one advice; followed to the letter, it repairs."""
    filesystem, old, new = scene
    path = filesystem.mountpoint
    Path(path, "precious").write_bytes(b"precious")
    run(["btrfs", "filesystem", "sync", path], timeout_seconds=10)
    happens(filesystem, old, new)
    found, advice = daemon_advice(filesystem)
    assert (found, status_advice(path), check_advice(path)) == (cause, advice, advice)
    for command in re.findall(r"run `([^`]+)`", advice):
        subprocess.run(["sh", "-ec", command], check=True)
    assert daemon_advice(filesystem) == (None, "")
    # It can be mounted again, and written.
    for command in (["umount", path], ["mount", path]):
        run(command, timeout_seconds=10)
    assert len(filesystem.read().devices) == 1
    Path(path, "more").write_bytes(bytes(MIB))
    assert Path(path, "precious").read_bytes() == b"precious"


def test_lasts_until_the_superblock_is_written(scene: Scene) -> None:
    """It is wrong at each look, until the device works and the next commit has written it."""
    filesystem, _, new = scene
    add_unwritten(filesystem, new)
    for _ in range(2):
        assert daemon_advice(filesystem)[0] is Cause.INCOMPLETE_ADD
    new.fail(DeviceFault.NONE)
    assert daemon_advice(filesystem)[0] is Cause.INCOMPLETE_ADD
    Path(filesystem.mountpoint, "file").touch()
    run(["btrfs", "filesystem", "sync", filesystem.mountpoint], timeout_seconds=10)
    assert daemon_advice(filesystem) == (None, "")


def test_a_user_who_may_not_read_the_devices(scene: Scene) -> None:
    """What a user may not read is not said to be missing, nor are commands given to remove it."""
    filesystem, _, new = scene
    add_unwritten(filesystem, new)
    devices, uuid, path = filesystem.read().devices, filesystem.uuid, filesystem.mountpoint
    os.seteuid(65534)
    try:
        repair.verify_superblocks(devices, uuid, path, {})
        assert repair.remount_command(path, uuid) == f"umount {path} && mount {path}"
    finally:
        os.seteuid(0)
    with pytest.raises(Unfit):
        repair.verify_superblocks(devices, uuid, path, {})


# A process that hangs in the kernel is left behind.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("fault", [DeviceFault.WRITES_REFUSED, DeviceFault.WRITES_HANG])
def test_what_cannot_be_written_is_not_added(
    scene: Scene, fault: DeviceFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that refuses a write, or never ends it, is found before it is added."""
    monkeypatch.setattr(blank, "_WRITE_TIMEOUT_SECONDS", 0.5)
    filesystem, _, new = scene
    new.fail(fault)
    with pytest.raises(Unfit) as caught:
        filesystem.add_device(new.name, verified=nullcontext)
    assert caught.value.cause is Cause.UNWRITABLE
    new.fail(DeviceFault.NONE)
    del caught
    gc.collect()
    assert len(filesystem.read().devices) == 1


def test_our_own_add_that_hangs_is_recognised(scene: Scene, failing_loop: Failing) -> None:
    """While our add of a device does not end, it is named, the loop reads on, nothing is added."""
    filesystem, _, new = scene
    new.fail(DeviceFault.WRITES_HANG)
    argv = add_command(new.name, filesystem.mountpoint)
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            while filesystem.exclusive_operation() != "device add":
                assert process.poll() is None
            with pytest.raises(Unfit) as caught:
                filesystem.verify_devices({new.name: "vol-1"})
            assert caught.value.cause is Cause.STUCK_ADD
            for word in (new.name, "vol-1", str(process.pid)):
                assert word in caught.value.what
            with pytest.raises(Unfit) as caught:
                filesystem.add_device(failing_loop(GIB).name, verified=nullcontext)
            assert caught.value.cause is Cause.STUCK_ADD
            assert len(filesystem.read().devices) == 1
        finally:
            new.fail(DeviceFault.NONE)
    assert daemon_advice(filesystem) == (None, "")
