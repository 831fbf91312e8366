"""The emergency reserve: a file that takes up space until it is given up right before an add."""

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass

NAME = ".ebs-autoscale-reserve"
"""The documented name, in the root of the mountpoint; root alone can read it."""

MIB = 1024**2

# linux/btrfs.h: commit without waiting for dirty data, which `btrfs filesystem sync` writes first.
_START_SYNC = 0x80089418
_WAIT_SYNC = 0x40089416

# Only attributes take up metadata in one place and go with one unlink; those of `trusted` are
# seen by root alone. A leaf of 16 KiB holds one of this size.
_ATTRIBUTE = "trusted.ebs-autoscale.{}"
_ATTRIBUTE_BYTES = 15 * 1024
# Small-file writers burn 30 MB of metadata a second (measured): half a second, of which
# an add needs a tenth. Small reserves have a sixteenth of their data.
_METADATA_MOST_BYTES = 16 * MIB
_METADATA_SHARE = 16


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
    return Held(data_bytes=status.st_size, metadata_bytes=metadata_bytes(status.st_size))


def take(folder_fd: int, data_bytes: int) -> bool:
    """Hold this much data and the metadata that goes with it; False when nothing had to be done.

    Raises OSError, FileExistsError where the name belongs to somebody else's file; what was
    taken up to then is given up again.
    """
    if held(folder_fd).data_bytes == data_bytes:
        return False
    give_up(folder_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(NAME, flags, 0o600, dir_fd=folder_fd)
    try:
        for number in range(metadata_bytes(data_bytes) // _ATTRIBUTE_BYTES):
            os.setxattr(fd, _ATTRIBUTE.format(number), bytes(_ATTRIBUTE_BYTES))
        os.posix_fallocate(fd, 0, data_bytes)
    except OSError:
        os.unlink(NAME, dir_fd=folder_fd)
        raise
    finally:
        os.close(fd)
    return True


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


def metadata_bytes(data_bytes: int) -> int:
    """What a reserve of this much data holds of metadata, one copy of it."""
    return min(_METADATA_MOST_BYTES, data_bytes // _METADATA_SHARE)


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
