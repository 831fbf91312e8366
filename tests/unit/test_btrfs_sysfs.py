"""What sysfs says about devices, on kernels and of devices that this host does not have."""

from pathlib import Path

import pytest

from ebs_autoscale.filesystems.btrfs import sysfs
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.model import GIB


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a filesystem in a sysfs that can be written."""
    monkeypatch.setattr(sysfs, "SYSFS", tmp_path / "fs/btrfs")
    (tmp_path / "fs/btrfs/uuid/devices").mkdir(parents=True)
    return tmp_path / "fs/btrfs/uuid"


def test_a_block_device_that_is_gone_has_no_size(folder: Path, tmp_path: Path) -> None:
    """After NVMe surprise removal the size is 0, and then the link leads nowhere (Linux 6.1)."""
    found = BtrfsSysfs("uuid")
    block = tmp_path / "block/nvme1n1"
    block.mkdir(parents=True)
    (folder / "devices/nvme1n1").symlink_to(block)
    for sectors, size_bytes in ((2 * GIB // 512, 2 * GIB), (0, 0)):
        (block / "size").write_text(f"{sectors}\n")
        assert found.capacity_bytes("nvme1n1") == size_bytes
    block.rename(tmp_path / "gone")
    assert BtrfsSysfs("uuid").capacity_bytes("nvme1n1") == 0
    assert "nvme1n1" in found.names()
    assert found.device_number("nvme1n1") == ""


def test_devices_by_devid(folder: Path) -> None:
    """The target of a running replace, devid 0, is left out; what is not said is usual.

    So is what is no devid.
    """
    for devid in ("0", "2", "10", "x"):
        (folder / "devinfo" / devid).mkdir(parents=True)
    (folder / "devinfo/2/writeable").write_text("0\n")
    (folder / "devinfo/2/missing").write_text("1\n")
    found = BtrfsSysfs("uuid")
    assert found.devids() == (2, 10)
    assert (found.is_missing(2), found.is_writable(2)) == (True, False)
    assert (found.is_missing(10), found.is_writable(10)) == (False, True)


@pytest.mark.parametrize("text", ["", "x", "-1", "1" * 5000, "\udc80"])
def test_what_is_no_number(folder: Path, text: str) -> None:
    """It is an error like any other of reading sysfs."""
    (folder / "nodesize").write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(OSError, match="nodesize"):
        sysfs.node_bytes_of("uuid")
