"""The BTRFS superblock on a device: whose it is, and what an interrupted mkfs.btrfs leaves."""

import os
import struct
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass

from ebs_autoscale.host.blank import BTRFS_SUPERBLOCK_AT, BTRFS_SUPERBLOCK_COPIES_AT

# https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html
_SUPERBLOCKS_AT = (BTRFS_SUPERBLOCK_AT, *BTRFS_SUPERBLOCK_COPIES_AT)

# Every tree node and every superblock begins with a checksum and the filesystem's UUID.
_UUID = slice(32, 48)
_MAGIC = slice(64, 72)
# Everything up to the devid of the device that the superblock is on.
_HEAD_BYTES = 209
_GENERATION_AT = 72
_DEVICE_COUNT_AT = 136
_DEVID_AT = 201
_NUMBER = struct.Struct("<Q")
_COMPLETE = b"_BHRfS_M"
# What mkfs.btrfs writes in its place until everything else is written (since 4.2).
_INCOMPLETE = b"!BHRfS_M"
# The default of mkfs.btrfs, unless pages are larger: then what it left is refused.
_NODE_BYTES = 16 * 1024
_FIRST_CHUNK_AT = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """Which device of which filesystem it is on; `generation` grows with each commit.

    `filesystem` is the UUID that the kernel and blkid go by. `btrfstune -m` changes it and leaves
    the one in the device items as it is.
    """

    filesystem: str
    devid: int
    device_count: int
    generation: int


def read_superblock(node: str) -> Superblock | None:
    """The first superblock on this device; None without one. Raises OSError."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Pages that an earlier read left in the cache may be out of date.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        head = os.pread(fd, _HEAD_BYTES, BTRFS_SUPERBLOCK_AT)
    finally:
        os.close(fd)
    if len(head) < _HEAD_BYTES or head[_MAGIC] != _COMPLETE:
        return None
    places = (_DEVID_AT, _DEVICE_COUNT_AT, _GENERATION_AT)
    devid, device_count, generation = (_NUMBER.unpack_from(head, at)[0] for at in places)
    return Superblock(
        filesystem=str(uuid.UUID(bytes=head[_UUID])),
        devid=devid,
        device_count=device_count,
        generation=generation,
    )


def superblock_uuid(node: str) -> str:
    """The filesystem that the first superblock on this device belongs to; empty without one.

    Decides whether a device was added: after a failed add sysfs still lists a device that never
    got a superblock (measured on 6.18). Raises OSError.
    """
    found = read_superblock(node)
    return found.filesystem if found else ""


def uuid_left_by_mkfs(node: str) -> str:
    """The UUID in the first block that mkfs.btrfs writes; empty if it wrote none, or all of them.

    Those are the superblock and the nodes of the first chunk. Raises OSError.
    """
    places = (BTRFS_SUPERBLOCK_AT, *range(_FIRST_CHUNK_AT, 2 * _FIRST_CHUNK_AT, _NODE_BYTES))
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        heads = (os.pread(fd, _HEAD_BYTES, place) for place in places)
        head = next((head for head in heads if head.strip(b"\0")), b"")
    finally:
        os.close(fd)
    is_left = len(head) == _HEAD_BYTES and head[_MAGIC] != _COMPLETE
    return str(uuid.UUID(bytes=head[_UUID])) if is_left else ""


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


def main(filesystem: str, *names: str) -> None:
    """`python -m` this module: print which of these devices have a superblock of the filesystem."""
    for name in names:
        with suppress(OSError):
            if superblock_uuid(f"/dev/{name}") == filesystem:
                print(name)  # noqa: T201 -- the answer of a process


if __name__ == "__main__":
    main(*sys.argv[1:])
