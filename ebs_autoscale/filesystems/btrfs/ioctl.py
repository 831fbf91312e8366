"""What only ioctls and superblocks tell about a BTRFS filesystem; no subprocess."""

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

# linux/btrfs.h
_FS_INFO = 0x8400941F
_DEV_INFO = 0xD000941E
_ADD_DEV = 0x5000940A
_DEV_STATS = 0xC4089434
_BALANCE_PROGRESS = 0x84009422
_TREE_SEARCH = 0xD0009411
_FS_INFO_HEAD = struct.Struct("=QQ16sI")
_FS_INFO_SIZE = 1024
_DEV_INFO_HEAD = struct.Struct("=Q16sQQ")
_DEV_INFO_SIZE = 4096
_DEV_INFO_PATH_AT = 3072
_VOL_ARGS = struct.Struct("=q4088s")
_BLANK_HEAD_BYTES = 128 * 1024
_DEV_STATS_HEAD = struct.Struct("=QQQ5Q")
_DEV_STATS_SIZE = 1032
_BALANCE_SIZE = 1024
_BALANCE_STATE_AT = 8
_BALANCE_STATE_RUNNING = 1
_BALANCE_PROGRESS_AT = 424
_SEARCH_KEY = struct.Struct("=7Q4I32x")
_SEARCH_SIZE = 4096
_SEARCH_HEADER = struct.Struct("=QQQII")

# linux/btrfs_tree.h
_CHUNK_TREE = 3
_FIRST_CHUNK = 256
_CHUNK_ITEM = 228
_BLOCK_GROUP_METADATA = 1 << 2
_CHUNK_HEAD = struct.Struct("=QQQQIIIHH")
_STRIPE = struct.Struct("=QQ16s")
_MAX = 2**64 - 1

_SUPERBLOCK_AT = 64 * 1024
_SUPERBLOCK_HEAD = struct.Struct("=32s16sQQ8s")  # checksum, fsid, place, flags, magic
_MAGIC = b"_BHRfS_M"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which filesystem an open file is in, how many devices it has, how large a leaf is."""

    uuid: str
    device_count: int
    highest_devid: int
    node_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceExtent:
    """A device as the filesystem counts it; `path` is empty when the device is missing."""

    devid: int
    allocated_bytes: int
    size_bytes: int
    path: str


def identity(fd: int) -> Identity | None:
    """The filesystem that `fd` is in, or None when it is not BTRFS."""
    reply = bytearray(_FS_INFO_SIZE)
    try:
        fcntl.ioctl(fd, _FS_INFO, reply)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return None
        raise
    highest, count, fsid, nodesize = _FS_INFO_HEAD.unpack_from(reply)
    return Identity(
        uuid=str(uuid.UUID(bytes=fsid)),
        device_count=count,
        highest_devid=highest,
        node_bytes=nodesize,
    )


def devices(fd: int, filesystem: Identity) -> Iterator[DeviceExtent]:
    """All devices, lowest devid first; ids of removed ones are gaps.

    The target of a replace has devid 0 while that runs, and is counted or not (both seen on
    6.18): it becomes a device only when it takes the devid of the one that it replaces.
    """
    found = 0
    for devid in range(1, filesystem.highest_devid + 1):
        if found == filesystem.device_count:
            return
        if device := _device(fd, devid):
            found += 1
            yield device


def _device(fd: int, devid: int) -> DeviceExtent | None:
    question = bytearray(_DEV_INFO_SIZE)
    struct.pack_into("=Q", question, 0, devid)
    try:
        fcntl.ioctl(fd, _DEV_INFO, question)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    _, _, allocated_bytes, size_bytes = _DEV_INFO_HEAD.unpack_from(question)
    return DeviceExtent(
        devid=devid,
        allocated_bytes=allocated_bytes,
        size_bytes=size_bytes,
        path=os.fsdecode(bytes(question[_DEV_INFO_PATH_AT:]).split(b"\0", 1)[0]),
    )


def device_errors(fd: int, devid: int) -> tuple[int, ...]:
    """How often the device failed since it was last reset, in the kernel's order.

    Writes, reads, flushes, corrupted blocks, blocks of another generation: kept on disk, so over
    reboots. Empty where it cannot be told. Needs no privilege.
    """
    question = bytearray(_DEV_STATS_SIZE)
    struct.pack_into("=QQ", question, 0, devid, 5)
    try:
        fcntl.ioctl(fd, _DEV_STATS, question)
    except OSError as error:
        # A device removed meanwhile, or a kernel that does not tell: no reason to lose the reading.
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOTTY, errno.EPERM):
            return ()
        raise
    return _DEV_STATS_HEAD.unpack_from(question)[3:]


def add_device_now(fd: int, node: str) -> None:
    """Make a device a device in a millisecond; what `btrfs device add` prepares must be done.

    Only for a device proved blank: the one look that is left shows whether anybody was faster
    since. Raises OSError, EBUSY while another exclusive operation runs.
    """
    claim = os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.posix_fadvise(claim, 0, _BLANK_HEAD_BYTES, os.POSIX_FADV_DONTNEED)
        if os.pread(claim, _BLANK_HEAD_BYTES, 0).strip(b"\0"):
            raise OSError(errno.EEXIST, "not blank any more")
    finally:
        os.close(claim)
    arguments = bytearray(_VOL_ARGS.pack(0, os.fsencode(node)))
    # Positive: one of enum btrfs_err_code, of which only the exclusive operation applies.
    if fcntl.ioctl(fd, _ADD_DEV, arguments) > 0:
        raise OSError(errno.EBUSY, "another exclusive operation in progress")


@dataclass(frozen=True, slots=True)
class Progress:
    """How many chunks a balance wanted to move when it began, and how many it has moved.

    It is paused when it is not `running`.
    """

    expected: int
    completed: int
    running: bool


def balance_progress(fd: int) -> Progress | None:
    """How far the balance is that runs or is paused; None when there is none, whoever says so.

    None, too, without CAP_SYS_ADMIN. Waits for the commit with which a balance begins and ends: for
    2.8 s under a busy writer (measured).
    """
    answer = bytearray(_BALANCE_SIZE)
    try:
        fcntl.ioctl(fd, _BALANCE_PROGRESS, answer)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EPERM):
            return None
        raise
    (state,) = struct.unpack_from("=Q", answer, _BALANCE_STATE_AT)
    expected, _, completed = struct.unpack_from("=QQQ", answer, _BALANCE_PROGRESS_AT)
    return Progress(expected, completed, running=bool(state & _BALANCE_STATE_RUNNING))


def devids_with_metadata(fd: int) -> frozenset[int]:
    """The devices that hold a part of at least one METADATA chunk; needs CAP_SYS_ADMIN."""
    return frozenset(
        devid
        for chunk in _chunks(fd)
        if _CHUNK_HEAD.unpack_from(chunk)[3] & _BLOCK_GROUP_METADATA
        for devid in _stripe_devids(chunk)
    )


def _stripe_devids(chunk: bytes) -> Iterator[int]:
    stripe_count = _CHUNK_HEAD.unpack_from(chunk)[7]
    for index in range(stripe_count):
        yield _STRIPE.unpack_from(chunk, _CHUNK_HEAD.size + index * _STRIPE.size)[0]


def _chunks(fd: int) -> Iterator[bytes]:
    start = 0
    while True:
        search = bytearray(_SEARCH_SIZE)
        # Objectid and type are one value, so that the offset alone is the cursor.
        key = (_CHUNK_TREE, _FIRST_CHUNK, _FIRST_CHUNK, start, _MAX, 0, _MAX)
        _SEARCH_KEY.pack_into(search, 0, *key, _CHUNK_ITEM, _CHUNK_ITEM, 1024, 0)
        fcntl.ioctl(fd, _TREE_SEARCH, search)
        count = _SEARCH_KEY.unpack_from(search)[9]
        if count == 0:
            return
        place = _SEARCH_KEY.size
        for _ in range(count):
            _, _, offset, _, length = _SEARCH_HEADER.unpack_from(search, place)
            place += _SEARCH_HEADER.size
            yield bytes(search[place : place + length])
            place += length
            start = offset + 1


def superblock_uuid(node: str) -> str:
    """The filesystem that the first superblock on this node belongs to; empty when there is none.

    Source: the BTRFS on-disk format, superblock at 64 KiB. Membership on disk is what
    counts after a failed add: sysfs goes on listing a device that never got a
    superblock (measured on 6.18).
    """
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Not from pages that an earlier look at the blank device left in the cache.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        head = os.pread(fd, _SUPERBLOCK_HEAD.size, _SUPERBLOCK_AT)
    finally:
        os.close(fd)
    if len(head) < _SUPERBLOCK_HEAD.size:
        return ""
    _, fsid, _, _, magic = _SUPERBLOCK_HEAD.unpack(head)
    return str(uuid.UUID(bytes=fsid)) if magic == _MAGIC else ""
