"""XFS and ext4 grow in place, on the other kernel: root here may lack the right to grow ext4.

Not collected with the other tests; `tests.kernels` runs it.
"""

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.one_device.filesystem import OneDeviceFilesystem
from ebs_autoscale.model import FilesystemKind, Inodes
from tests.kernel.fixtures import FakeClock, Loop
from tests.system.bench import until

pytestmark = pytest.mark.kernel

MIB = 1024**2
SMALL, LARGE = 512 * MIB, 1024 * MIB
XFS, EXT4 = FilesystemKind.XFS, FilesystemKind.EXT4
FSCK = {XFS: ("xfs_repair", "-n"), EXT4: ("e2fsck", "-f", "-n")}
PLACES = pytest.mark.parametrize("partitioned", [False, True], ids=["whole", "partition"])


def tool(*argv: str, stdin: str = "") -> str:
    """What a tool prints; it has to succeed."""
    return subprocess.run(argv, input=stdin, check=True, capture_output=True, text=True).stdout


@dataclass
class Mounted:
    """A filesystem on a loop device, or on the only partition of one."""

    device: LoopDevice
    node: str
    point: Path
    clock: FakeClock
    kind: FilesystemKind

    @property
    def filesystem(self) -> OneDeviceFilesystem:
        """As a new process sees it."""
        return OneDeviceFilesystem(str(self.point), clock=self.clock)

    @property
    def inodes(self) -> Inodes:
        """How many it has, and has left."""
        found = self.filesystem.read().inodes
        assert found is not None
        return found

    def grow(self) -> None:
        """What a growth does once the volume is larger."""
        self.device.resize(LARGE)
        filesystem = self.filesystem
        filesystem.require_growable()
        filesystem.resize_device(self.device.name, tell=lambda _: None)

    def fill(self) -> None:
        """Leave nothing."""
        with (self.point / "full").open("wb") as file:
            for size in (64 * MIB, MIB, 4096):
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)

    def verify(self) -> None:
        """Unmount it, and have its own tool find nothing wrong."""
        tool("umount", str(self.point))
        tool(*FSCK[self.kind], self.node)


class Make(Protocol):
    """The fixture `mounted`."""

    def __call__(self, kind: FilesystemKind, *options: str, partitioned: bool = False) -> Mounted:
        """Make and mount."""


@pytest.fixture
def mounted(loop: Loop, tmp_path: Path, clock: FakeClock) -> Iterator[Make]:
    """Make one of this kind, with these options of mkfs."""
    point = tmp_path / "mounted"
    point.mkdir()

    def make(kind: FilesystemKind, *options: str, partitioned: bool = False) -> Mounted:
        device = loop(SMALL)
        node = device.node
        if partitioned:
            table = f"label: gpt\nstart=2048, size={(SMALL - 2 * MIB) // 512}\n"
            tool("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", node, stdin=table)
            device.show_partitions()
            node += "p1"
        tool(f"mkfs.{kind}", "-q", *options, node)
        tool("mount", node, str(point))
        return Mounted(device, node, point, clock, kind)

    yield make
    subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)


class Writer:
    """Writes blocks, and waits for space where there is none; every other error ends it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "written"
        self._path.touch()  # which also takes space
        self._digest = hashlib.sha256()
        self.is_waiting = Event()
        self.blocks = 0

    def write(self, wanted: int) -> None:
        """Write until this many blocks are on the device."""
        with self._path.open("r+b", buffering=0) as file:
            while self.blocks < wanted:
                block = os.urandom(4096) * 64
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), len(block))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    self.is_waiting.set()
                    continue
                file.write(block)
                self._digest.update(block)
                self.blocks += 1
            os.fsync(file.fileno())

    def verify(self) -> None:
        """Read all of it back."""
        found = hashlib.sha256(self._path.read_bytes()).hexdigest()
        assert found == self._digest.hexdigest()


@PLACES
@pytest.mark.parametrize("kind", [XFS, EXT4])
def test_grows_under_a_writer_at_enospc(
    mounted: Make, kind: FilesystemKind, *, partitioned: bool
) -> None:
    """It goes on without an error, what it wrote is whole, and so is the filesystem."""
    there = mounted(kind, partitioned=partitioned)
    writer = Writer(there.point)
    there.fill()
    assert there.filesystem.read().available_bytes < 2 * MIB
    with ThreadPoolExecutor() as threads:
        writing = threads.submit(writer.write, 40)
        until(writer.is_waiting.is_set, "ENOSPC")
        there.grow()
        writing.result(timeout=120)
    writer.verify()
    (device,) = there.filesystem.read().devices
    assert (device.name, device.capacity_bytes) == (there.device.name, LARGE)
    assert device.unused_bytes == 0
    assert device.size_bytes > LARGE - 4 * MIB
    there.grow()  # done: nothing changes
    there.verify()


def test_inodes_come_back(mounted: Make) -> None:
    """ext4 without a free inode has some after it was extended."""
    there = mounted(EXT4, "-N", "1024")
    total = there.inodes.total
    with suppress(OSError):
        for number in range(total):
            (there.point / str(number)).touch()
    assert there.inodes.available == 0
    there.grow()
    assert there.inodes.total == pytest.approx(2 * total, rel=0.1)
    (there.point / "one more").touch()
    there.verify()


@pytest.mark.parametrize("reaction", ["remount-ro", "continue"])
def test_ext4_with_errors(mounted: Make, reaction: str) -> None:
    """The kernel extends it no more until it was repaired, which is known before EC2 is asked.

    What stops all writes is seen by a reading, although the mount does not show it: since 6.12, and
    since 6.1.113 of the older ones, ext4 sets no flag.
    """
    there = mounted(EXT4, "-e", reaction)
    filesystem = there.filesystem
    Path(f"/sys/fs/ext4/{there.device.name}/trigger_fs_error").write_text("1", "ascii")
    if reaction == "remount-ro":
        with pytest.raises(Unfit) as caught:
            filesystem.read()
        assert caught.value.cause is Cause.READ_ONLY
    else:
        filesystem.read()
        with pytest.raises(Unfit, match="e2fsck"):
            filesystem.require_growable()
    tool("umount", str(there.point))
    subprocess.run(["e2fsck", "-f", "-y", there.node], check=False, capture_output=True)
    tool("mount", there.node, str(there.point))
    there.grow()
    there.verify()


@pytest.mark.parametrize(
    "options",
    [
        ("-O", "^resize_inode"),
        ("-O", "^64bit,^resize_inode"),
        ("-O", "^flex_bg"),
        ("-O", "bigalloc"),
        ("-b", "1024"),
    ],
    ids=" ".join,
)
def test_kinds_of_ext4(mounted: Make, options: tuple[str, ...]) -> None:
    """Also those without reserved descriptors can be extended."""
    there = mounted(EXT4, *options)
    there.grow()
    assert there.filesystem.read().devices[0].unused_bytes == 0
    there.verify()


def test_ext4_that_cannot_be_extended(mounted: Make) -> None:
    """That the kernel cannot extend it is known before EC2 is asked."""
    there = mounted(EXT4, "-O", "sparse_super2,^resize_inode")
    with pytest.raises(Unfit, match="sparse_super2"):
        there.filesystem.require_growable()


def test_a_quota_of_the_whole_filesystem(mounted: Make) -> None:
    """The figures of statfs(2) are then those of the quota: they are not taken for a size."""
    place = mounted(XFS)
    tool("umount", str(place.point))
    tool("mount", "-o", "prjquota", place.node, str(place.point))
    filesystem = place.filesystem
    before = filesystem.read().size_bytes
    tool("xfs_io", "-c", "chattr +P", "-c", "chproj 42", str(place.point))
    assert filesystem.read().size_bytes == before, "a project without a limit is no harm"
    tool("xfs_quota", "-x", "-f", "-c", "limit -p bhard=100m 42", str(place.point))
    with pytest.raises(Unfit, match="quota") as refused:
        filesystem.read()
    assert refused.value.cause is Cause.NOT_GROWABLE
    tool("xfs_io", "-c", "chattr -P", str(place.point))
    assert filesystem.read().size_bytes == before
