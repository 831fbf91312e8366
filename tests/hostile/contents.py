"""What may be on a foreign volume, and proof that it is still there."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.system.bench import GIB, MIB

_BLOCK_BYTES = 4096
_EDGE_BYTES = 4 * MIB
_SUPERBLOCK_AT = 64 * 1024

LUKS: Mapping[int, bytes] = {
    0: b"LUKS\xba\xbe\x00\x01" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0"),
    MIB: os.urandom(_BLOCK_BYTES),
}
LATE_BYTE: Mapping[int, bytes] = {700 * MIB: b"x"}


def ext4(folder: Path) -> Mapping[int, bytes]:
    """The beginning of an ext4 filesystem of 1 GiB."""
    image = folder / "ext4"
    with image.open("wb") as file:
        file.truncate(GIB)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    with image.open("rb") as file:
        content = file.read(2 * _BLOCK_BYTES)
    image.unlink()
    return {0: content}


def superblock_of(node: Path) -> Mapping[int, bytes]:
    """What makes a device one of a BTRFS filesystem."""
    with node.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return {_SUPERBLOCK_AT: os.pread(file.fileno(), _BLOCK_BYTES, _SUPERBLOCK_AT)}


def digest_of(node: Path) -> str:
    """A digest of both edges and of the first block of each MiB, read from the device."""
    digest = hashlib.sha256()
    with node.open("rb") as file:
        descriptor = file.fileno()
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        for edge in (0, size_bytes - _EDGE_BYTES):
            digest.update(os.pread(descriptor, _EDGE_BYTES, edge))
        for offset in range(0, size_bytes, MIB):
            digest.update(os.pread(descriptor, _BLOCK_BYTES, offset))
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()
