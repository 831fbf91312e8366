"""`init --device`: blank or ours, else refused with what was found, and no byte changed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice, attach

from tests.conftest import LoopFactory
from tests.signatures import SIGNATURES, digest, write
from tests.system.bare import CONFIG, FSTAB, BareHost

pytestmark = pytest.mark.kernel

MIB = 1024**2
SIZE_BYTES = 320 * MIB
Use = Callable[[LoopDevice, Path], AbstractContextManager[str]]


def filesystem_uuid(device: LoopDevice) -> str:
    """The UUID of the filesystem on a device."""
    argv = ["blkid", "-p", "-o", "value", "-s", "UUID", device.node]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def refused(host: BareHost, device: LoopDevice) -> str:
    """What `init` says of a device that it refuses with exit 5; nothing on it is changed."""
    before, table = digest(device), FSTAB.read_bytes()
    ran = host.init("--device", device.node)
    assert (ran.returncode, ran.stdout) == (5, ""), ran.stderr
    assert digest(device) == before
    assert FSTAB.read_bytes() == table
    assert not host.mounts
    assert not CONFIG.exists()
    assert len(ran.stderr.splitlines()) == 1
    return ran.stderr


def test_a_signature_is_refused(bare_host: BareHost, loop: LoopFactory) -> None:
    """A filesystem, volume manager, swap, container, partition table or foreign BTRFS is named."""
    for kind, sign in SIGNATURES.items():
        device = loop(SIZE_BYTES)
        sign(device)
        said = refused(bare_host, device)
        assert Path(device.node).name in said, kind
        assert kind.lower() in said.lower(), kind


def test_content_is_refused(bare_host: BareHost, loop: LoopFactory) -> None:
    """Content that no tool recognises is content all the same."""
    device = loop(SIZE_BYTES)
    write(device, 3 * MIB, b"x")
    assert Path(device.node).name in refused(bare_host, device)


@contextmanager
def mounted(device: LoopDevice, folder: Path) -> Iterator[str]:
    """A mounted ext4."""
    SIGNATURES["ext4"](device)
    # Read-only: a mount that may write does.
    subprocess.run(["mount", "-o", "ro", device.node, str(folder)], check=True)
    yield str(folder)
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def device(device: LoopDevice, folder: Path) -> Iterator[str]:
    """A mounted BTRFS, whose devices the mount table does not show."""
    SIGNATURES["btrfs"](device)
    subprocess.run(["mount", "-o", "ro", device.node, str(folder)], check=True)
    yield filesystem_uuid(device)
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def beneath(device: LoopDevice, _: Path) -> Iterator[str]:
    """The device beneath another block device."""
    file_fd = os.open(device.node, os.O_RDWR | os.O_CLOEXEC)
    name, device_fd = attach(file_fd)
    with LoopDevice(name, device_fd=device_fd, file_fd=file_fd):
        yield name


@contextmanager
def claimed(device: LoopDevice, _: Path) -> Iterator[str]:
    """Open for one process alone, as for a volume manager or as swap."""
    claim = os.open(device.node, os.O_RDONLY | os.O_EXCL)
    yield Path(device.node).name
    os.close(claim)


@pytest.mark.parametrize("use", [mounted, device, beneath, claimed])
def test_a_device_in_use_is_refused(
    bare_host: BareHost, loop: LoopFactory, tmp_path: Path, use: Use
) -> None:
    """What is mounted, has a holder or is claimed is refused, with what uses it."""
    device = loop(SIZE_BYTES)
    folder = tmp_path / "used"
    folder.mkdir()
    with use(device, folder) as user:
        assert user in refused(bare_host, device)


@pytest.mark.parametrize("device", ["/dev/nvme99n1", "/dev/null", "/etc/fstab"])
def test_what_is_no_device(bare_host: BareHost, device: str) -> None:
    """A path that is not a whole block device is refused."""
    ran = bare_host.init("--device", device)
    assert (ran.returncode, device in ran.stderr) == (5, True)


def test_too_small(bare_host: BareHost, loop: LoopFactory) -> None:
    """What mkfs.btrfs finds too small is refused with its message."""
    assert "mkfs.btrfs" in refused(bare_host, loop(64 * MIB))


def test_a_missing_device(bare_host: BareHost, loop: LoopFactory) -> None:
    """A filesystem with a missing device is not mounted, degraded or otherwise."""
    first, second = loop(SIZE_BYTES), loop(SIZE_BYTES)
    nodes = [first.node, second.node]
    subprocess.run(["mkfs.btrfs", "--quiet", *nodes], check=True)
    FSTAB.write_text(f"{first.node} {bare_host.mountpoint} btrfs\n", "utf-8")
    subprocess.run(["btrfs", "device", "scan", "--forget", *nodes], check=True)
    second.close()
    assert filesystem_uuid(first) in refused(bare_host, first)


def test_fstab_that_says_otherwise(bare_host: BareHost, loop: LoopFactory) -> None:
    """A line for this mountpoint that means another filesystem is refused before all else."""
    device = loop(SIZE_BYTES)
    FSTAB.write_text(f"LABEL=nowhere {bare_host.mountpoint} ext4 defaults 0 0\n", "utf-8")
    assert "LABEL=nowhere" in refused(bare_host, device)
    assert device.stored_bytes == 0


def test_folders_that_cannot_be_mounted_on(bare_host: BareHost, loop: LoopFactory) -> None:
    """A file, a folder with content or another filesystem is refused; a blank device stays so."""
    device = loop(SIZE_BYTES)
    bare_host.mountpoint.mkdir()
    (bare_host.mountpoint / "content").touch()
    assert "'content'" in refused(bare_host, device)
    ran = bare_host.init("--device", device.node, at=bare_host.mountpoint / "content")
    assert (ran.returncode, f"{bare_host.mountpoint}/content" in ran.stderr) == (5, True)
    ran = bare_host.init("--device", device.node, at=Path("/dev/shm"))
    assert (ran.returncode, "tmpfs" in ran.stderr) == (5, True)
    assert device.stored_bytes == 0


@pytest.mark.parametrize("mountpoint", ["scratch", "/a/../b", "", "/a\nb"])
def test_what_is_no_mountpoint(bare_host: BareHost, mountpoint: str) -> None:
    """A path that cannot be a mountpoint is refused with exit 2."""
    ran = bare_host.init(at=mountpoint)
    assert (ran.returncode, "MOUNTPOINT" in ran.stderr) == (2, True), ran.stderr
