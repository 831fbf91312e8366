"""A device that is not blank is never added, wherever the trace of its content lies."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from tests.signatures import digest, md, write

pytestmark = pytest.mark.kernel

KIB = 1024
MIB = 1024**2
GIB = 1024**3
SIZE_BYTES = 128 * MIB  # beyond the first copy at 64 MiB
Loop = Callable[[int], LoopDevice]


class Btrfs(Protocol):
    """The `btrfs_at` fixture."""

    def __call__(self, *devices: LoopDevice) -> Path:
        """Make and mount."""


def refused(filesystem: BtrfsFilesystem, device: LoopDevice) -> Unfit:
    """Why a growth does not add it; the attempt changes neither side."""
    before, devices = digest(device), filesystem.read().devices
    proof = partial(BlockDevices().verified_blank, device.name, size_bytes=device.size_bytes)
    with pytest.raises(Unfit) as caught:
        filesystem.add_device(device.name, verified=proof)
    assert digest(device) == before
    assert filesystem.read().devices == devices
    assert caught.value.what.startswith(device.name)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def filesystem(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> BtrfsFilesystem:
    """The filesystem that is to grow."""
    return BtrfsFilesystem(str(btrfs_at(loop(SIZE_BYTES))), clock=clock)


def test_an_array_is_known_by_its_end(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """What keeps its superblock at the end of the device is found there, and refused."""
    device, place = loop(SIZE_BYTES), SIZE_BYTES - 8 * KIB
    write(device, place, md(place))
    error = refused(filesystem, device)
    assert (error.cause, "carries linux_raid_member" in error.what) == (Cause.NOT_BLANK, True)


def test_a_last_copy_of_a_superblock_is_content(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A BTRFS of which only the copy at 64 MiB is left could still be saved, so it is kept."""
    device = loop(SIZE_BYTES)
    run(["mkfs.btrfs", "--quiet", device.node], timeout_seconds=60)
    content = Path(device.node).read_bytes()[64 * MIB : 64 * MIB + 4 * KIB]
    write(device, 0, bytes(SIZE_BYTES))
    write(device, 64 * MIB, content)
    assert f"content at {64 * MIB} bytes" in refused(filesystem, device).what


def test_the_copy_on_large_devices(loop: Loop) -> None:
    """On devices beyond 256 GiB the third copy of a superblock is looked for too."""
    device = loop(260 * GIB)
    BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)
    write(device, 256 * GIB + KIB, b"x")
    with pytest.raises(Unfit, match=f"content at {256 * GIB} bytes"):
        BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)


def test_a_member_of_another_filesystem(
    filesystem: BtrfsFilesystem, loop: Loop, btrfs_at: Btrfs
) -> None:
    """What belongs to another BTRFS is named with it while it is mounted, and after."""
    device = loop(SIZE_BYTES)
    path = btrfs_at(device)
    other = run(["findmnt", "-n", "-o", "UUID", str(path)], timeout_seconds=60).strip()
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES)
    assert caught.value.cause is Cause.IN_USE
    run(["umount", str(path)], timeout_seconds=60)
    assert f"btrfs, UUID {other}" in refused(filesystem, device).what


def test_a_copy_of_a_member(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A clone or a restored snapshot of a device is no device, is named as such, and is kept."""
    device = Path(f"/dev/{filesystem.read().devices[0].name}")
    run(["btrfs", "filesystem", "sync", filesystem.mountpoint], timeout_seconds=60)
    copy = loop(SIZE_BYTES)
    write(copy, 0, device.read_bytes())
    error = refused(filesystem, copy)
    assert "the kernel does not list it" in error.what
    assert (error.cause, f"wipefs --all {copy.node}" in error.hint) == (Cause.NOT_BLANK, True)


def test_the_name_stays_with_the_proof(loop: Loop) -> None:
    """As long as the proof is held nobody else's device gets the name, whoever lets go of it."""
    device = loop(SIZE_BYTES)
    with BlockDevices().verified_blank(device.name, size_bytes=SIZE_BYTES):
        device.close()
        others = {loop(MIB).name for _ in range(3)}
        assert device.name not in others
