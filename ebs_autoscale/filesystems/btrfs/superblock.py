"""The BTRFS superblock on a device: whose it is, and what an interrupted mkfs.btrfs leaves."""

import os
import uuid

from ebs_autoscale.host.blank import BTRFS_SUPERBLOCK_COPIES_AT

# https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html
SUPERBLOCK_AT = 64 * 1024
_SUPERBLOCKS_AT = (SUPERBLOCK_AT, *BTRFS_SUPERBLOCK_COPIES_AT)

# Every tree node and every superblock begins with a checksum and the filesystem's UUID.
_UUID = slice(32, 48)
_MAGIC = slice(64, 72)
_HEAD_BYTES = 72
_COMPLETE = b"_BHRfS_M"
# What mkfs.btrfs writes in its place until everything else is written (since 4.2).
_INCOMPLETE = b"!BHRfS_M"
# The default of mkfs.btrfs, unless pages are larger: then what it left is refused.
_NODE_BYTES = 16 * 1024


def superblock_uuid(node: str) -> str:
    """The filesystem that the first superblock on this device belongs to; empty without one.

    Decides whether a device was added: after a failed add sysfs still lists a device that never
    got a superblock (measured on 6.18). Raises OSError.
    """
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Pages that an earlier read left in the cache may be out of date.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        head = os.pread(fd, _HEAD_BYTES, SUPERBLOCK_AT)
    finally:
        os.close(fd)
    return str(uuid.UUID(bytes=head[_UUID])) if head[_MAGIC] == _COMPLETE else ""


def is_left_by_mkfs(content: bytes, at: int, *, filesystem: str) -> bool:
    """Whether only an interrupted mkfs.btrfs of this filesystem can have written this content.

    `at` is the offset in bytes at which it was read. mkfs.btrfs writes whole nodes and
    superblocks, each with the UUID, and the final magic last (measured with btrfs-progs 6.2,
    killed before each of its writes). A filesystem that was ever complete has the final magic, or
    none where it was wiped.
    """
    fsid = uuid.UUID(filesystem).bytes
    for offset in range(-at % _NODE_BYTES, len(content), _NODE_BYTES):
        block = content[offset : offset + _NODE_BYTES]
        if block.count(0) == len(block):
            continue
        if block[_UUID] != fsid:
            return False
        if at + offset in _SUPERBLOCKS_AT and block[_MAGIC] != _INCOMPLETE:
            return False
    head = content[: -at % _NODE_BYTES]
    return head.count(0) == len(head)
