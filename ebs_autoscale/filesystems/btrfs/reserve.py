"""The emergency reserve: a file that takes up space until it is given up right before an add."""

import ctypes
import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass

from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.chunks import reserve_metadata_bytes
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount
from ebs_autoscale.model import Reading

MIB = 1024**2

NAME = ".ebs-autoscale-reserve"
"""The documented name, in the root of the mountpoint; root alone can read it."""

# linux/btrfs.h: commit without waiting for dirty data, which `btrfs filesystem sync` writes first.
_START_SYNC = 0x80089418
_WAIT_SYNC = 0x40089416

# Only attributes take up metadata in one place and go with one unlink; those of `trusted` are
# seen by root alone. A leaf holds one that is so much smaller than it is.
_ATTRIBUTE = "trusted.ebs-autoscale.{}"
_LEAF_SLACK_BYTES = 1024
# Since Linux 6.3 a block group takes extents of one size class (fs/btrfs/block-group.h: up to
# 128 KiB, up to 8 MiB, larger), and the allocator rather makes a new chunk than put one into a
# group of another class. Space given up in one piece is thus of no use to small writers: they
# ask for a chunk, which is the race (measured: 12 % of adds). The shares end where they say.
_EXTENTS = ((0.5, 64 * 1024), (0.75, MIB), (1.0, 16 * MIB))
_KEEP_SIZE = 1  # linux/falloc.h
# Writers must not be through with the reserve before the add is: at 1 GB/s 256 MiB last for
# 0.25 s, an add took up to 0.2 s (measured).
_TIGHT_FACTOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the reserve takes up now: bytes of data, and of metadata (one copy)."""

    data_bytes: int
    metadata_bytes: int


NOTHING = Held(data_bytes=0, metadata_bytes=0)


def held(folder_fd: int) -> Held:
    """What is held in this folder; nothing where the name belongs to somebody else's file."""
    try:
        status = os.stat(NAME, dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return NOTHING
    if not _is_ours(status):
        return NOTHING
    # The file gets its size last: one that has it has all of its attributes too.
    return Held(data_bytes=status.st_size, metadata_bytes=reserve_metadata_bytes(status.st_size))


def is_tight(reading: Reading) -> bool:
    """Whether programs may run into ENOSPC before a device is added, so that it pays to give up."""
    metadata_bytes = reserve_metadata_bytes(reading.reserve_bytes)
    return (
        reading.available_bytes < _TIGHT_FACTOR * reading.reserve_bytes
        or reading.metadata_headroom_bytes < _TIGHT_FACTOR * metadata_bytes
    )


class Reserve:
    """The reserve in the root of one mount; what is held is looked up, never remembered.

    Why: a device that is added while writers spin on ENOSPC can be allocated from before the
    kernel has it in its books, and the filesystem is forced read-only (`docs/metadata.md`).
    """

    def __init__(self, mount: BtrfsMount) -> None:
        self._mount = mount

    def keep(self, data_bytes: int) -> str:
        """Hold this much data and the metadata that goes with it, none for 0; says what was done.

        "" when nothing had to be done. Raises Transient when it cannot be done now, having taken
        nothing, and Unfit when the name belongs to somebody else's file.
        """
        try:
            with self._mount.opened() as mount:
                if not data_bytes:
                    given = give_up(mount.fd).data_bytes
                    return f"gave up the reserve of {given // MIB} MiB" if given else ""
                taken = take(mount.fd, data_bytes, node_bytes=mount.identity.node_bytes)
                return f"took a reserve of {data_bytes // MIB} MiB" if taken else ""
        except FileExistsError as error:
            raise Unfit(
                f"{self._mount.path}/{NAME} is not the reserve, but somebody's own",
                hint="move it away, or set `metadata.reserve: off`",
                cause=Cause.RESERVE,
            ) from error
        except PermissionError as error:
            raise Unfit(
                f"{self._mount.path} belongs to somebody whose folder root may not write to here",
                hint="`systemctl edit ebs-autoscale` and add to [Service] "
                "CapabilityBoundingSet=CAP_DAC_OVERRIDE, or set `metadata.reserve: off`",
                cause=Cause.RESERVE,
            ) from error
        except OSError as error:
            raise Transient(
                f"cannot change the reserve: {error}", cause=Cause.RESERVE_FAILED
            ) from error


def take(folder_fd: int, data_bytes: int, *, node_bytes: int) -> bool:
    """Hold this much data and the metadata that goes with it; False when nothing had to be done.

    `node_bytes` is the size of the filesystem's leaves. Raises OSError, FileExistsError where the
    name belongs to somebody else's file; what was taken up to then is given up again.
    """
    if held(folder_fd).data_bytes == data_bytes:
        return False
    give_up(folder_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(NAME, flags, 0o600, dir_fd=folder_fd)
    try:
        for number in range(reserve_metadata_bytes(data_bytes) // node_bytes):
            value = bytes(node_bytes - _LEAF_SLACK_BYTES)
            os.setxattr(fd, _ATTRIBUTE.format(number), value)
        _allocate(fd, data_bytes)
    except OSError:
        os.unlink(NAME, dir_fd=folder_fd)
        commit(folder_fd)
        raise
    finally:
        os.close(fd)
    return True


def _allocate(fd: int, data_bytes: int) -> None:
    """Small extents, then medium, then large ones; the size of the file is set last."""
    start = 0
    for share, extent_bytes in _EXTENTS:
        end = int(data_bytes * share)
        while start < end:
            length = min(extent_bytes, end - start)
            _fallocate(fd, start, length)
            start += length
    os.ftruncate(fd, data_bytes)


def _fallocate(fd: int, start: int, length: int) -> None:
    """Allocate without changing the size of the file, which os.posix_fallocate would."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int(_KEEP_SIZE), ctypes.c_int64(start), ctypes.c_int64(length))
    if libc.fallocate(ctypes.c_int(fd), *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def give_up(folder_fd: int) -> Held:
    """Give the space back to everybody, in the time of one commit; what that was.

    Works on a full filesystem: an unlink may use what only the kernel may, a truncation
    alone may not. Raises OSError.
    """
    given = held(folder_fd)
    try:
        fd = os.open(NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    except FileNotFoundError:
        return given
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise FileExistsError(errno.EEXIST, "no regular file has this name", NAME) from error
    try:
        if not _is_ours(os.fstat(fd)) or _has_content(fd):
            raise FileExistsError(errno.EEXIST, "somebody else's file has this name", NAME)
        with suppress(OSError):
            # Whoever has it open too, such as a backup, would keep its data from being freed.
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)
    os.unlink(NAME, dir_fd=folder_fd)
    commit(folder_fd)
    return given


def commit(fd: int) -> None:
    """Commit the running transaction: only then is what was deleted free; raises OSError."""
    number = bytearray(8)
    try:
        fcntl.ioctl(fd, _START_SYNC, number)
        fcntl.ioctl(fd, _WAIT_SYNC, struct.pack("=Q", *struct.unpack("=Q", number)))
    except OSError as error:
        # The transaction was committed by somebody else in between.
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == 0 and status.st_nlink == 1


def _has_content(fd: int) -> bool:
    """Whether anybody ever wrote to it: what is only allocated counts as a hole."""
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True
