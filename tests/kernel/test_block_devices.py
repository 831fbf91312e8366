"""A device is used only when it was verified to be blank, which changes nothing on it."""

import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
from ec2_sandbox.devices.failing import DeviceFault, FailingDevice
from ec2_sandbox.devices.loop import LoopDevice, attach

from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.host import blank
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.model import GrowthId, Volume
from tests.kernel.fixtures import Loop
from tests.signatures import SIGNATURES, digest, write

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3
SIZE_BYTES = 320 * MIB  # the least that mkfs.xfs takes, and beyond 64 MiB
BLKROSET = 0x125D


def refusal(device: LoopDevice) -> Unfit:
    """Why it is not blank; finding out changes nothing on it."""
    before = digest(device)
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)
    assert digest(device) == before
    assert caught.value.what.startswith(device.name)
    assert caught.value.hint
    return caught.value


@contextmanager
def by_id_link(volume: str, target: str) -> Iterator[None]:
    """The link that udev makes for a volume."""
    link = Path(f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}")
    link.symlink_to(target)
    try:
        yield
    finally:
        link.unlink()


def volume(*, size_bytes: int, attachment_state: str = "attached", device_name: str = "") -> Volume:
    """An attached volume of ours."""
    return Volume(
        id="vol-0123abcd",
        growth=GrowthId("6a92", 1),
        size_bytes=size_bytes,
        state="in-use",
        attached_to="i-1",
        attachment_state=attachment_state,
        device_name=device_name,
    )


def test_a_blank_device_passes(loop: Loop) -> None:
    """A device of zeroes and of the right size is blank, and remains so."""
    device = loop(SIZE_BYTES)
    BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES)
    assert device.stored_bytes == 0


@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_signature_is_refused_by_name(loop: Loop, kind: str) -> None:
    """What blkid recognises is named and not changed."""
    device = loop(SIZE_BYTES)
    SIGNATURES[kind](device)
    error = refusal(device)
    assert (error.cause, kind in error.what) == (Cause.NOT_BLANK, True)


@pytest.mark.parametrize("offset", [0, 3 * MIB, 64 * MIB + 1000, SIZE_BYTES - 1])
def test_content_without_a_signature_is_refused(loop: Loop, offset: int) -> None:
    """A single byte where filesystems keep their headers is enough."""
    device = loop(SIZE_BYTES)
    write(device, offset, b"x")
    assert refusal(device).cause is Cause.NOT_BLANK


def test_another_size_is_another_device(loop: Loop) -> None:
    """A device must have the size of its volume, to the byte."""
    device = loop(SIZE_BYTES)
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES + 512)
    assert caught.value.cause is Cause.SIZE


def test_a_device_in_use_is_refused(loop: Loop, tmp_path: Path) -> None:
    """A device that is mounted or claimed is refused."""
    device = loop(SIZE_BYTES)
    claim = os.open(device.node, os.O_RDWR | os.O_EXCL)
    try:
        assert refusal(device).cause is Cause.CLAIMED
    finally:
        os.close(claim)
    run(["mkfs.ext4", "-q", device.node], timeout_seconds=60)
    run(["mount", "-o", "ro", device.node, str(tmp_path)], timeout_seconds=60)
    try:
        error = refusal(device)
        assert (error.cause, str(tmp_path) in error.what) == (Cause.IN_USE, True)
    finally:
        run(["umount", str(tmp_path)], timeout_seconds=60)


def test_a_device_below_another_is_refused(loop: Loop, tmp_path: Path) -> None:
    """The backing device of another, or a device of a mounted BTRFS, is in use."""
    beneath, device = loop(SIZE_BYTES), loop(SIZE_BYTES)
    file_fd = os.open(beneath.node, os.O_RDWR | os.O_CLOEXEC)
    name, device_fd = attach(file_fd)
    with LoopDevice(name, device_fd=device_fd, file_fd=file_fd):
        error = refusal(beneath)
        assert (error.cause, name in error.what) == (Cause.IN_USE, True)
    run(["mkfs.btrfs", "--quiet", device.node], timeout_seconds=60)
    run(["mount", "-t", "btrfs", device.node, str(tmp_path)], timeout_seconds=60)
    try:
        assert refusal(device).cause is Cause.IN_USE
    finally:
        run(["umount", str(tmp_path)], timeout_seconds=60)


def test_a_read_only_device_is_refused(loop: Loop) -> None:
    """A device that cannot be written to is refused before anything is tried."""
    device = loop(SIZE_BYTES)
    with Path(device.node).open("rb") as node:
        fcntl.ioctl(node, BLKROSET, struct.pack("i", 1))
        try:
            assert refusal(device).cause is Cause.DEVICE
        finally:
            fcntl.ioctl(node, BLKROSET, struct.pack("i", 0))


def test_what_is_no_device(tmp_path: Path) -> None:
    """A name without a block device is refused, and none is created."""
    (tmp_path / "block" / "loop0").mkdir(parents=True)
    elsewhere = BlockDevices(sysfs=tmp_path, dev=tmp_path)
    for devices, name in (
        (BlockDevices(), "nvme9n1"),
        (BlockDevices(), "null"),
        (elsewhere, "loop0"),
    ):
        with pytest.raises(Unfit) as caught:
            devices.require_blank(name, size_bytes=GIB)
        assert caught.value.cause is Cause.DEVICE


def test_a_device_that_cannot_be_read_is_worth_another_try(loop: Loop) -> None:
    """A device with I/O errors is tried again later."""
    device, size_bytes = loop(SIZE_BYTES), SIZE_BYTES
    node = Path(device.node)
    status = node.stat()
    node.unlink()
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(7, 4095))
    try:
        with pytest.raises((Transient, Unfit)):
            BlockDevices().require_blank(device.name, size_bytes=size_bytes)
    finally:
        node.unlink()
        os.mknod(node, status.st_mode, status.st_rdev)


def test_found_by_its_link(loop: Loop) -> None:
    """The by-id link leads to the block device of an attached volume, if the size is right."""
    device, nodes = loop(SIZE_BYTES), BlockDevices()
    assert nodes.node_of(volume(size_bytes=SIZE_BYTES)) == ""
    with by_id_link("vol-0123abcd", f"../../{device.name}"):
        assert nodes.node_of(volume(size_bytes=SIZE_BYTES)) == device.name
        assert nodes.node_of(volume(size_bytes=SIZE_BYTES, attachment_state="detaching")) == ""
        assert nodes.node_of(volume(size_bytes=GIB)) == ""


def test_found_by_its_requested_name(loop: Loop) -> None:
    """Without serial and link the requested name counts, under either of its spellings."""
    device, nodes = loop(SIZE_BYTES), BlockDevices()
    wanted = volume(size_bytes=SIZE_BYTES, device_name="/dev/xvdba")
    assert nodes.node_of(wanted) == ""
    for alias in ("xvdba", "sdba"):
        link = Path("/dev", alias)
        link.symlink_to(device.name)
        assert nodes.node_of(wanted) == device.name
        assert nodes.names_present() == {f"/dev/{alias}"}
        link.unlink()


# A process that hangs in the kernel is left behind.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_does_not_respond_is_not_read(
    failing_loop: Callable[[int], FailingDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finds out: a read of our own would keep us in the kernel for good."""
    monkeypatch.setattr(blank, "_BLKID_TIMEOUT_SECONDS", 0.5)
    device = failing_loop(64 * MIB)
    device.fail(DeviceFault.READS_HANG)
    rescue = Timer(5, device.fail, [DeviceFault.NONE])
    rescue.start()
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)
    rescue.cancel()
    assert caught.value.cause is Cause.DEVICE_UNREADABLE
