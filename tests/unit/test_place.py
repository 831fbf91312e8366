"""XFS and ext4: where they lie, and what their superblocks say."""

import struct
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.one_device.filesystem import require_resizable
from ebs_autoscale.filesystems.one_device.place import layer_of
from ebs_autoscale.filesystems.one_device.superblock import Superblock, read_superblock

UUID = uuid4()
GIB = 1024**3


@pytest.mark.parametrize(
    ("files", "layer"),
    [
        ({"size": "2"}, ""),
        ({"loop/backing_file": "/image"}, ""),
        ({"dm/uuid": "LVM-abc", "slaves/nvme1n1/size": "2"}, "an LVM volume on nvme1n1"),
        (
            {"dm/uuid": "CRYPT-LUKS2-abc", "slaves/nvme1n1/size": "2"},
            "encrypted by dm-crypt on nvme1n1",
        ),
        ({"dm/uuid": "mpath-abc", "slaves/sda/size": "2"}, "multipath on sda"),
        ({"dm/uuid": ""}, "a mapping of the device mapper"),
        ({"md/level": "raid0", "slaves/nvme1n1/size": "2"}, "an array of md on nvme1n1"),
        ({"bcache/state": "", "slaves/nvme1n1/size": "2"}, "a layer on nvme1n1"),
    ],
)
def test_what_lies_between_it_and_the_disk(
    tmp_path: Path, files: dict[str, str], layer: str
) -> None:
    """Each layer is told by its name and what is beneath; a disk and a loop device have none."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "ascii")
    assert layer_of(tmp_path) == layer


def ext4(**fields: int) -> bytes:
    """The beginning of a device with ext4, blocks of 4 KiB."""
    found = bytearray(2048)
    struct.pack_into("<H", found, 1024 + 0x38, 0xEF53)
    struct.pack_into("<I", found, 1024 + 0x18, fields.get("log_block", 2))
    struct.pack_into("<I", found, 1024 + 4, fields.get("blocks", 0) & 0xFFFFFFFF)
    struct.pack_into("<I", found, 1024 + 0x150, fields.get("blocks", 0) >> 32)
    struct.pack_into("<I", found, 1024 + 0x5C, fields.get("compat", 0))
    struct.pack_into("<I", found, 1024 + 0x60, fields.get("incompat", 0))
    struct.pack_into("<H", found, 1024 + 0x3A, fields.get("state", 1))
    found[1024 + 0x68 : 1024 + 0x78] = UUID.bytes
    return bytes(found)


def read(folder: Path, content: bytes) -> Superblock | None:
    """What is read of a device with this content."""
    (folder / "device").write_bytes(content)
    return read_superblock(str(folder / "device"))


def test_the_size_of_ext4(tmp_path: Path) -> None:
    """All 64 bits of it where the filesystem has them, else none but the lower ones."""
    large = read(tmp_path, ext4(blocks=1 << 33, incompat=0x80))
    assert large
    assert (large.uuid, large.size_bytes) == (str(UUID), 32 * 1024 * GIB)
    small = read(tmp_path, ext4(blocks=(1 << 33) + 7))
    assert small
    assert small.size_bytes == 7 * 4096
    assert 0 < 16 * 1024 * GIB - small.largest_bytes <= 4096
    assert read(tmp_path, ext4(log_block=6))
    assert read(tmp_path, ext4(log_block=33)) is None, "blocks of 8 TiB"


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, None),
        ({"state": 3}, Cause.NOT_GROWABLE),
        ({"compat": 0x200}, Cause.NOT_GROWABLE),
    ],
)
def test_what_the_kernel_does_not_extend(
    tmp_path: Path, fields: dict[str, int], cause: Cause | None
) -> None:
    """Errors, and the feature sparse_super2."""
    found = read(tmp_path, ext4(blocks=1 << 20, **fields))
    assert found
    refused = None
    try:
        require_resizable(found, "nvme1n1", "/data")
    except Unfit as error:
        refused = error.cause
    assert refused is cause


@given(content=st.binary(max_size=2200), at=st.sampled_from([0, 1024 + 0x18]))
def test_nonsense_is_no_superblock(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, at: int
) -> None:
    """Whatever is on a device, it is read in no time; a size is what a filesystem can have."""
    for whole in (content, ext4()[:at] + content, b"XFSB" + content):
        found = read(tmp_path_factory.getbasetemp(), whole)
        assert found is None or found.size_bytes < 2**81
