"""XFS and ext4: what a reading says, what is refused, and the growth of a filesystem in use."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.daemon.await_mount import MountWaiter
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.filesystems.one_device.filesystem import (
    Clock,
    OneDeviceFilesystem,
    require_resizable,
)
from ebs_autoscale.filesystems.one_device.mount import OneDeviceMount, superblock_of
from ebs_autoscale.host.command import Question, run
from ebs_autoscale.host.fstab import line_for
from ebs_autoscale.model import FilesystemKind, Inodes
from ebs_autoscale.policy import Forecast, GrowthPolicy, shortage_of
from ebs_autoscale.telemetry import View
from ebs_autoscale.wiring import devices_despite, mounted_at
from tests.kernel.fixtures import Loop
from tests.kernel.one_device import (
    KINDS,
    MIB,
    SIZE_BYTES,
    growable_kinds,
    make,
    mounted,
    partitioned,
)
from tests.simulated.clock import SimulatedClock
from tests.system.bench import until

pytestmark = pytest.mark.kernel

each_kind = pytest.mark.parametrize("kind", KINDS)
each_growable_kind = pytest.mark.parametrize("kind", growable_kinds())


def cause_of(look: Callable[[], object]) -> Cause:
    """Why there is no reading; what to do about it is told, too."""
    with pytest.raises(EbsAutoscaleError) as caught:
        look()
    assert caught.value.hint
    return caught.value.cause


@each_kind
def test_reads_what_programs_can_write(
    loop: Loop, tmp_path: Path, clock: Clock, kind: FilesystemKind
) -> None:
    """What is written counts at once, whether it is on the device or not."""
    device = loop(SIZE_BYTES)
    uuid = make(kind, device.node)
    with mounted(device.node, tmp_path / "data") as path:
        filesystem = OneDeviceFilesystem(str(path), clock=clock)
        before = filesystem.read()
        assert (before.filesystem, before.kind) == (uuid, kind)
        assert before.metadata_headroom_bytes is None
        # Without it a burst that the page cache takes would be forecast to go on.
        assert 0 < before.cache_bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        [seen] = before.devices
        assert (seen.name, seen.partition, seen.missing) == (device.name, "", False)
        assert seen.size_bytes == seen.capacity_bytes == SIZE_BYTES
        assert seen.unused_bytes == 0

        (path / "written").write_bytes(bytes(64 * MIB))
        after = filesystem.read()
        assert before.available_bytes - after.available_bytes >= 64 * MIB
        assert after.used_bytes - before.used_bytes >= 64 * MIB
        assert before.inodes
        assert after.inodes == Inodes(
            total=before.inodes.total, available=before.inodes.available - 1
        )
        device.resize(2 * SIZE_BYTES)
        assert filesystem.read().devices[0].unused_bytes == SIZE_BYTES


@each_kind
def test_another_mount_in_its_place(loop: Loop, tmp_path: Path, kind: FilesystemKind) -> None:
    """Whatever is mounted there instead, nothing is read of it; the same one again is read."""
    device, other = loop(SIZE_BYTES), loop(SIZE_BYTES)
    make(kind, device.node)
    make(kind, other.node)
    point = tmp_path / "data"
    with mounted(device.node, point):
        filesystem = mounted_at(str(point), SystemClock())
        with mounted("tmpfs", point, "-t", "tmpfs"):
            assert cause_of(filesystem.read) is Cause.NOT_BTRFS
            assert cause_of(lambda: mounted_at(str(point), SystemClock())) is Cause.NOT_BTRFS
        with mounted(other.node, point):
            assert cause_of(filesystem.read) is Cause.OTHER_FILESYSTEM
        assert filesystem.read()
        with mounted("tmpfs", tmp_path, "-t", "tmpfs"):
            assert cause_of(filesystem.read) is Cause.MISSING
            point.mkdir()
            assert cause_of(filesystem.read) is Cause.OTHER_FILESYSTEM
        folder = point / "folder"
        folder.mkdir()
        with mounted(str(folder), point, "--bind"):
            assert cause_of(filesystem.read) is Cause.OTHER_FILESYSTEM
        run(["umount", str(point)], timeout_seconds=60)
        assert cause_of(filesystem.read) is Cause.NOT_MOUNTED
        run(["mount", device.node, str(point)], timeout_seconds=60)
        assert filesystem.read()


def shut_down(_name: str, point: Path) -> None:
    """Shut the filesystem down."""
    run(["xfs_io", "-x", "-c", "shutdown", str(point)], timeout_seconds=60)


def fail_ext4(name: str, point: Path) -> None:
    """Have the kernel find an error, as it is mounted with errors=remount-ro."""
    run(["mount", "-o", "remount,errors=remount-ro", str(point)], timeout_seconds=60)
    Path("/sys/fs/ext4", name, "trigger_fs_error").write_text("for a test", "ascii")


@pytest.mark.parametrize(
    ("kind", "fail"), [("xfs", shut_down), ("ext4", shut_down), ("ext4", fail_ext4)]
)
def test_stopped_by_an_error(
    loop: Loop, tmp_path: Path, clock: Clock, kind: str, fail: Callable[[str, Path], None]
) -> None:
    """The kernel takes no more writes: there is no reading, also for one who looks anew."""
    device = loop(SIZE_BYTES)
    make(kind, device.node)
    with mounted(device.node, tmp_path / "data") as point:
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
        fail(device.name, point)
        with pytest.raises(OSError, match=r"Read-only|Input/output") as written:
            (point / "file").touch()
        assert written.value.errno in {errno.EROFS, errno.EIO}
        assert cause_of(filesystem.read) is Cause.READ_ONLY
        assert cause_of(lambda: OneDeviceFilesystem(str(point), clock=clock)) is Cause.READ_ONLY


@each_kind
def test_mounted_read_only(loop: Loop, tmp_path: Path, clock: Clock, kind: FilesystemKind) -> None:
    """There is no reading, but its device is known."""
    device = loop(SIZE_BYTES)
    make(kind, device.node)
    with mounted(device.node, tmp_path / "data") as point:
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
        run(["mount", "-o", "remount,ro", str(point)], timeout_seconds=60)
        with pytest.raises(EbsAutoscaleError) as caught:
            filesystem.read()
        assert caught.value.cause is Cause.READ_ONLY
        assert [each.name for each in filesystem.devices()] == [device.name]
        assert devices_despite(caught.value, str(point)) == filesystem.devices()


@each_kind
def test_a_device_that_shrank_or_went(
    loop: Loop, tmp_path: Path, clock: Clock, kind: FilesystemKind
) -> None:
    """A device that is smaller than the filesystem is missing, and comes back."""
    device = loop(SIZE_BYTES)
    make(kind, device.node)
    with mounted(device.node, tmp_path / "data") as point:
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
        device.resize(SIZE_BYTES - 64 * MIB)
        assert filesystem.read().devices[0].missing
        device.resize(SIZE_BYTES)
        assert not filesystem.read().devices[0].missing


def test_a_copy_in_its_place(loop: Loop, tmp_path: Path, clock: Clock) -> None:
    """With the UUID, but on another device while the right one is there; not once it has gone."""
    device, copy = loop(SIZE_BYTES), loop(SIZE_BYTES)
    uuid = make("ext4", device.node)
    make("ext4", copy.node, "-U", uuid)
    point = tmp_path / "data"
    with mounted(device.node, point):
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
    with mounted(copy.node, point):
        assert cause_of(filesystem.read) is Cause.COPY
        make("xfs", device.node)
        assert [each.name for each in filesystem.read().devices] == [copy.name]


def test_errors_prevent_a_growth(loop: Loop, tmp_path: Path, clock: Clock) -> None:
    """The kernel does not extend an ext4 with errors: that is known before."""
    device = loop(SIZE_BYTES)
    make("ext4", device.node)
    with mounted(device.node, tmp_path / "data") as point:
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
        require_resizable(superblock_of(device.name, wait_seconds=60), device.name, str(point))
        Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("for a test", "ascii")
        assert filesystem.read()
        found = superblock_of(device.name, wait_seconds=60)
        cause = cause_of(lambda: require_resizable(found, device.name, str(point)))
        assert cause is Cause.NOT_GROWABLE


@each_growable_kind
@pytest.mark.parametrize("on_partition", [False, True])
def test_grows_while_it_is_full(
    loop: Loop, tmp_path: Path, clock: Clock, kind: FilesystemKind, *, on_partition: bool
) -> None:
    """To the end of its device, also of a partition that has to be extended before; once."""
    device = loop(SIZE_BYTES)
    node = partitioned(device.name, SIZE_BYTES // MIB - 8) if on_partition else device.node
    uuid = make(kind, node)
    with mounted(node, tmp_path / "data") as point:
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
        filesystem.require_growable()
        with filled(point) as content:
            before = filesystem.read()
            assert before.devices[0].unused_bytes == 0
            device.resize(2 * SIZE_BYTES)
            for _ in range(2):
                filesystem.resize_device(device.name, tell=lambda _: None)
                after = filesystem.read()
                [seen] = after.devices
                assert (seen.name, seen.unused_bytes) == (device.name, 0)
                assert seen.partition == (Path(node).name if on_partition else "")
                assert after.size_bytes >= before.size_bytes + SIZE_BYTES * 3 // 4
            assert after.filesystem == uuid
            content.write(bytes(MIB))
    check = ["xfs_repair", "-n", node] if kind is FilesystemKind.XFS else ["e2fsck", "-fn", node]
    run(check, timeout_seconds=60)


def test_xfs_has_no_inodes_left_before_space(loop: Loop, tmp_path: Path, clock: Clock) -> None:
    """It has a share of its blocks for them at most, and more with a growth."""
    device = loop(SIZE_BYTES)
    make("xfs", device.node, "-i", "maxpct=1")
    with mounted(device.node, tmp_path / "data") as point:
        filesystem = OneDeviceFilesystem(str(point), clock=clock)
        links = (point / f"{number}" for number in range(20_000))
        with suppress(OSError):
            for link in links:
                link.symlink_to("nowhere")
        with pytest.raises(OSError, match="No space left"):
            next(links).symlink_to("nowhere")
        before = filesystem.read()
        assert before.available_percent > 50
        assert before.inodes
        assert before.inodes.available < before.inodes.total / 20
        assert shortage_of(before, GrowthPolicy(), Forecast())
        device.resize(2 * SIZE_BYTES)
        filesystem.resize_device(device.name, tell=lambda _: None)
        after = filesystem.read()
        assert after.inodes
        assert after.inodes.total == pytest.approx(2 * before.inodes.total, rel=0.01)
        assert after.inodes.available > before.inodes.total * 0.9
        next(links).symlink_to("nowhere")


def test_a_killed_look_at_the_superblock_is_repeated(loop: Loop, tmp_path: Path) -> None:
    """Else ext4 would not be known to have grown, and to use all of its device."""
    device = loop(SIZE_BYTES)
    make("ext4", device.node)
    with mounted(device.node, tmp_path / "data") as point:
        mount = OneDeviceMount(str(point))
        assert mount.superblock
        first, blocks = mount.superblock, os.statvfs(point).f_blocks
        killer = f"import os, signal; os.kill(os.getpid(), signal.{signal.SIGKILL.name})"
        mount._asking = Question([sys.executable, "-c", killer])  # noqa: SLF001 -- a kill in time

        def is_read_again() -> bool:
            mount.follow(blocks)
            return mount.superblock is not first

        until(is_read_again, "the superblock is read again")
        assert mount.superblock == first


def test_xfs_may_have_no_limit_of_inodes(loop: Loop, tmp_path: Path, clock: Clock) -> None:
    """Then they take the space that data does."""
    device = loop(SIZE_BYTES)
    make("xfs", device.node)
    with mounted(device.node, tmp_path / "data") as point:
        run(["xfs_growfs", "-m", "0", str(point)], timeout_seconds=60)
        assert OneDeviceFilesystem(str(point), clock=clock).read().inodes is None


@contextmanager
def fstab_of(line: str, folder: Path) -> Iterator[None]:
    """An fstab with this line only, for as long as this is entered."""
    mine = folder / "fstab"
    mine.write_text(f"{line}\n", "utf-8")
    run(["mount", "--bind", str(mine), "/etc/fstab"], timeout_seconds=60)
    try:
        yield
    finally:
        run(["umount", "/etc/fstab"], timeout_seconds=60)


def test_is_mounted_at_boot_but_never_beside_a_copy(loop: Loop, tmp_path: Path) -> None:
    """`run --wait` mounts an ext4 as fstab says, once it is the only one with its UUID."""
    clock, point = SimulatedClock(), tmp_path / "data"
    point.mkdir()
    uuid, copy = str(uuid4()), loop(SIZE_BYTES)
    waiter = MountWaiter(
        str(point),
        config_path=tmp_path / "config.yaml",
        clock=clock,
        emit=lambda _event: None,
        stopping=lambda: False,
    )

    def look() -> View | None:
        clock.sleep(60)
        return waiter.advance(lambda: mounted_at(str(point), SystemClock()))

    with fstab_of(line_for(uuid, str(point), kind="ext4"), tmp_path):
        device = loop(SIZE_BYTES)
        make("ext4", device.node, "-U", uuid)
        make("ext4", copy.node, "-U", uuid)
        seen = look()
        assert seen
        assert seen.has_condition(Cause.COPY)
        assert not point.is_mount()
        make("ext4", copy.node)
        assert look()
        assert point.is_mount()
        assert look() is None
        run(["umount", str(point)], timeout_seconds=60)


@contextmanager
def filled(point: Path) -> Iterator[io.FileIO]:
    """A file that has all the space that programs get."""
    with (point / "ballast").open("wb", buffering=0) as file:
        with suppress(OSError):
            for offset in range(0, 2 * SIZE_BYTES, MIB):
                os.posix_fallocate(file.fileno(), offset, MIB)
        file.seek(0, os.SEEK_END)
        yield file
