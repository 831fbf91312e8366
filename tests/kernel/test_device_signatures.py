"""A device that is not blank is never added, wherever its content is."""

from functools import partial
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from tests.kernel.fixtures import Btrfs, Loop
from tests.signatures import digest, md, write

pytestmark = pytest.mark.kernel

KIB = 1024
MIB = 1024**2
GIB = 1024**3
SIZE_BYTES = 128 * MIB  # beyond the first copy at 64 MiB

VOLUME = "vol-0123abcd"


def refused(filesystem: BtrfsFilesystem, device: LoopDevice) -> Unfit:
    """Why a growth does not add it; the attempt changes neither side."""
    before, devices = digest(device), filesystem.read().devices
    verified = partial(
        BlockDevices().verified_blank,
        device.name,
        size_bytes=device.size_bytes,
        volume_id=VOLUME,
    )
    with pytest.raises(Unfit) as caught:
        filesystem.add_device(device.name, verified=verified)
    assert digest(device) == before
    assert filesystem.read().devices == devices
    assert device.name in caught.value.what
    assert caught.value.hint
    return caught.value


@pytest.fixture
def filesystem(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> BtrfsFilesystem:
    """The filesystem that is to grow."""
    return BtrfsFilesystem(str(btrfs_at(loop(SIZE_BYTES))), clock=clock)


def test_an_array_is_known_by_its_end(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A superblock at the end of the device is found, and the device refused by its volume's id."""
    device, place = loop(SIZE_BYTES), SIZE_BYTES - 8 * KIB
    write(device, place, md(place))
    error = refused(filesystem, device)
    assert (error.cause, "linux_raid_member" in error.what) == (Cause.NOT_BLANK, True)
    assert VOLUME in error.what


def test_a_last_copy_of_a_superblock_is_content(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A BTRFS of which only the copy at 64 MiB is left can be restored, so it is refused."""
    device = loop(SIZE_BYTES)
    run(["mkfs.btrfs", "--quiet", device.node], timeout_seconds=60)
    content = Path(device.node).read_bytes()[64 * MIB : 64 * MIB + 4 * KIB]
    write(device, 0, bytes(SIZE_BYTES))
    write(device, 64 * MIB, content)
    assert str(64 * MIB) in refused(filesystem, device).what


def test_the_copy_on_large_devices(loop: Loop) -> None:
    """On devices of more than 256 GiB the third copy of a superblock is found as well."""
    device = loop(260 * GIB)
    BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)
    write(device, 256 * GIB + KIB, b"x")
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)
    assert caught.value.cause is Cause.NOT_BLANK
    assert str(256 * GIB) in caught.value.what


def test_a_device_of_another_filesystem(
    filesystem: BtrfsFilesystem, loop: Loop, btrfs_at: Btrfs
) -> None:
    """A device of another BTRFS is refused while that is mounted, and afterwards."""
    device = loop(SIZE_BYTES)
    path = btrfs_at(device)
    other = run(["findmnt", "-n", "-o", "UUID", str(path)], timeout_seconds=60).strip()
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES)
    assert caught.value.cause is Cause.IN_USE
    run(["umount", str(path)], timeout_seconds=60)
    assert other in refused(filesystem, device).what


def test_a_copy_of_a_device(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A clone or a restored snapshot of a device is refused and kept."""
    device = Path(f"/dev/{filesystem.read().devices[0].name}")
    run(["btrfs", "filesystem", "sync", filesystem.mountpoint], timeout_seconds=60)
    copy = loop(SIZE_BYTES)
    write(copy, 0, device.read_bytes())
    error = refused(filesystem, copy)
    assert (error.cause, f"wipefs --all {copy.node}" in error.hint) == (Cause.NOT_BLANK, True)


def test_a_verified_device_keeps_its_name(loop: Loop) -> None:
    """As long as the verification is held no other device gets the name."""
    device = loop(SIZE_BYTES)
    with BlockDevices().verified_blank(device.name, size_bytes=SIZE_BYTES):
        device.close()
        others = {loop(MIB).name for _ in range(3)}
        assert device.name not in others
