"""What blkid recognises, for tests: written by its own mkfs, or byte by byte where none is near.

lvm2, cryptsetup and mdadm are heavy packages for the few bytes that make a signature.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.host.command import run

_SECTOR = 512


@contextmanager
def uncached(device: LoopDevice) -> Iterator[BufferedReader]:
    """The device, open for reading what is on it now.

    What was written to a partition is not in the cache of the whole device, which may be older.
    """
    with Path(device.node).open("rb") as node:
        os.fsync(node.fileno())
        os.posix_fadvise(node.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield node


def digest(device: LoopDevice) -> str:
    """A hash of everything on the device."""
    with uncached(device) as node:
        return hashlib.file_digest(node, "sha256").hexdigest()


def write(device: LoopDevice, offset: int, content: bytes) -> None:
    """Put something on the device."""
    with Path(device.node).open("r+b", buffering=0) as node:
        node.seek(offset)
        node.write(content)


def gpt(size_bytes: int) -> bytes:
    """A GUID partition table without partitions, behind its protective MBR (UEFI, chapter 5)."""
    sectors = size_bytes // _SECTOR
    table = zlib.crc32(bytes(128 * 128))
    fields = (1, sectors - 1, 34, sectors - 34, b"0123456789abcdef", 2, 128, 128, table)
    layout = struct.Struct("<8s4s4sI4xQQQQ16sQIII")
    empty = layout.pack(b"EFI PART", b"\0\0\1\0", b"\\\0\0\0", 0, *fields)
    header = layout.pack(b"EFI PART", b"\0\0\1\0", b"\\\0\0\0", zlib.crc32(empty), *fields)
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, sectors - 1)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa" + header.ljust(_SECTOR, b"\0")


def mbr(size_bytes: int) -> bytes:
    """A PC's partition table with one Linux partition."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\xff" * 3, 8, size_bytes // _SECTOR - 8)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def lvm() -> bytes:
    """The label of an LVM2 physical volume, in its second sector (lvm2, lib/label/label.h)."""
    body = struct.pack("<I8s", 32, b"LVM2 001") + b"0123456789abcdef" * 2
    body = body.ljust(_SECTOR - 20, b"\0")
    # The polynomial of zlib, from another beginning and without the last inversion.
    crc = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return bytes(_SECTOR) + struct.pack("<8sQI", b"LABELONE", 1, crc) + body


def luks() -> bytes:
    """The header of a LUKS1 container (cryptsetup, on-disk format specification)."""
    names = struct.pack(">32s32s32s", b"aes", b"xts-plain64", b"sha256")
    head = b"LUKS\xba\xbe" + struct.pack(">H", 1) + names
    return head.ljust(168, b"\0") + b"01234567-89ab-cdef-0123-456789abcdef"


def md(offset: int) -> bytes:
    """The superblock of an array, version 1, for this place (linux/raid/md_p.h)."""
    block = bytearray(256)
    struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, 0)
    block[16:32] = b"0123456789abcdef"
    struct.pack_into("<Q", block, 144, offset // _SECTOR)
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32))
    return bytes(block)


def zfs() -> bytes:
    """The uberblocks of a label: 128 of 1 KiB each (OpenZFS, include/sys/uberblock_impl.h)."""
    return struct.pack("<QQQ", 0x00BAB10C, 5000, 1).ljust(1024, b"\0") * 128


def _by_tool(*argv: str) -> Callable[[LoopDevice], None]:
    def put(device: LoopDevice) -> None:
        run([*argv, device.node], timeout_seconds=60)

    return put


# What blkid calls it, and how it comes onto a device of at least 320 MiB (mkfs.xfs).
SIGNATURES: dict[str, Callable[[LoopDevice], None]] = {
    "ext4": _by_tool("mkfs.ext4", "-q"),
    "xfs": _by_tool("mkfs.xfs", "-q"),
    "swap": _by_tool("mkswap"),
    "btrfs": _by_tool("mkfs.btrfs", "--quiet"),
    "LVM2_member": lambda device: write(device, 0, lvm()),
    "crypto_LUKS": lambda device: write(device, 0, luks()),
    "linux_raid_member": lambda device: write(device, 4096, md(4096)),
    "zfs_member": lambda device: write(device, 128 * 1024, zfs()),
    "gpt": lambda device: write(device, 0, gpt(device.size_bytes)),
    "dos": lambda device: write(device, 0, mbr(device.size_bytes)),
}
