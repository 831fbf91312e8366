"""The emergency reserve replaces no other file, and is available when it is needed."""

import errno
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.chunks import reserve_metadata_bytes
from ebs_autoscale.filesystems.btrfs.reserve import NAME
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.model import Reading
from tests.bench.emergency import KINDS, emergency, fill_metadata
from tests.kernel.fixtures import Btrfs, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3
HELD = 128 * MIB


def fill(path: Path) -> None:
    """Leave no byte for data."""
    with (path / "ballast").open("wb") as file, suppress(OSError):
        for offset in range(0, 16 * GIB, MIB):
            os.posix_fallocate(file.fileno(), offset, MIB)


def verified(device: LoopDevice) -> Callable[[], AbstractContextManager[None]]:
    """The verification that a growth passes to an add."""
    return partial(BlockDevices().verified_blank, device.name, size_bytes=device.size_bytes)


def in_chunks(reading: Reading) -> float:
    """Headroom in the metadata chunks there are, of two copies."""
    unallocated = sum(device.unallocated_bytes for device in reading.devices)
    return reading.metadata_room_bytes - unallocated // 2


def test_is_counted_as_used(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """What is held is not available in any figure, and is reported as held."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    assert "128 MiB" in filesystem.keep_reserve(HELD)
    after = filesystem.read()
    assert (before.reserve_bytes, after.reserve_bytes) == (0, HELD)
    assert after.available_bytes <= before.available_bytes - HELD
    assert filesystem.keep_reserve(HELD) == ""
    status = (path / NAME).stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)


def test_is_observed_not_remembered(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """It is found again after a mount; an incomplete one is completed."""
    device = loop(2 * GIB)
    path = btrfs_at(device)
    BtrfsFilesystem(str(path), clock=clock).keep_reserve(HELD)
    run(["umount", str(path)], timeout_seconds=60)
    run(["mount", device.node, str(path)], timeout_seconds=60)
    later = BtrfsFilesystem(str(path), clock=clock)
    assert later.read().reserve_bytes == HELD
    os.truncate(path / NAME, 0)
    assert later.keep_reserve(HELD)
    assert later.read().reserve_bytes == HELD


def test_is_of_use_to_every_writer(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """It has extents of every size class, since a writer uses only space of its own class."""
    device = loop(2 * GIB)
    path = btrfs_at(device)
    BtrfsFilesystem(str(path), clock=clock).keep_reserve(HELD)
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    argv = ["btrfs", "inspect-internal", "dump-tree", "-t", "5", device.node]
    lengths = re.findall(r"prealloc data disk byte \d+ nr (\d+)", run(argv, timeout_seconds=60))
    sizes = Counter(int(length) for length in lengths)
    assert sizes[64 * 1024] == 1024
    assert sizes[MIB] == 32
    assert sizes[16 * MIB] >= 1


def test_is_released_completely(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """After its release all data and metadata are available at once."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    before = filesystem.read()
    filesystem.keep_reserve(HELD)
    assert filesystem.read().metadata_room_bytes < before.metadata_room_bytes - 7 * MIB
    assert "128 MiB" in filesystem.keep_reserve(0)
    after = filesystem.read()
    assert not list(path.iterdir())
    assert abs(after.available_bytes - before.available_bytes) < 40 * MIB
    assert abs(in_chunks(after) - in_chunks(before)) < MIB
    assert filesystem.keep_reserve(0) == ""


def write_last_metadata(file: Path) -> None:
    """Write what is left after ENOSPC: Linux 6.1 then has space for a few more attributes."""
    for number in range(1000):
        os.setxattr(file, f"user.last-{number}", bytes(12 * 1024))


@pytest.mark.parametrize("full_of", ["data", "metadata"])
def test_is_released_for_an_add_near_enospc(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, full_of: str
) -> None:
    """On a full filesystem an add first makes the reserve available to programs."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.keep_reserve(HELD)
    fill(path)
    if full_of == "metadata":
        os.truncate(path / "ballast", 100 * MIB)
        fill_metadata(path / "ballast")
        with pytest.raises(OSError, match="No space left") as caught:
            write_last_metadata(path / "ballast")
        assert caught.value.errno == errno.ENOSPC
    new = loop(2 * GIB)
    filesystem.add_device(new.name, verified=verified(new))
    reading = filesystem.read()
    assert reading.has_device(new.name)
    assert (reading.reserve_bytes, (path / NAME).exists()) == (0, False)


def test_is_kept_where_space_is_left(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """An add in time does not release the reserve."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.keep_reserve(HELD)
    new = loop(GIB)
    filesystem.add_device(new.name, verified=verified(new))
    assert filesystem.read().reserve_bytes == HELD


def test_what_changes_after_its_verification_is_not_added(
    loop: Loop, btrfs_at: Btrfs, clock: Clock
) -> None:
    """A device that gets content or a claim after its verification is not added."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.keep_reserve(HELD)
    fill(path)
    new = loop(GIB)

    @contextmanager
    def written() -> Iterator[None]:
        with verified(new)():
            Path(new.node).write_bytes(b"precious")
            yield

    with pytest.raises(Transient) as caught:
        filesystem.add_device(new.name, verified=written)
    assert caught.value.cause is Cause.ADD
    assert Path(new.node).read_bytes()[:8] == b"precious"
    other = loop(GIB)
    filesystem.keep_reserve(64 * MIB)

    @contextmanager
    def claimed() -> Iterator[None]:
        with verified(other)():
            fd = os.open(other.node, os.O_RDWR | os.O_EXCL)
            yield
        os.close(fd)

    with pytest.raises(Transient) as caught:
        filesystem.add_device(other.name, verified=claimed)
    assert caught.value.cause is Cause.ADD
    assert len(filesystem.read().devices) == 1


def test_small_leaves(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """The reserve holds metadata in tree nodes of every size."""
    path = btrfs_at(loop(2 * GIB), mkfs=("-n", "4096"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    assert filesystem.keep_reserve(HELD)
    # There are more names than listxattr(2) can return.
    count = reserve_metadata_bytes(HELD) // 4096
    assert os.getxattr(path / NAME, f"trusted.ebs-autoscale.{count - 1}")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path / NAME, f"trusted.ebs-autoscale.{count}")


def test_takes_all_or_nothing(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Without room for it nothing is held and no file is left."""
    path = btrfs_at(loop(GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    fill(path)
    os.truncate(path / "ballast", (path / "ballast").stat().st_size - 64 * MIB)
    with pytest.raises(Transient) as caught:
        filesystem.keep_reserve(HELD)
    assert caught.value.cause is Cause.RESERVE_FAILED
    assert [entry.name for entry in path.iterdir()] == ["ballast"]


# What an unprivileged user does with a name in a folder that everybody may write to.
_AS_NOBODY = """
import fcntl, os, subprocess, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
kind, name = sys.argv[1:]
if kind == "lease":
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
elif kind == "program":
    subprocess.run(["cp", "/bin/sleep", name], check=True)
    child = subprocess.Popen(["./" + name, "60"])
else:
    {"fifo": os.mkfifo, "folder of theirs": os.mkdir}[kind](name)
print("done", flush=True)
sys.stdin.read()
if kind == "program":
    child.kill()
"""


@contextmanager
def occupied(file: Path, other: Path, kind: str) -> Iterator[None]:
    """Let the name be something else's as long as this is entered."""
    if kind not in {"lease", "program", "fifo", "folder of theirs"}:
        occupy(file, other, kind)
        yield
        return
    file.parent.chmod(0o1777)
    argv = [sys.executable, "-c", _AS_NOBODY, kind, file.name]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=file.parent, stdin=pipe, stdout=pipe) as user:
        assert user.stdout
        assert user.stdin
        assert user.stdout.readline() == b"done\n"
        yield
        user.stdin.close()


def occupy(file: Path, other: Path, kind: str) -> None:
    """Give the name to something else."""
    match kind:
        case "content":
            file.write_bytes(b"precious")
        case "link":
            file.symlink_to(other)
        case "folder":
            file.mkdir()
        case "mount":
            file.touch()
            run(["mount", "--bind", str(other), str(file)], timeout_seconds=60)
        case "second name":
            file.touch()
            os.link(file, file.with_name("twin"))
        case _:
            file.touch()
            os.chown(file, 1234, 1234)


@pytest.mark.parametrize(
    "kind",
    [
        "content",
        "link",
        "folder",
        "mount",
        "another owner",
        "lease",
        "program",
        "fifo",
        "folder of theirs",
    ],
)
def test_another_file_of_this_name_is_kept(
    loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock, kind: str
) -> None:
    """Anything else of this name is neither counted nor changed; the operator is told at once."""
    path = btrfs_at(loop(GIB))
    file, other = path / NAME, tmp_path / "other"
    other.write_bytes(b"precious")
    with occupied(file, other, kind):
        before = file.lstat()
        filesystem = BtrfsFilesystem(str(path), clock=clock)
        began = monotonic()
        for size in (HELD, 0):
            with pytest.raises(Unfit) as caught:
                filesystem.keep_reserve(size)
            assert caught.value.cause is Cause.RESERVE
        reading = filesystem.read()
        assert monotonic() - began < 5
        assert (reading.reserve_bytes, NAME in reading.reserve_fault) == (0, True)
        after = file.lstat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert other.read_bytes() == b"precious"


def take_away(file: Path, how: str) -> None:
    """Do to the reserve what is done to everything in a folder."""
    match how:
        case "chown -R":
            run(["chown", "-R", "65534:65534", str(file.parent)], timeout_seconds=60)
        case "chmod -R":
            run(["chmod", "-R", "a+rwX", str(file.parent)], timeout_seconds=60)
        case "find -delete":
            run(["find", str(file.parent), "-mindepth", "1", "-delete"], timeout_seconds=60)
        case "restore":
            # Backups keep names, sizes, owners and modes, but not space without content.
            file.unlink()
            file.touch(mode=0o600)
            os.truncate(file, HELD)
        case "truncate":
            os.truncate(file, 0)
        case "snapshot":
            argv = ["btrfs", "subvolume", "snapshot", str(file.parent), str(file.parent / "copy")]
            run(argv, timeout_seconds=60)
        case _:
            os.link(file, file.with_name("twin"))


@pytest.mark.parametrize(
    "how", ["chown -R", "chmod -R", "find -delete", "restore", "truncate", "snapshot", "cp -al"]
)
def test_is_made_again(loop: Loop, btrfs_at: Btrfs, clock: Clock, how: str) -> None:
    """A reserve that no longer holds space for us is not counted, and is replaced by one."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.keep_reserve(HELD)
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    take_away(path / NAME, how)
    assert filesystem.read().reserve_bytes == 0
    assert filesystem.keep_reserve(HELD)
    again = (path / NAME).stat()
    assert (filesystem.read().reserve_bytes, again.st_uid, again.st_nlink) == (HELD, 0, 1)
    assert stat.S_IMODE(again.st_mode) == 0o600
    assert filesystem.keep_reserve(0)
    # What was left of the old one holds no space either, except in a snapshot.
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    assert sum(each.stat().st_blocks for each in path.iterdir() if each.is_file()) == 0


def test_content_in_a_lost_reserve_is_kept(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """What its new owner has written into it is not ours to delete."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    filesystem.keep_reserve(HELD)
    os.chown(path / NAME, 65534, 65534)
    with (path / NAME).open("r+b") as file:
        file.write(b"precious")
    with pytest.raises(Unfit) as caught:
        filesystem.keep_reserve(HELD)
    assert caught.value.cause is Cause.RESERVE
    assert (path / NAME).read_bytes()[:8] == b"precious"


@pytest.mark.parametrize("kind", KINDS)
def test_writers_that_retry_on_enospc(kind: str) -> None:
    """With the reserve the filesystem is still writable after an add under retrying writers.

    A few times only: `make measure` does hundreds, with the reserve and without.
    """
    for _ in range(2):
        assert emergency(kind, 256 * MIB, GIB).survived
