"""Block devices of volumes: they appear, keep their content, and leave nothing behind."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ec2_sandbox.client import Sandbox
from ec2_sandbox.devices.block_devices import LoopBlockDevices
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.settings import BlockDevices, SandboxSettings

from tests.sandbox.conftest import Rig, Start, eventually

pytestmark = pytest.mark.kernel

GIB = 1024**3


def by_id(volume_id: str) -> Path:
    """The path of the device of a volume on a Nitro instance."""
    name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
    return Path("/dev/disk/by-id") / name


def size_bytes(node: Path) -> int:
    """The size of a block device."""
    with node.open("rb") as device:
        return device.seek(0, os.SEEK_END)


def is_bound(name: str, directory: Path) -> bool:
    """Whether the kernel has a file of this folder behind this loop device.

    The device itself may have been taken by any process of this host meanwhile.
    """
    try:
        backing = Path(f"/sys/block/{name}/loop/backing_file").read_text()
    except OSError:
        return False
    return backing.startswith(str(directory))


@contextmanager
def held(node: Path) -> Iterator[None]:
    """Use a device exclusively, as a mount does."""
    fd = os.open(node, os.O_RDWR | os.O_EXCL)
    try:
        yield
    finally:
        os.close(fd)


def test_nitro_shows_the_volume_by_its_id(start: Start) -> None:
    """The link by id leads to a device of the volume's size; the name does not appear."""
    rig = start(block_devices="nitro")
    volume_id = rig.attached("/dev/xvdba", Size=3)
    link = by_id(volume_id)
    assert stat.S_ISBLK(link.stat().st_mode)
    assert size_bytes(link) == 3 * GIB
    assert not Path("/dev/xvdba").exists()
    seen = rig.seen(volume_id)
    assert link.resolve() == Path("/dev") / seen.node


@pytest.mark.parametrize(("device", "node"), [("/dev/xvdba", "xvdba"), ("/dev/sdf", "xvdf")])
def test_xen_shows_the_volume_by_its_name(start: Start, device: str, node: str) -> None:
    """The requested name appears, /dev/sdX as xvdX, and no link by id."""
    rig = start(block_devices="xen")
    volume_id = rig.attached(device, Size=3)
    assert size_bytes(Path("/dev") / node) == 3 * GIB
    assert not by_id(volume_id).exists()


def test_xen_never_attaches_a_name_under_its_other_spelling(start: Start) -> None:
    """While xvdf exists, sdf is accepted and stays attaching forever, as on EC2."""
    rig = start(block_devices="xen")
    rig.attached("/dev/xvdf")
    other = rig.attached("/dev/sdf")
    rig.control.advance(3600)
    seen = rig.seen(other)
    assert (seen.attachment_state, seen.node) == ("attaching", "")


def test_the_device_comes_by_itself(start: Start) -> None:
    """The device appears when it is due, even without any API call."""
    rig = start(block_devices="nitro", speed=1.0, attach_seconds=(0.2, 0.2))
    volume_id = rig.create()
    rig.ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id])
    rig.attach(volume_id)
    assert not by_id(volume_id).exists()
    eventually(by_id(volume_id).exists)


@pytest.mark.parametrize(
    ("device_seconds", "seconds", "state", "shows"),
    [
        ((-1, -1), 2, "attaching", True),
        ((2, 2), 4, "attached", False),
        ((2, 2), 5, "attached", True),
    ],
)
def test_device_and_api_need_not_agree(
    start: Start, device_seconds: tuple[float, float], seconds: float, state: str, *, shows: bool
) -> None:
    """The device may appear before or after the API says attached."""
    rig = start(block_devices="nitro", attach_seconds=(3, 3), device_seconds=device_seconds)
    volume_id = rig.create()
    rig.control.advance(1)
    rig.attach(volume_id)
    rig.control.advance(seconds)
    seen = rig.seen(volume_id)
    assert (seen.attachment_state, by_id(volume_id).exists()) == (state, shows)


def test_a_device_that_is_late_for_the_detach_never_comes(start: Start) -> None:
    """A volume that is detached before its device was due has none."""
    rig = start(block_devices="nitro", device_seconds=(5, 5), detach_seconds=(60, 60))
    volume_id = rig.create()
    rig.control.advance(1)
    rig.attach(volume_id)
    rig.control.advance(1)
    rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(10)
    assert rig.seen(volume_id).attachment_state == "detaching"
    assert not by_id(volume_id).is_symlink()


def test_a_ghost_is_attached_and_nowhere(start: Start) -> None:
    """With a ghost fault the API says attached and the device never appears."""
    rig = start(block_devices="nitro")
    rig.control.add_fault(FaultRule(kind=FaultKind.GHOST, action="AttachVolume"))
    volume_id = rig.attached()
    rig.control.advance(3600)
    seen = rig.seen(volume_id)
    assert (seen.attachment_state, seen.node) == ("attached", "")
    assert not by_id(volume_id).is_symlink()


def test_content_survives_a_detach(start: Start) -> None:
    """Detaching removes the link; attaching again, under any name, shows the same content."""
    rig = start(block_devices="xen")
    volume_id = rig.attached("/dev/xvdba")
    Path("/dev/xvdba").write_bytes(b"precious")
    rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(1)
    assert not Path("/dev/xvdba").is_symlink()
    rig.attach(volume_id, "/dev/xvdbb")
    rig.control.advance(1)
    with Path("/dev/xvdbb").open("rb") as device:
        assert device.read(8) == b"precious"


def test_delete_lets_the_loop_device_go(start: Start, tmp_path: Path) -> None:
    """After a volume is deleted, its loop device is not bound."""
    rig = start(block_devices="nitro")
    volume_id = rig.attached()
    seen = rig.seen(volume_id)
    assert is_bound(seen.node, tmp_path)
    rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(1)
    rig.ec2.delete_volume(VolumeId=volume_id)
    eventually(lambda: not is_bound(seen.node, tmp_path))


def test_detach_waits_for_who_uses_the_device(start: Start) -> None:
    """While the device is mounted, the detach is busy; force completes it."""
    rig = start(block_devices="nitro")
    polite, forced = rig.attached("/dev/xvdba"), rig.attached("/dev/xvdbb")
    with held(by_id(polite)), held(by_id(forced)):
        for volume_id in (polite, forced):
            rig.ec2.detach_volume(VolumeId=volume_id)
        rig.control.advance(60)
        seen = rig.seen(polite)
        assert (seen.state, seen.attachment_state) == ("in-use", "busy")
        instance = rig.ec2.describe_instances()["Reservations"][0]["Instances"][0]
        assert instance["BlockDeviceMappings"][1]["Ebs"]["Status"] == "detaching"
        rig.ec2.detach_volume(VolumeId=forced, Force=True)
        rig.control.advance(1)
        seen = rig.seen(forced)
        assert seen.state == "available"
    rig.control.advance(2)
    seen = rig.seen(polite)
    assert seen.state == "available"


def test_termination_takes_devices_along(start: Start) -> None:
    """A terminated instance has no devices left."""
    rig = start(block_devices="nitro")
    volume_id = rig.attached()
    rig.ec2.terminate_instances(InstanceIds=[rig.settings.instance_id])
    rig.control.advance(1)
    assert not by_id(volume_id).is_symlink()


def test_an_existing_node_is_not_replaced(start: Start, tmp_path: Path) -> None:
    """An existing node or link is never replaced; the state reports the problem."""
    rig = start(block_devices="xen")
    Path("/dev/xvdbc").write_text("not ours")
    with LoopDevice.create(1024**2, directory=tmp_path) as other:
        Path("/dev/xvdbd").symlink_to(other.name)
        try:
            for name in ("xvdbc", "xvdbd"):
                volume_id = rig.attached(f"/dev/{name}")
                seen = rig.seen(volume_id)
                assert seen.node == ""
            assert Path("/dev/xvdbc").read_text() == "not ours"
            assert Path("/dev/xvdbd").readlink() == Path(other.name)
            assert len(rig.control.state().problems) == 2
        finally:
            Path("/dev/xvdbc").unlink()
            Path("/dev/xvdbd").unlink()


@pytest.mark.parametrize("kind", ["nitro", "xen"])
def test_links_of_a_killed_sandbox_are_no_hindrance(kind: BlockDevices, tmp_path: Path) -> None:
    """A link to a loop device that does not exist is replaced."""
    devices = LoopBlockDevices(kind, directory=tmp_path)
    link = by_id("vol-a") if kind == "nitro" else Path("/dev/xvdba")
    link.symlink_to(os.path.relpath("/dev/loop99999", link.parent))
    try:
        devices.appear("vol-a", size_bytes=1024**2, device_name="/dev/xvdba")
        assert link.resolve().name == devices.shown()["vol-a"]
    finally:
        devices.close()
    assert not link.is_symlink()


def test_a_loop_device_used_again_shows_under_one_name_only(tmp_path: Path) -> None:
    """Stale links to the loop device of a new volume are removed."""
    devices = LoopBlockDevices("nitro", directory=tmp_path)
    stale = {}
    for number in range(256):
        stale[f"loop{number}"] = by_id(f"vol-{number}")
        stale[f"loop{number}"].symlink_to(f"../../loop{number}")
    try:
        devices.appear("vol-a", size_bytes=1024**2, device_name="/dev/xvdba")
        node = devices.shown()["vol-a"]
        assert [link for link in stale.values() if not link.is_symlink()] == [stale[node]]
    finally:
        devices.close()
        for link in stale.values():
            link.unlink(missing_ok=True)


def test_a_killed_sandbox_leaves_a_link_at_most(tmp_path: Path) -> None:
    """After SIGKILL no loop device is bound and no file is left; the next sandbox works."""
    settings = SandboxSettings(block_devices="nitro", seed=9)
    nodes = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        with Sandbox.start(settings, directory=tmp_path) as sandbox:
            rig = Rig(sandbox, settings)
            volume_id = rig.attached(Size=1)
            assert size_bytes(by_id(volume_id)) == 1 * GIB
            nodes.append(rig.seen(volume_id).node)
            os.kill(sandbox.pid, number)
    eventually(lambda: not any(is_bound(node, tmp_path) for node in nodes))
    assert list(tmp_path.iterdir()) == []
    assert not by_id(volume_id).is_symlink()


def test_a_stopped_sandbox_leaves_nothing(tmp_path: Path) -> None:
    """After stop there is no link, no bound loop device and no file."""
    with Sandbox.start(SandboxSettings(block_devices="nitro"), directory=tmp_path) as sandbox:
        rig = Rig(sandbox, sandbox.settings)
        volume_id = rig.attached()
        eventually(by_id(volume_id).exists)
        seen = rig.seen(volume_id)
    assert not by_id(volume_id).is_symlink()
    eventually(lambda: not is_bound(seen.node, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_restored_volume_has_the_content_of_its_snapshot(start: Start) -> None:
    """The bytes of the snapshot are on the device when it first appears, zeros elsewhere."""
    rig = start(block_devices="nitro")
    volume_id = rig.control.put_volume(1, tags={}, content={65536: b"somebody's"})
    rig.control.advance(1)
    rig.attach(volume_id)
    rig.control.advance(1)
    with by_id(volume_id).open("rb") as device:
        device.seek(65535)
        assert device.read(12) == b"\0somebody's\0"
