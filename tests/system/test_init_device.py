"""`init --device`: blank or ours, else refused with what was found and not a byte changed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice, _attach

from tests.conftest import LoopFactory
from tests.signatures import SIGNATURES, digest, write
from tests.system.bare import CONFIG, FSTAB, BareHost

pytestmark = pytest.mark.kernel

MIB = 1024**2
SIZE_BYTES = 320 * MIB
Use = Callable[[LoopDevice, Path], AbstractContextManager[str]]


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


@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_signature_is_refused(bare_host: BareHost, loop: LoopFactory, kind: str) -> None:
    """A filesystem, volume manager, swap, container, partition table or foreign BTRFS is named."""
    device = loop(SIZE_BYTES)
    SIGNATURES[kind](device)
    assert f"carries {kind}" in refused(bare_host, device)


def test_content_is_refused(bare_host: BareHost, loop: LoopFactory) -> None:
    """Content that nobody recognises is content all the same."""
    device = loop(SIZE_BYTES)
    write(device, 3 * MIB, b"x")
    assert "is not empty" in refused(bare_host, device)


@contextmanager
def mounted(device: LoopDevice, folder: Path) -> Iterator[str]:
    """An ext4 that somebody uses."""
    SIGNATURES["ext4"](device)
    # Read-only: a mount that may write does.
    subprocess.run(["mount", "-o", "ro", device.node, str(folder)], check=True)
    yield f"the ext4 mounted on {folder}"
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def device(device: LoopDevice, folder: Path) -> Iterator[str]:
    """A BTRFS that somebody uses."""
    SIGNATURES["btrfs"](device)
    subprocess.run(["mount", "-o", "ro", device.node, str(folder)], check=True)
    yield "a device of the mounted BTRFS"
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def beneath(device: LoopDevice, _: Path) -> Iterator[str]:
    """Another block device lies on it."""
    file_fd = os.open(device.node, os.O_RDWR | os.O_CLOEXEC)
    name, device_fd = _attach(file_fd)
    with LoopDevice(name, device_fd=device_fd, file_fd=file_fd):
        yield f"what {name} lies on"


@contextmanager
def claimed(device: LoopDevice, _: Path) -> Iterator[str]:
    """Somebody has it open for himself, as a volume manager or a swap does."""
    claim = os.open(device.node, os.O_RDONLY | os.O_EXCL)
    yield "is claimed by somebody else"
    os.close(claim)


@pytest.mark.parametrize("use", [mounted, device, beneath, claimed])
def test_a_device_in_use_is_refused(
    bare_host: BareHost, loop: LoopFactory, tmp_path: Path, use: Use
) -> None:
    """What is mounted, has a holder or is claimed is not taken, blank or not."""
    device = loop(SIZE_BYTES)
    folder = tmp_path / "used"
    folder.mkdir()
    with use(device, folder) as words:
        assert words in refused(bare_host, device)


@pytest.mark.parametrize("device", ["/dev/nvme99n1", "/dev/null", "/etc/fstab"])
def test_what_is_no_device(bare_host: BareHost, device: str) -> None:
    """A path that leads to no whole block device is refused."""
    ran = bare_host.init("--device", device)
    assert (ran.returncode, device in ran.stderr) == (5, True)


def test_too_small(bare_host: BareHost, loop: LoopFactory) -> None:
    """What mkfs.btrfs finds too small is refused with its words."""
    assert "minimum size" in refused(bare_host, loop(64 * MIB))


def test_a_missing_member(bare_host: BareHost, loop: LoopFactory) -> None:
    """A filesystem with a device that is not here is not mounted, degraded or otherwise."""
    first, second = loop(SIZE_BYTES), loop(SIZE_BYTES)
    nodes = [first.node, second.node]
    subprocess.run(["mkfs.btrfs", "--quiet", *nodes], check=True)
    FSTAB.write_text(f"{first.node} {bare_host.mountpoint} btrfs\n", "utf-8")
    subprocess.run(["btrfs", "device", "scan", "--forget", *nodes], check=True)
    second.close()
    assert "1 of its 2 devices are here" in refused(bare_host, first)


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
    assert (ran.returncode, "Not a directory" in ran.stderr) == (5, True)
    ran = bare_host.init("--device", device.node, at=Path("/dev/shm"))
    assert (ran.returncode, "is tmpfs" in ran.stderr) == (5, True)
    assert device.stored_bytes == 0


@pytest.mark.parametrize("mountpoint", ["/", "scratch", "/a/../b", "", "/a\nb"])
def test_what_is_no_mountpoint(bare_host: BareHost, mountpoint: str) -> None:
    """A path that cannot be a mountpoint is refused with exit 2."""
    ran = bare_host.init(at=mountpoint)
    assert (ran.returncode, "MOUNTPOINT" in ran.stderr) == (2, True), ran.stderr
