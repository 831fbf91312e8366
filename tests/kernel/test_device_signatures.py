"""Whatever has put its name on a device is told by it, and keeps every byte."""

import hashlib
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.command import run
from ebs_autoscale.devices import BlockDevices
from ebs_autoscale.errors import Unfit
from ebs_autoscale.sandbox.loop import LoopDevice

pytestmark = pytest.mark.kernel

KIB = 1024
MIB = 1024**2
GIB = 1024**3
SIZE_BYTES = 128 * MIB  # beyond the first copy at 64 MiB
XFS_BYTES = 320 * MIB  # the least that mkfs.xfs takes
Loop = Callable[[int], LoopDevice]


class Btrfs(Protocol):
    """The `btrfs_at` fixture."""

    def __call__(self, *devices: LoopDevice) -> Path:
        """Make and mount."""


def lvm() -> bytes:
    """The label of a physical volume (LVM2, lib/format_text/layout.h and lib/label/label.c)."""
    body = struct.pack("<I8s", 32, b"LVM2 001").ljust(512 - 20, b"\0")
    checksum = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return b"LABELONE" + struct.pack("<QI", 1, checksum) + body


def md(offset: int) -> bytes:
    """A superblock of an array, version 1 (linux/raid/md_p.h)."""
    block = bytearray(256)
    struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, 0)
    block[16:32] = b"0123456789abcdef"
    struct.pack_into("<Q", block, 144, offset // 512)
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32))
    return bytes(block)


def zfs() -> bytes:
    """The uberblocks of a label: 128 of 1 KiB each (OpenZFS, include/sys/uberblock_impl.h)."""
    uberblock = struct.pack("<QQQ", 0x00BAB10C, 5000, 1).ljust(KIB, b"\0")
    return uberblock * 128


def mbr() -> bytes:
    """A partition table with one partition."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\xff" * 3, 2048, 4096)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


AT_THE_END = SIZE_BYTES - 8 * KIB

WRITTEN: dict[str, tuple[int, bytes]] = {
    "LVM2_member": (512, lvm()),
    "crypto_LUKS": (0, b"LUKS\xba\xbe\0\2".ljust(4 * KIB, b"\0")),
    "linux_raid_member": (4 * KIB, md(4 * KIB)),
    "linux_raid_member at the end": (AT_THE_END, md(AT_THE_END)),
    "zfs_member": (128 * KIB, zfs()),
    "dos": (0, mbr()),
}

MADE = {
    "ext4": ["mkfs.ext4", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
    "swap": ["mkswap"],
    "btrfs": ["mkfs.btrfs", "--quiet"],
}


def digest(device: LoopDevice) -> str:
    """A hash of everything on the device."""
    with Path(device.node).open("rb") as node:
        return hashlib.file_digest(node, "sha256").hexdigest()


def write(device: LoopDevice, offset: int, content: bytes) -> None:
    """Put something on the device."""
    with Path(device.node).open("r+b", buffering=0) as node:
        node.seek(offset)
        node.write(content)


def refused(filesystem: BtrfsFilesystem, device: LoopDevice) -> Unfit:
    """Why a growth does not add it; the attempt changes neither side."""
    before, members = digest(device), filesystem.read().members
    proof = partial(BlockDevices().proved_blank, device.name, size_bytes=device.size_bytes)
    with pytest.raises(Unfit) as caught:
        filesystem.add_device(device.name, proof=proof)
    assert digest(device) == before
    assert filesystem.read().members == members
    assert caught.value.what.startswith(device.name)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def filesystem(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> BtrfsFilesystem:
    """The filesystem that is to grow."""
    return BtrfsFilesystem(str(btrfs_at(loop(SIZE_BYTES))), clock=clock)


@pytest.mark.parametrize("kind", [*WRITTEN, *MADE])
def test_a_signature_is_refused_by_its_name(
    filesystem: BtrfsFilesystem, loop: Loop, kind: str
) -> None:
    """Each kind of content is told by name, and not one byte of it changes."""
    device = loop(XFS_BYTES if kind == "xfs" else SIZE_BYTES)
    if kind in MADE:
        run([*MADE[kind], device.node], timeout_seconds=60)
    else:
        write(device, *WRITTEN[kind])
    error = refused(filesystem, device)
    assert error.cause == "not blank"
    assert f"carries {kind.split(maxsplit=1)[0]}" in error.what


def test_a_last_copy_of_a_superblock_is_content(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A BTRFS of which only the copy at 64 MiB is left could still be saved, so it is kept."""
    device = loop(SIZE_BYTES)
    run(["mkfs.btrfs", "--quiet", device.node], timeout_seconds=60)
    content = Path(device.node).read_bytes()[64 * MIB : 64 * MIB + 4 * KIB]
    write(device, 0, bytes(SIZE_BYTES))
    write(device, 64 * MIB, content)
    assert f"content at {64 * MIB} bytes" in refused(filesystem, device).what


def test_the_copy_on_large_devices(loop: Loop) -> None:
    """On devices beyond 256 GiB the third copy of a superblock is looked for too."""
    device = loop(260 * GIB)
    BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)
    write(device, 256 * GIB + KIB, b"x")
    with pytest.raises(Unfit, match=f"content at {256 * GIB} bytes"):
        BlockDevices().require_blank(device.name, size_bytes=device.size_bytes)


def test_a_member_of_another_filesystem(
    filesystem: BtrfsFilesystem, loop: Loop, btrfs_at: Btrfs
) -> None:
    """What belongs to another BTRFS is named with it while it is mounted, and after."""
    device = loop(SIZE_BYTES)
    path = btrfs_at(device)
    other = run(["findmnt", "-n", "-o", "UUID", str(path)], timeout_seconds=60).strip()
    with pytest.raises(Unfit) as caught:
        BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES)
    assert caught.value.cause == "in use"
    run(["umount", str(path)], timeout_seconds=60)
    assert f"btrfs, UUID {other}" in refused(filesystem, device).what


def test_a_copy_of_a_member(filesystem: BtrfsFilesystem, loop: Loop) -> None:
    """A clone or a restored snapshot of a member is no member, is named as such, and is kept."""
    member = Path(f"/dev/{filesystem.read().members[0].name}")
    run(["btrfs", "filesystem", "sync", filesystem.mountpoint], timeout_seconds=60)
    copy = loop(SIZE_BYTES)
    write(copy, 0, member.read_bytes())
    error = refused(filesystem, copy)
    assert "the kernel does not list it" in error.what
    assert (error.cause, f"wipefs --all {copy.node}" in error.hint) == ("not blank", True)


def test_the_name_stays_with_the_proof(loop: Loop) -> None:
    """As long as the proof is held nobody else's device gets the name, whoever lets go of it."""
    device = loop(SIZE_BYTES)
    with BlockDevices().proved_blank(device.name, size_bytes=SIZE_BYTES):
        device.close()
        others = {loop(MIB).name for _ in range(3)}
        assert device.name not in others
