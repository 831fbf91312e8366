"""The emergency reserve: a file that holds space until it is released right before an add."""

import ctypes
import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from typing import NamedTuple

from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.chunks import reserve_metadata_bytes
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount
from ebs_autoscale.filesystems.btrfs.sysfs import node_bytes_of
from ebs_autoscale.model import MIB, Reading
from ebs_autoscale.units import format_size

NAME = ".ebs-autoscale-reserve"
"""In the root of the mountpoint, where other users may be able to create files, too."""

# linux/btrfs.h. Commits without writing dirty data first, as `btrfs filesystem sync` does.
_START_SYNC = 0x80089418
_WAIT_SYNC = 0x40089416

# Extended attributes are metadata that one unlink frees; only root sees those of `trusted`. The
# largest that fits into a leaf is this much smaller than the leaf.
_ATTRIBUTE = "trusted.ebs-autoscale.{}"
_LEAF_SLACK_BYTES = 1024
_BLOCK_BYTES = 512  # the unit of st_blocks, see stat(2)
# The kernel lets nobody but root set it: what has it was made here, whoever owns it by now.
_MARK = _ATTRIBUTE.format(0)
# Since Linux 6.3 a block group holds extents of one size class (fs/btrfs/block-group.h: up to
# 128 KiB, up to 8 MiB, larger), and the kernel prefers a new chunk to a group of another class.
# Writers of small extents therefore cannot use a reserve of large ones: they request a chunk, and
# meet the race (measured: 12 % of adds). Each row: up to this share of the reserve, this size.
_EXTENTS = ((0.5, 64 * 1024), (0.75, MIB), (1.0, 16 * MIB))
_KEEP_SIZE = 1  # linux/falloc.h
# linux/fiemap.h: start, length, flags, mapped, count; of an extent only the flags are of use.
_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=40xI12x")
_FIEMAP_EXTENT_SHARED = 0x2000
# openat2(2), not across a mount: a FUSE filesystem of a user may never answer.
_OPENAT2 = 437
_RESOLVE_NO_XDEV = 1
_SYSCALL_IS_MISSING = (errno.ENOSYS, errno.EPERM)  # before Linux 5.6, or filtered
# At 1 GB/s a reserve of 256 MiB lasts for 0.25 s, and an add took up to 0.2 s (measured): with
# less available space than this many times the reserve, programs may meet ENOSPC before the add.
_NEAR_ENOSPC_FACTOR = 4


class Held(NamedTuple):
    """The data that is held; or `fault`: why what has the reserve's name holds nothing for us."""

    data_bytes: int
    fault: str = ""


def held(folder_fd: int) -> Held:
    """What the reserve in this folder holds; never waits for whatever another user put there."""
    try:
        fd = _find(folder_fd)
    except FileNotFoundError:
        return Held(0)
    except FileExistsError as error:
        return Held(0, f"{NAME} {error.strerror}")
    except OSError as error:
        return Held(0, f"{NAME} cannot be opened: {error.strerror}")
    try:
        status = os.fstat(fd)
        # The size is set last: a file that has it also has all its attributes.
        fault = _fault_of(status)
        if not fault and status.st_size and _is_shared(fd):
            fault = "shares its space with a snapshot, so that releasing it would free nothing"
    finally:
        os.close(fd)
    return Held(0, f"{NAME} {fault}") if fault else Held(status.st_size)


def _fault_of(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid != 0:
        return f"belongs to uid {status.st_uid}"
    if status.st_mode & 0o077:
        return f"has mode {stat.S_IMODE(status.st_mode):o}, so that other users can use its space"
    if status.st_nlink != 1:
        return "has another name"
    if status.st_blocks * _BLOCK_BYTES < status.st_size:
        return "has no space allocated, such as one from a backup"
    return ""


def _is_shared(found: int) -> bool:
    """Whether its first extent has another owner, such as a snapshot; takes 30 µs."""
    how = os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
    asked = bytearray(_FIEMAP.pack(0, _BLOCK_BYTES, 0, 0, 1, 0) + bytes(_FIEMAP_EXTENT.size))
    try:
        fd = os.open(f"/proc/self/fd/{found}", how)
        try:
            fcntl.ioctl(fd, _FS_IOC_FIEMAP, asked)
        finally:
            os.close(fd)
    except OSError:
        return False
    [flags] = _FIEMAP_EXTENT.unpack_from(asked, _FIEMAP.size)
    return bool(flags & _FIEMAP_EXTENT_SHARED)


def is_near_enospc(reading: Reading) -> bool:
    """Whether programs may get ENOSPC before a device is added, unless the reserve is released."""
    metadata_bytes = reserve_metadata_bytes(reading.reserve_bytes)
    return (
        reading.available_bytes < _NEAR_ENOSPC_FACTOR * reading.reserve_bytes
        or reading.metadata_room_bytes < _NEAR_ENOSPC_FACTOR * metadata_bytes
    )


class Reserve:
    """The reserve in the root of one mount; its size is always read from the filesystem.

    Why there is one: while programs retry on ENOSPC, the kernel may allocate from a device that is
    being added before the device is recorded. It then forces the filesystem read-only
    (docs/metadata.md).
    """

    def __init__(self, mount: BtrfsMount) -> None:
        self._mount = mount

    def keep(self, data_bytes: int) -> str:
        """Hold this much data with its metadata, none for 0; returns what was done, "" for nothing.

        Raises Transient when there is no room, holding nothing; Unfit when the file of this name
        is not the reserve.
        """
        try:
            with self._mount.opened() as mount:
                if not data_bytes:
                    released = release(mount.fd)
                    return f"released the reserve of {format_size(released)}" if released else ""
                taken = take(mount.fd, data_bytes, node_bytes=node_bytes_of(mount.uuid))
                return f"reserved {format_size(data_bytes)} for emergencies" if taken else ""
        except FileExistsError as error:
            raise Unfit(
                f"{self._mount.path}/{NAME} is not the emergency reserve: it {error.strerror}",
                hint="move it elsewhere, or set `metadata.reserve: off`",
                cause=Cause.RESERVE,
            ) from error
        except PermissionError as error:
            raise Unfit(
                f"no permission to create the emergency reserve in {self._mount.path}, which "
                "belongs to another user",
                hint="run `systemctl edit ebs-autoscale` and add "
                "CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_FOWNER to [Service], or set "
                "metadata.reserve: off",
                cause=Cause.RESERVE,
            ) from error
        except OSError as error:
            raise Transient(
                f"cannot change the emergency reserve: {error}", cause=Cause.RESERVE_FAILED
            ) from error


def take(folder_fd: int, data_bytes: int, *, node_bytes: int) -> bool:
    """Hold this much data with its metadata; False when it is held already.

    `node_bytes` is the size of the filesystem's tree nodes. Raises OSError, having released what
    was taken so far; FileExistsError when the file of this name is not the reserve.
    """
    if held(folder_fd).data_bytes == data_bytes:
        return False
    release(folder_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(NAME, flags, 0o600, dir_fd=folder_fd)
    except FileExistsError as error:
        raise _not_ours("was just made by another process") from error
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
    """Allocate small, then medium, then large extents; then set the size of the file."""
    start = 0
    for share, extent_bytes in _EXTENTS:
        end = int(data_bytes * share)
        while start < end:
            length = min(extent_bytes, end - start)
            _fallocate(fd, start, length)
            start += length
    os.ftruncate(fd, data_bytes)


def _fallocate(fd: int, start: int, length: int) -> None:
    """Allocate without changing the size of the file, as os.posix_fallocate does."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int(_KEEP_SIZE), ctypes.c_int64(start), ctypes.c_int64(length))
    if libc.fallocate(ctypes.c_int(fd), *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def release(folder_fd: int) -> int:
    """Make the space available to programs, which takes one commit; returns the bytes held.

    Works on a full filesystem: an unlink may use the kernel's own reserve, a truncation may not.
    Raises OSError, FileExistsError when the file of this name is not the reserve.
    """
    released = held(folder_fd).data_bytes
    try:
        fd = _open_reserve(folder_fd)
    except FileNotFoundError:
        return released
    try:
        with suppress(OSError):
            # Else a process that has it open, such as a backup, would keep its data allocated.
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)
    os.unlink(NAME, dir_fd=folder_fd)
    commit(folder_fd)
    return released


def _open_reserve(folder_fd: int) -> int:
    """The reserve, open for writing; raises FileExistsError when the file of this name is not it.

    It is ours when root made it and it has no content, and stays ours when it is given to another
    user (`chown -R`) or opened to all (`chmod -R`). Nobody else's file is opened, and a lease
    (F_SETLEASE) on one that was ours is not waited for: that would take 45 s.
    """
    found = _find(folder_fd)
    path = f"/proc/self/fd/{found}"
    try:
        status = os.fstat(found)
        is_root_s = status.st_uid == 0 and status.st_nlink == 1
        if not stat.S_ISREG(status.st_mode) or not (is_root_s or _has_mark(path)):
            raise _not_ours(_fault_of(status))
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError as error:
        raise _not_ours("is in use by its owner") from error
    finally:
        os.close(found)
    if _has_content(fd):
        os.close(fd)
        raise _not_ours("has content")
    return fd


def _find(folder_fd: int) -> int:
    """A descriptor of whatever has the reserve's name, which it does not open; raises OSError."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_XDEV)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_OPENAT2, folder_fd, NAME.encode(), how, len(how)))
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number in _SYSCALL_IS_MISSING:
        return os.open(NAME, flags, dir_fd=folder_fd)
    if number == errno.EXDEV:
        raise _not_ours("is a mountpoint")
    raise OSError(number, os.strerror(number), NAME)


def _not_ours(reason: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, reason, NAME)


def commit(fd: int) -> None:
    """Commit the running transaction, which frees what was deleted; raises OSError."""
    number = bytearray(8)
    try:
        fcntl.ioctl(fd, _START_SYNC, number)
        fcntl.ioctl(fd, _WAIT_SYNC, struct.pack("=Q", *struct.unpack("=Q", number)))
    except OSError as error:
        # Another process has committed the transaction in between.
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _has_mark(path: str) -> bool:
    try:
        os.getxattr(path, _MARK)
    except OSError:
        return False
    return True


def _has_content(fd: int) -> bool:
    """Whether it has content: space that is only allocated counts as a hole."""
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True
