"""A volume's block device is found by its identity, never by order or age."""

from dataclasses import replace
from pathlib import Path

import pytest

from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.model import GIB, GrowthId, Volume

EBS = "Amazon Elastic Block Store"
INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"
WANTED = Volume(
    id="vol-0123abcd",
    growth=GrowthId("6a92", 1),
    size_bytes=20 * GIB,
    state="in-use",
    attached_to="i-1",
    device_name="/dev/xvdba",
    attachment_state="attached",
)


class FakeHost:
    """The /dev and /sys of a host, as folders."""

    def __init__(self, root: Path) -> None:
        self.dev, self.sysfs = root / "dev", root / "sys"
        (self.dev / "disk/by-id").mkdir(parents=True)
        (self.sysfs / "block").mkdir(parents=True)

    def add(self, name: str, *, serial: str = "", model: str = EBS, size_gib: int = 20) -> None:
        """Add a device; sysfs pads its strings."""
        (self.dev / name).touch()
        folder = self.sysfs / "block" / name
        (folder / "device").mkdir(parents=True)
        (folder / "size").write_text(f"{size_gib * GIB // 512}\n")
        if serial:
            (folder / "device/serial").write_text(f"{serial:20}\n")
            (folder / "device/model").write_text(f"{model:40}\n")

    def link(self, volume_id: str, target: str) -> None:
        """Make the link that udev makes."""
        name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        (self.dev / "disk/by-id" / name).symlink_to(self.dev / target)

    def node_of(self, volume: Volume = WANTED) -> str:
        """Ask the code."""
        return BlockDevices(dev=self.dev, sysfs=self.sysfs).node_of(volume)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """An instance without volumes."""
    return FakeHost(tmp_path)


def test_by_serial_among_others(host: FakeHost) -> None:
    """The serial number is the volume id without its dash, whatever name the kernel gave."""
    for number, serial in enumerate(["vol0000ffff", "vol0123abcd", "vol0123abcdef"]):
        host.add(f"nvme{number}n1", serial=serial)
    assert host.node_of() == "nvme1n1"


@pytest.mark.parametrize("others", [["nvme1c1n1"], ["nvme0c3n1", "nvme1c1n1"], ["nvme0n7"]])
def test_a_path_of_multipath_is_no_device(host: FakeHost, others: list[str]) -> None:
    """Of a namespace and the kernel's paths to it, which bear one serial, it is the namespace."""
    for name in others:
        host.add(name, serial="vol0123abcd")
        (host.sysfs / "block" / name / "hidden").write_text("1\n")
    assert host.node_of() == ""
    host.add("nvme1n1", serial="vol0123abcd")
    (host.sysfs / "block/nvme1n1/hidden").write_text("0\n")
    assert host.node_of() == "nvme1n1"


def test_nothing_there_is_no_node(host: FakeHost) -> None:
    """While the kernel does not show the volume, no other device is taken for it."""
    host.add("nvme0n1", serial="vol0000ffff")
    host.add("nvme1n1", serial="")
    assert host.node_of() == ""


def test_instance_store_is_never_ebs(host: FakeHost) -> None:
    """A device of the instance store is never taken, whatever its serial number."""
    host.add("nvme0n1", serial="vol0123abcd", model=INSTANCE_STORE)
    host.link("vol-0123abcd", "nvme0n1")
    assert host.node_of() == ""


def test_a_stale_link_is_seen_through(host: FakeHost) -> None:
    """A by-id link to another volume's device is refused by that device's serial number."""
    host.add("nvme0n1", serial="vol0000ffff")
    host.link("vol-0123abcd", "nvme0n1")
    assert host.node_of() == ""


def test_the_serial_outdoes_a_stale_link(host: FakeHost) -> None:
    """The right device is found even when the link is stale."""
    host.add("nvme0n1", serial="vol0000ffff")
    host.add("nvme2n1", serial="vol0123abcd")
    host.link("vol-0123abcd", "nvme0n1")
    assert host.node_of() == "nvme2n1"


def test_a_link_to_nothing(host: FakeHost) -> None:
    """A link without a target is ignored."""
    host.link("vol-0123abcd", "nvme0n1")
    assert host.node_of() == ""


@pytest.mark.parametrize("name", ["xvdba", "sdba"])
def test_by_requested_name(host: FakeHost, name: str) -> None:
    """On Xen the requested name is used, in either spelling, if the size is right."""
    host.add(name)
    assert host.node_of() == name
    assert host.node_of(replace(WANTED, device_name="/dev/sdba")) == name
    assert host.node_of(replace(WANTED, size_bytes=21 * GIB)) == ""


@pytest.mark.parametrize("listed_gib", [19, 21])
@pytest.mark.parametrize("place", ["btrfs", "whole", "partition"])
def test_the_size_of_an_enlarged_volume(host: FakeHost, place: str, listed_gib: int) -> None:
    """Of a mounted device EC2 may list the size from before, or the kernel may have that."""
    host.add("xvdba")
    wanted = replace(WANTED, size_bytes=listed_gib * GIB)
    mounted = MountTable().mounts()[0].device
    assert host.node_of(wanted) == ""
    folder = host.sysfs / "block/xvdba"
    if place == "btrfs":
        (host.sysfs / "fs/btrfs/uuid/devices/xvdba").mkdir(parents=True)
    elif place == "partition":
        (folder / "xvdba1").mkdir()
        (folder / "xvdba1/partition").write_text("1\n")
        (folder / "xvdba1/dev").write_text(f"{mounted}\n")
    else:
        (folder / "dev").write_text(f"{mounted}\n")
    assert host.node_of(wanted) == "xvdba"


def test_a_requested_name_that_is_nvme_is_checked_by_serial(host: FakeHost) -> None:
    """When the name is a link to an NVMe device, its serial number decides and not its size."""
    host.add("nvme1n1", serial="vol0000ffff")
    (host.dev / "xvdba").symlink_to(host.dev / "nvme1n1")
    assert host.node_of() == ""


@pytest.mark.parametrize("name", ["", "/dev/../etc/passwd", "/dev/nvme1n1", "/dev/sda1", "xvd"])
def test_odd_names_lead_nowhere(host: FakeHost, name: str) -> None:
    """A name that cannot be an attachment name is not looked up."""
    host.add("nvme1n1")
    assert host.node_of(replace(WANTED, device_name=name)) == ""


@pytest.mark.parametrize("state", ["", "detaching", "detached", "busy"])
def test_a_volume_that_is_not_ours_now_has_no_node(host: FakeHost, state: str) -> None:
    """A volume that EC2 does not report as attached has no device, even if the kernel shows one."""
    host.add("nvme1n1", serial="vol0123abcd")
    assert host.node_of(replace(WANTED, attachment_state=state)) == ""
    assert host.node_of(replace(WANTED, attached_to="")) == ""


def test_names_present(host: FakeHost) -> None:
    """A name is in use when a device or a partition of that name exists."""
    for name in ("xvdba", "sdf", "xvda1", "nvme0n1", "sda1", "loop0", "sdabc"):
        host.add(name)
    names = BlockDevices(dev=host.dev, sysfs=host.sysfs).names_present()
    assert names == {"/dev/xvdba", "/dev/sdf", "/dev/xvda", "/dev/sda"}


def test_the_volume_behind_a_node(host: FakeHost) -> None:
    """The serial number or the link names the volume; other devices are none."""
    host.add("nvme1n1", serial="vol0123abcd")
    host.add("nvme2n1", serial="AWS0123", model=INSTANCE_STORE)
    host.add("xvdba")
    host.add("loop7")
    host.link("vol-00ff", "loop7")
    nodes = BlockDevices(dev=host.dev, sysfs=host.sysfs)
    found = [nodes.volume_id_of(name) for name in ("nvme1n1", "nvme2n1", "xvdba", "loop7")]
    assert found == ["vol-0123abcd", "", "", "vol-00ff"]
