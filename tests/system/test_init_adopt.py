"""`init` and `init --device` over an existing filesystem: used as it is, and safe to repeat."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import LoopFactory
from tests.signatures import SIGNATURES
from tests.system.bare import CONFIG, FSTAB, BareHost, CloudHost
from tests.system.bench import create_volume

pytestmark = pytest.mark.kernel

SIZE_BYTES = 320 * 1024**2


def test_a_blank_device(bare_host: BareHost, loop: LoopFactory, tmp_path: Path) -> None:
    """A blank one is used, also by a link, and again; neither needs EC2 or instance metadata."""
    device, link = loop(SIZE_BYTES), tmp_path / "by-id"
    link.symlink_to(device.node)
    for _ in range(2):
        ran = bare_host.init("--device", str(link))
        assert ran.returncode == 0, ran.stderr
        bare_host.assert_ready()
    other = loop(SIZE_BYTES)
    ran = bare_host.init("--device", other.node)
    assert (ran.returncode, other.node in ran.stderr) == (0, True)
    assert other.stored_bytes == 0


def test_a_predecessors_filesystem_is_adopted(bare_host: BareHost, loop: LoopFactory) -> None:
    """A filesystem that fstab mounts here by device name is kept, and mounted by UUID now."""
    device = loop(SIZE_BYTES)
    SIGNATURES["btrfs"](device)
    old = f"{device.node}\t{bare_host.mountpoint}\tbtrfs\tdefaults\t0\t0"
    FSTAB.write_text(f"# first\n{old}\n# last", "utf-8")
    bare_host.mountpoint.mkdir()
    subprocess.run(["mount", str(bare_host.mountpoint)], check=True)
    (bare_host.mountpoint / "kept").write_text("yes", "utf-8")
    subprocess.run(["umount", str(bare_host.mountpoint)], check=True)

    ran = bare_host.init("--device", device.node)
    assert ran.returncode == 0, ran.stderr
    assert f"`{' '.join(old.split())}`" in ran.stderr
    bare_host.assert_ready()
    assert (bare_host.mountpoint / "kept").read_text("utf-8") == "yes"
    assert FSTAB.read_text("utf-8").startswith("# first\nUUID=")
    assert FSTAB.read_text("utf-8").endswith("\n# last")


def test_a_mounted_filesystem_is_adopted(bare_host: BareHost, loop: LoopFactory) -> None:
    """A mounted BTRFS filesystem gets a line in fstab and a configuration, but no device."""
    device = loop(SIZE_BYTES)
    SIGNATURES["btrfs"](device)
    bare_host.mountpoint.mkdir()
    subprocess.run(["mount", device.node, str(bare_host.mountpoint)], check=True)
    ran = bare_host.init()
    assert ran.returncode == 0, ran.stderr
    bare_host.assert_ready()


def test_a_mounted_subvolume(bare_host: BareHost, loop: LoopFactory) -> None:
    """A subvolume is not written to fstab as the whole filesystem; a line for it is kept."""
    device, point = loop(SIZE_BYTES), bare_host.mountpoint
    SIGNATURES["btrfs"](device)
    point.mkdir()
    subprocess.run(["mount", device.node, str(point)], check=True)
    subprocess.run(["btrfs", "--quiet", "subvolume", "create", str(point / "part")], check=True)
    line = f"UUID={bare_host.uuid} {point} btrfs subvol=part 0 0\n"
    subprocess.run(["umount", str(point)], check=True)
    subprocess.run(["mount", "-o", "subvol=part", device.node, str(point)], check=True)
    ran = bare_host.init()
    assert (ran.returncode, "/part" in ran.stderr) == (5, True), ran.stderr
    FSTAB.write_text(line, "utf-8")
    assert bare_host.init().returncode == 0
    assert FSTAB.read_text("utf-8") == line


@pytest.mark.parametrize(
    ("tag", "adopted"), [("ours", True), ("source-instance", True), ("", False)]
)
def test_the_tags_of_its_volume_decide(
    cloud_host: CloudHost, loop: LoopFactory, tag: str, *, adopted: bool
) -> None:
    """BTRFS on a volume with our tags, or the older script's, is used; any other is not."""
    device = loop(SIZE_BYTES)
    SIGNATURES["btrfs"](device)
    uuid = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "UUID", device.node],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    ours = {
        "ebs-autoscale:owner": "arn:aws:ec2:us-east-1:123456789012:instance/i-0ffffffffffffffff",
        "ebs-autoscale:filesystem": uuid,
        "ebs-autoscale:growth": "0",
    }
    tags = {"ours": ours, "": {}}.get(tag, {tag: cloud_host.sandbox.instance_id})
    volume_id = create_volume(cloud_host.sandbox, tags)
    name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
    link = Path("/dev/disk/by-id", name)
    link.symlink_to(device.node)
    try:
        ran = cloud_host.init("--device", device.node)
    finally:
        link.unlink()
    assert ran.returncode == (0 if adopted else 5), ran.stderr
    assert len(cloud_host.mounts) == adopted
    if adopted:
        assert cloud_host.uuid == uuid
    else:
        assert all(each in ran.stderr for each in (device.node, uuid, volume_id))


def test_a_second_mountpoint(bare_host: BareHost, loop: LoopFactory) -> None:
    """A second mountpoint has its own filesystem, line in fstab and configuration."""
    assert bare_host.init("--device", loop(SIZE_BYTES).node).returncode == 0
    first = bare_host.mountpoint
    bare_host.mountpoint = first.with_name("my scratch")
    try:
        ran = bare_host.init("--device", loop(SIZE_BYTES).node)
        assert ran.returncode == 0, ran.stderr
        assert len(bare_host.mounts) == 1
        assert r"my\040scratch btrfs" in FSTAB.read_text("utf-8")
        (second,) = set(CONFIG.parent.iterdir()) - {CONFIG}
        assert second.name.endswith(r"my\x20scratch.yaml")
        assert f'mountpoint: "{bare_host.mountpoint}"' in second.read_text("utf-8")
    finally:
        subprocess.run(["umount", str(bare_host.mountpoint)], check=True)
        bare_host.mountpoint = first
    bare_host.assert_ready()
