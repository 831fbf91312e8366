"""BTRFS ioctls, without a subprocess.

None of a reading waits for a commit. FS_INFO and DEV_STATS take device_list_mutex, which a commit
holds while it writes the superblocks, and SUBVOL_GETFLAGS a lock that others hold while they wait
for a commit; what they tell is in sysfs, statfs(2) and access(2).
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# linux/btrfs.h
_DEV_INFO = 0xD000941E
_ADD_DEV = 0x5000940A
_BALANCE_PROGRESS = 0x84009422
_TREE_SEARCH_V2 = 0xC0709411
_INO_LOOKUP = 0xD0009412
_INO_LOOKUP_SIZE = 4096
_DEV_INFO_HEAD = struct.Struct("=Q16sQQ")
_DEV_INFO_SIZE = 4096
_DEV_INFO_PATH_AT = 3072
_VOL_ARGS = struct.Struct("=q4088s")
_BLANK_HEAD_BYTES = 128 * 1024
_BALANCE_SIZE = 1024
_BALANCE_STATE_AT = 8
_BALANCE_STATE_RUNNING = 1
_BALANCE_FILTERS_AT = 16
_BALANCE_COUNTERS_AT = 424
_BALANCE_COUNTERS = struct.Struct("=QQQ")  # expected, considered, completed
_SEARCH_KEY = struct.Struct("=7Q4I32xQ")  # the size of the buffer behind it comes last
# Holds any item, which is in one node. For one with more than 122 stripes the first version of the
# ioctl, whose buffer is smaller, returns nothing.
_SEARCH_BYTES = 64 * 1024
_SEARCH_HEADER = struct.Struct("=QQQII")

# linux/btrfs_tree.h
_CHUNK_TREE = 3
_QUOTA_TREE = 8
_QGROUP_RELATION = 246
_FIRST_FREE_OBJECT = 256
_FIRST_CHUNK = 256
_CHUNK_ITEM = 228
_BLOCK_GROUP_METADATA = 1 << 2
_CHUNK_HEAD = struct.Struct("=QQQQIIIHH")
_STRIPE = struct.Struct("=QQ16s")
_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """A device as the filesystem accounts for it; `path` is empty when it is missing."""

    devid: int
    allocated_bytes: int
    size_bytes: int
    path: str


def subvolume_of(fd: int) -> int | None:
    """The id of the subvolume that a folder is in; None when it is not in BTRFS.

    Needs no privilege.
    """
    question = bytearray(_INO_LOOKUP_SIZE)
    struct.pack_into("=QQ", question, 0, 0, _FIRST_FREE_OBJECT)
    try:
        fcntl.ioctl(fd, _INO_LOOKUP, question)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return None
        raise
    return int(struct.unpack_from("=Q", question)[0])


def is_read_only(fd: int) -> bool:
    """Whether nobody can write to this folder: the mount, the filesystem or the subvolume."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.faccessat(fd, b".", os.W_OK, 0) != 0 and ctypes.get_errno() == errno.EROFS


def parent_qgroups(fd: int, qgroup: int) -> list[int]:
    """The quota groups that this one is in; none without CAP_SYS_ADMIN."""
    try:
        found = _search(fd, _QUOTA_TREE, qgroup, _QGROUP_RELATION, 0)
    except OSError as error:
        # Quotas were just turned off, or we are an ordinary user.
        if error.errno in (errno.ENOENT, errno.EPERM):
            return []
        raise
    # A relation is recorded for both; an item has no content. The level is in the upper 16 bits.
    return [other for other, _ in found if other >> 48 > qgroup >> 48]


def device_info(fd: int, devid: int) -> DeviceInfo | None:
    """The device with this devid, seed devices included; None when there is none."""
    question = bytearray(_DEV_INFO_SIZE)
    struct.pack_into("=Q", question, 0, devid)
    try:
        fcntl.ioctl(fd, _DEV_INFO, question)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    _, _, allocated_bytes, size_bytes = _DEV_INFO_HEAD.unpack_from(question)
    return DeviceInfo(
        devid=devid,
        allocated_bytes=allocated_bytes,
        size_bytes=size_bytes,
        path=os.fsdecode(bytes(question[_DEV_INFO_PATH_AT:]).split(b"\0", 1)[0]),
    )


def add_device(fd: int, node: str) -> None:
    """Add a device in about a millisecond, without the preparations of `btrfs device add`.

    Only for a device that was verified to be blank; reads its beginning once more, in case another
    process has written to it since. Raises OSError, EBUSY while another exclusive operation runs.
    """
    claim = os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.posix_fadvise(claim, 0, _BLANK_HEAD_BYTES, os.POSIX_FADV_DONTNEED)
        if os.pread(claim, _BLANK_HEAD_BYTES, 0).strip(b"\0"):
            raise OSError(errno.EEXIST, "no longer blank")
    finally:
        os.close(claim)
    arguments = bytearray(_VOL_ARGS.pack(0, os.fsencode(node)))
    # Positive: enum btrfs_err_code, of which an add returns only the exclusive operation.
    if fcntl.ioctl(fd, _ADD_DEV, arguments) > 0:
        raise OSError(errno.EBUSY, "another exclusive operation in progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A balance that is running or paused, and its chunks.

    `fingerprint` does not change while it is paused, and changes when it is resumed.
    """

    running: bool
    expected_chunks: int
    moved_chunks: int
    fingerprint: bytes


def balance(fd: int) -> Balance | None:
    """The running or paused balance; None when there is none, or without CAP_SYS_ADMIN.

    Waits for the commit with which a balance begins or ends: 2.8 s under a busy writer (measured).
    """
    answer = bytearray(_BALANCE_SIZE)
    try:
        fcntl.ioctl(fd, _BALANCE_PROGRESS, answer)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EPERM):
            return None
        raise
    (state,) = struct.unpack_from("=Q", answer, _BALANCE_STATE_AT)
    expected, considered, moved = _BALANCE_COUNTERS.unpack_from(answer, _BALANCE_COUNTERS_AT)
    # A resume changes the filters: fs/btrfs/volumes.c, update_balance_args.
    filters = bytes(answer[_BALANCE_FILTERS_AT:_BALANCE_COUNTERS_AT])
    return Balance(
        running=bool(state & _BALANCE_STATE_RUNNING),
        expected_chunks=expected,
        moved_chunks=moved,
        fingerprint=filters + _BALANCE_COUNTERS.pack(expected, considered, moved),
    )


def devids_with_metadata(fd: int) -> frozenset[int]:
    """The devices that have a stripe of any metadata chunk; needs CAP_SYS_ADMIN. Raises OSError."""
    return frozenset(devid for chunk in _chunks(fd) for devid in _metadata_devids(chunk))


def _metadata_devids(chunk: bytes) -> Iterator[int]:
    try:
        _, _, _, kind, _, _, _, stripe_count, _ = _CHUNK_HEAD.unpack_from(chunk)
        if kind & _BLOCK_GROUP_METADATA:
            for index in range(stripe_count):
                yield _STRIPE.unpack_from(chunk, _CHUNK_HEAD.size + index * _STRIPE.size)[0]
    except struct.error as error:
        raise OSError(errno.EIO, f"invalid chunk item of {len(chunk)} bytes") from error


def _chunks(fd: int) -> Iterator[bytes]:
    start = 0
    while found := _search(fd, _CHUNK_TREE, _FIRST_CHUNK, _CHUNK_ITEM, start):
        yield from (chunk for _, chunk in found)
        start = found[-1][0] + 1


def _search(fd: int, tree: int, objectid: int, kind: int, start: int) -> list[tuple[int, bytes]]:
    """Offset and content of the items of one object and kind from `start` on, the first of many.

    As only one object and one kind are searched, the offset is the cursor. Raises OSError.
    """
    search = bytearray(_SEARCH_KEY.size + _SEARCH_BYTES)
    ranges = (objectid, objectid, start, _MAX, 0, _MAX, kind, kind)
    _SEARCH_KEY.pack_into(search, 0, tree, *ranges, 1024, 0, _SEARCH_BYTES)
    fcntl.ioctl(fd, _TREE_SEARCH_V2, search)
    found: list[tuple[int, bytes]] = []
    place = _SEARCH_KEY.size
    for _ in range(_SEARCH_KEY.unpack_from(search)[9]):
        content = place + _SEARCH_HEADER.size
        if content > len(search):
            raise OSError(errno.EIO, "invalid answer to a tree search")
        _, _, offset, _, length = _SEARCH_HEADER.unpack_from(search, place)
        place = content + length
        if not start <= offset < _MAX:
            raise OSError(errno.EIO, f"invalid answer to a tree search: offset {offset}")
        found.append((offset, bytes(search[content:place])))
    return found
