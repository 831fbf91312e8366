"""The block device of a modified volume grows, and what is on it stays."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ec2_sandbox.devices.failing import DeviceFault
from ec2_sandbox.faults import FaultKind, FaultRule

from tests.sandbox.conftest import Rig, Start, eventually

pytestmark = pytest.mark.kernel

GIB = 1024**3


def node(rig: Rig, volume_id: str) -> str:
    """The path of the device of an attached volume."""
    return f"/dev/{rig.seen(volume_id).node}"


def size_gib(rig: Rig, volume_id: str) -> float:
    """The size that the kernel reports."""
    with Path(node(rig, volume_id)).open("rb") as device:
        return device.seek(0, os.SEEK_END) / GIB


def detached(rig: Rig, volume_id: str) -> str:
    """The same volume, available."""
    rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(1)
    return volume_id


@contextmanager
def mounted(path: Path, device: str) -> Iterator[Path]:
    """A new BTRFS."""
    subprocess.run(["mkfs.btrfs", "--quiet", device], check=True)
    path.mkdir()
    subprocess.run(["mount", device, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_mounted_filesystem_can_take_the_new_size(start: Start, tmp_path: Path) -> None:
    """Not before `optimizing` and the growth of the device; then the kernel knows the new size."""
    rig = start(
        block_devices="nitro",
        modify_seconds=(2, 2),
        growth_seconds=(5, 5),
        optimize_seconds=(86400, 86400),
    )
    volume_id = rig.attached(Size=1)
    with mounted(tmp_path / "mount", node(rig, volume_id)) as path:
        (path / "file").write_text("data")
        rig.ec2.modify_volume(VolumeId=volume_id, Size=3)
        for seconds, state, size in (
            (0, "modifying", 1),
            (2, "optimizing", 1),
            (4, "optimizing", 1),
            (1, "optimizing", 3),
        ):
            rig.control.advance(seconds)
            assert (rig.seen(volume_id).modification, size_gib(rig, volume_id)) == (state, size)
        subprocess.run(
            ["btrfs", "filesystem", "resize", "1:max", path], check=True, stdout=subprocess.DEVNULL
        )
        about = os.statvfs(path)
        assert about.f_blocks * about.f_frsize == 3 * GIB
        assert (path / "file").read_text() == "data"


def test_a_device_may_grow_only_when_it_is_attached_again(start: Start) -> None:
    """As on old instance types; volumes that are not attached grow unseen; all keep their data."""
    rig = start(block_devices="nitro")
    rig.control.add_fault(FaultRule(kind=FaultKind.GHOST, action="ModifyVolume", times=1))
    volume_id = rig.attached(Size=1)
    Path(node(rig, volume_id)).write_bytes(b"data")
    rig.ec2.modify_volume(VolumeId=volume_id, Size=2)
    rig.control.advance(1)
    assert (rig.seen(volume_id).size_gib, size_gib(rig, volume_id)) == (2, 1)
    rig.attach(detached(rig, volume_id))
    rig.control.advance(1)
    assert size_gib(rig, volume_id) == 2
    rig.ec2.modify_volume(VolumeId=detached(rig, volume_id), Size=3)
    rig.control.advance(1)
    rig.attach(volume_id)
    rig.control.advance(1)
    assert size_gib(rig, volume_id) == 3
    with Path(node(rig, volume_id)).open("rb") as device:
        assert device.read(4) == b"data"


def test_a_volume_grows_before_its_first_attachment(start: Start) -> None:
    """A volume restored from a snapshot has its content, and zeros beyond."""
    rig = start(block_devices="nitro")
    volume_id = rig.control.put_volume(1, tags={}, content={0: b"somebody's"})
    rig.control.advance(1)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=2)
    rig.control.advance(1)
    rig.attach(volume_id)
    rig.control.advance(1)
    assert size_gib(rig, volume_id) == 2
    with Path(node(rig, volume_id)).open("rb") as device:
        assert device.read(11) == b"somebody's\0"


def test_a_device_grows_as_a_test_wants(start: Start) -> None:
    """Before EC2 says so, to another size, in steps; never back."""
    rig = start(block_devices="nitro")
    rig.control.add_fault(FaultRule(kind=FaultKind.STUCK, action="ModifyVolume"))
    volume_id = rig.attached(Size=1)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=4)
    for asked, size in ((2, 2), (3, 3), (1, 3)):
        rig.control.grow_device(volume_id, asked * GIB)
        assert size_gib(rig, volume_id) == size
    assert (rig.seen(volume_id).size_gib, rig.seen(volume_id).modification) == (1, "modifying")


def test_partitions_appear_with_their_device(start: Start) -> None:
    """They are where the kernel of a real host has them, and go when the volume does."""
    rig = start(block_devices="nitro")
    volume_id = rig.attached(Size=1)
    argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", node(rig, volume_id)]
    subprocess.run(argv, input=b"label: gpt\nsize=1MiB\n,\n", check=True)
    rig.attach(detached(rig, volume_id))
    rig.control.advance(1)
    parts = [Path(f"{node(rig, volume_id)}p{number}") for number in (1, 2)]
    assert [part.is_block_device() for part in parts] == [True, True]
    parts[1].write_bytes(b"data")
    detached(rig, volume_id)
    # Meanwhile, another device of that name may have some.
    gone = Path(f"/sys/class/block/{parts[1].name}")
    eventually(lambda: not gone.exists())


def test_a_failing_device_grows(start: Start) -> None:
    """Also while it refuses everything, which it goes on to do."""
    rig = start(block_devices="nitro", failing_devices=True)
    volume_id = rig.attached(Size=1)
    rig.control.fail_device(DeviceFault.REFUSED, volume_id)
    rig.ec2.modify_volume(VolumeId=volume_id, Size=20)
    rig.control.advance(1)
    assert size_gib(rig, volume_id) == 20
    with pytest.raises(OSError, match="Input/output"):
        Path(node(rig, volume_id)).write_bytes(b"data")
    rig.control.fail_device(DeviceFault.NONE, volume_id)
    with Path(node(rig, volume_id)).open("r+b") as device:
        device.seek(19 * GIB)
        device.write(b"data")
        device.flush()
        os.fsync(device.fileno())
