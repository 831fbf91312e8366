"""Every reading verifies the mount, and each thing that can be wrong has a cause (law 6)."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.filesystems.btrfs import mount
from ebs_autoscale.filesystems.btrfs.reserve import NAME
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import MountTable
from tests.kernel.fixtures import Btrfs, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount something as long as this is entered."""
    run(["mount", *arguments], timeout_seconds=60)
    try:
        yield
    finally:
        run(["umount", "--lazy", arguments[-1]], timeout_seconds=60)


# What systemd does for x-systemd.automount: linux/auto_fs.h, protocol 5. Only the processes of its
# own group see what is beneath; all others wait until it has mounted something.
AUTOMOUNT = """
import ctypes, fcntl, os, struct, subprocess, sys
node, path = sys.argv[1:]
reader, writer = os.pipe()
options = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"automount", path.encode(), b"autofs", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
os.close(writer)
root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
print("mounted", flush=True)
while packet := os.read(reader, 304):
    token = struct.unpack_from("=iiI", packet)[2]
    ready = node and subprocess.run(["mount", node, path]).returncode == 0
    fcntl.ioctl(root, 0x9360 if ready else 0x9361, token)
"""


@contextmanager
def automount(node: str, path: Path) -> Iterator[None]:
    """A direct automount that mounts this device, or fails without one."""
    argv = [sys.executable, "-c", AUTOMOUNT, node, str(path)]
    with Popen(argv, stdout=PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "mounted\n"
            yield
        finally:
            while MountTable().at(str(path)):
                run(["umount", "--lazy", str(path)], timeout_seconds=60)
            process.kill()


def refusal(action: Callable[[], object]) -> Unfit:
    """The error with which this is refused."""
    with pytest.raises(Unfit) as caught:
        action()
    assert caught.value.hint
    return caught.value


def test_a_missing_path_is_an_alarm(tmp_path: Path, clock: Clock) -> None:
    """A path that does not exist is neither created nor measured."""
    error = refusal(lambda: BtrfsFilesystem(str(tmp_path / "none"), clock=clock))
    assert error.cause is Cause.MISSING


def test_a_file_is_no_mountpoint(tmp_path: Path, clock: Clock) -> None:
    """A file, or a path below one, is not mounted."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        error = refusal(partial(BtrfsFilesystem, str(path), clock=clock))
        assert error.cause is Cause.NOT_MOUNTED


def test_a_plain_folder_names_what_it_would_have_measured(
    tmp_path: Path, clock: Clock, loop: Loop, btrfs_at: Btrfs
) -> None:
    """A folder that nothing is mounted on is refused, even when it lies in another BTRFS."""
    error = refusal(lambda: BtrfsFilesystem(str(tmp_path), clock=clock))
    assert error.cause is Cause.NOT_MOUNTED
    inside = btrfs_at(loop(GIB)) / "folder"
    inside.mkdir()
    error = refusal(lambda: BtrfsFilesystem(str(inside), clock=clock))
    assert error.cause is Cause.NOT_MOUNTED
    assert error.what.replace(str(inside), "").count(str(inside.parent)) == 1


def test_another_type_of_filesystem_is_named(tmp_path: Path, clock: Clock) -> None:
    """A mount of another type is refused with that type."""
    with mounted("-t", "tmpfs", "scratch", str(tmp_path)):
        error = refusal(lambda: BtrfsFilesystem(str(tmp_path), clock=clock))
    assert (error.cause, "tmpfs" in error.what) == (Cause.NOT_BTRFS, True)


def test_an_automount_mounts_it(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A direct automount is triggered at the start, and not by a reading after an unmount."""
    device = loop(GIB)
    path = btrfs_at(device)
    run(["umount", str(path)], timeout_seconds=60)
    with automount(device.node, path):
        filesystem = BtrfsFilesystem(str(path), clock=clock)
        assert filesystem.read().devices[0].name == device.name
        run(["umount", str(path)], timeout_seconds=60)
        error = refusal(filesystem.read)
        assert (error.cause, f"mount {path}" in error.hint) == (Cause.NOT_MOUNTED, True)
        assert BtrfsFilesystem(str(path), clock=clock).uuid == filesystem.uuid


def test_an_automount_that_fails(tmp_path: Path, clock: Clock) -> None:
    """It is not mounted then, rather than no BTRFS."""
    with automount("", tmp_path):
        error = refusal(lambda: BtrfsFilesystem(str(tmp_path), clock=clock))
    assert error.cause is Cause.NOT_MOUNTED


def test_unmounted_later(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """An unmount is noticed at the next reading, and so is the next mount."""
    device = loop(GIB)
    path = btrfs_at(device)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    run(["umount", str(path)], timeout_seconds=60)
    assert refusal(filesystem.read).cause is Cause.NOT_MOUNTED
    run(["mount", device.node, str(path)], timeout_seconds=60)
    assert filesystem.read().filesystem == before.filesystem


def test_the_folder_goes_away(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A mountpoint that is removed altogether is missing."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    run(["umount", str(path)], timeout_seconds=60)
    path.rmdir()
    assert refusal(filesystem.read).cause is Cause.MISSING


def test_another_filesystem_in_its_place(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Another BTRFS on the same path is refused."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    btrfs_at(loop(GIB), at=path)
    error = refusal(filesystem.read)
    assert (error.cause, filesystem.uuid in error.what) == (Cause.OTHER_FILESYSTEM, True)


def test_hidden_by_another_mount(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """What is mounted on top is what programs see, and what counts."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with mounted("-t", "tmpfs", "cover", str(path)):
        error = refusal(filesystem.read)
        assert (error.cause, "tmpfs" in error.what) == (Cause.NOT_BTRFS, True)
    filesystem.read()


def test_hidden_by_a_mount_on_a_parent(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A mount over a parent folder hides it, although the mount table still lists it."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    with mounted("-t", "tmpfs", "cover", str(path.parent)):
        assert refusal(filesystem.read).cause is Cause.MISSING
        path.mkdir()
        assert refusal(filesystem.read).cause is Cause.NOT_BTRFS
    filesystem.read()


def test_remounted_read_only(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A read-only mount cannot grow, and the hint says how to make it writable."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    run(["mount", "-o", "remount,ro", str(path)], timeout_seconds=60)
    error = refusal(filesystem.read)
    assert error.cause is Cause.READ_ONLY
    assert f"mount -o remount,rw {path}" in error.hint
    run(["mount", "-o", "remount,rw", str(path)], timeout_seconds=60)
    filesystem.read()


def test_forced_read_only(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the kernel forced it read-only, only unmounting helps, and the hint says so."""
    monkeypatch.setattr(mount, "_QUESTION_WAIT_SECONDS", 30.0)  # the host may be under load
    device = loop(GIB)
    path = btrfs_at(device)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    device.resize(8 * MIB)  # every write beyond fails from now on
    (path / "content").write_bytes(os.urandom(MIB))
    with suppress(CommandFailed):
        run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    error = refusal(filesystem.read)
    assert error.cause is Cause.READ_ONLY
    assert f"umount {path} && mount {path}" in error.hint


@pytest.mark.parametrize("name", ["with space", "new\nline", "tab\t#", "back\\slash", "zürich ☃"])
def test_any_path_will_do(
    loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock, name: str
) -> None:
    """Whatever characters a path has, the filesystem is found, read and grown."""
    path = btrfs_at(loop(GIB), at=tmp_path / name)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.add_device(loop(GIB).name, verified=nullcontext)
    assert filesystem.mountpoint == str(path)
    assert len(filesystem.read().devices) == 2


def test_messages_stay_on_one_line(tmp_path: Path, clock: Clock) -> None:
    """A newline in a path does not break the journal."""
    path = tmp_path / "new\nline"
    assert "\n" not in str(refusal(lambda: BtrfsFilesystem(str(path), clock=clock)))


def test_symlinks_are_resolved_once(
    loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock
) -> None:
    """A link to the mountpoint is followed once, at the start."""
    path = btrfs_at(loop(GIB))
    link = tmp_path / "link"
    link.symlink_to(path)
    filesystem = BtrfsFilesystem(f"{link}/", clock=clock)
    link.unlink()
    link.symlink_to("/")
    assert filesystem.read().mountpoint == str(path)


def test_a_bind_mount_of_a_folder_in_it(
    loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock
) -> None:
    """A bind mount of a folder in the filesystem can be used to grow it."""
    inside = btrfs_at(loop(GIB)) / "docker"
    inside.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with mounted("--bind", str(inside), str(elsewhere)):
        filesystem = BtrfsFilesystem(str(elsewhere), clock=clock)
        filesystem.add_device(loop(GIB).name, verified=nullcontext)
        assert filesystem.uuid == BtrfsFilesystem(str(inside.parent), clock=clock).uuid
        assert len(filesystem.read().devices) == 2


def test_a_mounted_subvolume(loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock) -> None:
    """A mounted subvolume can be used to grow the filesystem and to hold the reserve."""
    device = loop(2 * GIB)
    path = btrfs_at(device)
    run(["btrfs", "subvolume", "create", str(path / "docker")], timeout_seconds=60)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with mounted("-t", "btrfs", "-o", "subvol=docker", device.node, str(elsewhere)):
        filesystem = BtrfsFilesystem(str(elsewhere), clock=clock)
        filesystem.keep_reserve(64 * MIB)
        filesystem.add_device(loop(GIB).name, verified=nullcontext)
        assert filesystem.uuid == BtrfsFilesystem(str(path), clock=clock).uuid
        assert filesystem.read().reserve_bytes == 64 * MIB
        assert [entry.name for entry in (path / "docker").iterdir()] == [NAME]


def test_several_mountpoints(loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock) -> None:
    """Of two mountpoints of one filesystem only the configured one counts."""
    device = loop(GIB)
    path = btrfs_at(device)
    second = tmp_path / "second"
    second.mkdir()
    first = BtrfsFilesystem(str(path), clock=clock)
    with mounted("-t", "btrfs", device.node, str(second)):
        other = BtrfsFilesystem(str(second), clock=clock)
        run(["mount", "-o", "remount,bind,ro", str(second)], timeout_seconds=60)
        assert refusal(other.read).cause is Cause.READ_ONLY
        first.read()
        run(["umount", str(path)], timeout_seconds=60)
        assert refusal(first.read).cause is Cause.NOT_MOUNTED
    assert refusal(other.read).cause is Cause.NOT_MOUNTED


def test_another_subvolume_in_its_place(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A mountpoint with another subvolume of the same filesystem is still watched."""
    device = loop(GIB)
    path = btrfs_at(device)
    run(["btrfs", "subvolume", "create", str(path / "next")], timeout_seconds=60)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    run(["umount", str(path)], timeout_seconds=60)
    run(["mount", "-o", "subvol=next", device.node, str(path)], timeout_seconds=60)
    filesystem.add_device(loop(GIB).name, verified=nullcontext)
    assert len(filesystem.read().devices) == 2
