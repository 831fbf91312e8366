"""The superblock on a device with XFS or ext4, read from the device: that may take for ever.

Of a mounted ext4 the kernel keeps the superblock in the device's page cache, where it is up to date
(fs/ext4/super.c); no system call tells the number of its blocks.
"""

import json
import os
import struct
import sys
from dataclasses import asdict, dataclass
from uuid import UUID
from zlib import crc32

# Offsets: Documentation/filesystems/ext4/super.rst and the XFS algorithms and data structures.
_EXT4_AT, _EXT4_BYTES, _EXT4_MAGIC = 1024, 1024, 0xEF53
_XFS_MAGIC, _XFS_UUID_AT, _XFS_IN_PROGRESS_AT, _XFS_BYTES = b"XFSB", 32, 126, 512
_XFS_CHECKSUM_AT, _XFS_LSN_AT = 224, 240

_ERRORS = 0x2  # of s_state
_SPARSE_SUPER2 = 0x200  # of s_feature_compat
_EXTENTS, _64BIT = 0x40, 0x80  # of s_feature_incompat
_BLOCKS_MAX_OF_32_BITS = 2**32 - 1
_LOG_BLOCK_MAX = 6  # blocks of 64 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What it says; only of ext4 more than the kind and the UUID.

    Not `is_complete` is what mkfs.xfs writes first and completes last, and the kernel never mounts;
    mkfs.ext4 writes its superblock last (measured with xfsprogs 6.1 and e2fsprogs 1.47, killed
    before each write). `checksum` is that of the whole, which changes with what is in the
    filesystem, without what an unmount of XFS writes even if it is read-only (measured on 6.18).
    """

    kind: str
    uuid: str
    checksum: int = 0
    is_complete: bool = True
    has_extents: bool = True
    size_bytes: int = 0
    largest_bytes: int = 0
    mounted_at: int = 0  # seconds of the epoch
    has_errors: bool = False
    has_sparse_super2: bool = False


def read_superblock(path: str) -> Superblock | None:
    """The superblock on this device, None if it has none; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Pages that an earlier read left in the cache may be out of date.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        found = os.pread(fd, _EXT4_AT + _EXT4_BYTES, 0)
    finally:
        os.close(fd)
    if found.startswith(_XFS_MAGIC) and len(found) >= _XFS_BYTES:
        uuid = found[_XFS_UUID_AT : _XFS_UUID_AT + 16]
        return Superblock(
            kind="xfs",
            uuid=str(UUID(bytes=uuid)),
            checksum=_checksum_of_xfs(found[:_XFS_BYTES]),
            is_complete=found[_XFS_IN_PROGRESS_AT] == 0,
        )
    return _ext4(found[_EXT4_AT:]) if len(found) == _EXT4_AT + _EXT4_BYTES else None


def _checksum_of_xfs(found: bytes) -> int:
    checksum, lsn, end = _XFS_CHECKSUM_AT, _XFS_LSN_AT, _XFS_LSN_AT + 8
    return crc32(found[:checksum] + found[checksum + 4 : lsn] + found[end:])


def _ext4(found: bytes) -> Superblock | None:
    def number(at: int, layout: str = "<I") -> int:
        value: int = struct.unpack_from(layout, found, at)[0]
        return value

    if number(0x38, "<H") != _EXT4_MAGIC or number(0x18) > _LOG_BLOCK_MAX:
        return None
    compat, incompat = number(0x5C), number(0x60)
    high = number(0x150) if incompat & _64BIT else 0
    block_bytes = 1024 << number(0x18)
    blocks_max = 2**48 if incompat & _64BIT else _BLOCKS_MAX_OF_32_BITS
    return Superblock(
        kind="ext4",
        uuid=str(UUID(bytes=found[0x68:0x78])),
        checksum=crc32(found),
        has_extents=bool(incompat & _EXTENTS),
        size_bytes=(high << 32 | number(4)) * block_bytes,
        largest_bytes=blocks_max * block_bytes,
        mounted_at=number(0x2C),
        has_errors=bool(number(0x3A, "<H") & _ERRORS),
        has_sparse_super2=bool(compat & _SPARSE_SUPER2),
    )


if __name__ == "__main__":
    seen = read_superblock(sys.argv[1])
    json.dump(asdict(seen) if seen else None, sys.stdout)
