"""Locks between processes: one daemon and one growth for each filesystem."""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

from ebs_autoscale.errors import Cause, LockHeld, Unfit
from ebs_autoscale.host.files import make_folder

# No file has to be created for a lock on this one, and only root can open it.
CONTROL_DEVICE = Path("/dev/btrfs-control")
# struct flock of fcntl(2): type, whence, start, length, pid.
_RANGE = struct.Struct("@hhqqi0q")


class Lock:
    """An exclusive flock(2) on a file that contains the pid of its holder.

    Raises LockHeld at once when another process holds it. The kernel releases it when the holder
    ends; a process that inherits the descriptor holds it as well. The file is never removed: else
    two processes could lock two files of the same name.

    Where the file cannot be created, as in a full /run, a byte of the control device of BTRFS is
    locked instead, whose number comes from the path: a filesystem must be watched all the same.
    """

    def __init__(self, path: Path) -> None:
        self._is_file = True
        try:
            self._fd = _open_file(path)
        except OSError as error:
            try:
                self._fd = os.open(CONTROL_DEVICE, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                what = f"cannot open the lock {path}: {error.strerror}"
                raise Unfit(what, cause=Cause.LOCK) from error
            self._is_file = False
        try:
            if self._is_file:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _require_free_range(path)
            else:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _range_of(path))
        except BlockingIOError as error:
            holder = _holder(self._fd) if self._is_file else "unknown"
            os.close(self._fd)
            raise LockHeld(
                f"another ebs-autoscale process (pid {holder}) holds {path}",
                hint="see `ebs-autoscale status`",
                cause=Cause.LOCKED,
            ) from error
        self.sign()

    def sign(self) -> None:
        """Write the pid of this process, for the message of LockHeld."""
        if not self._is_file:
            return
        # The lock is held even when /run is full.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def fileno(self) -> int:
        """The descriptor, for a process that is to inherit the lock."""
        return self._fd

    def close(self) -> None:
        """Release it; a process that inherited it keeps it."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_file(path: Path) -> int:
    make_folder(path.parent)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    # An flock needs only read permission, so others must not have that.
    os.fchmod(fd, 0o600)
    return fd


def _holder(fd: int) -> str:
    return os.read(fd, 64).decode(errors="replace").strip() or "unknown"


def _range_of(path: Path) -> bytes:
    start = crc32(bytes(path))
    return _RANGE.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)


def _require_free_range(path: Path) -> None:
    """Raise BlockingIOError if a process holds this lock that could not create the file."""
    try:
        device = os.open(CONTROL_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        found = fcntl.fcntl(device, fcntl.F_OFD_GETLK, _range_of(path))
    finally:
        os.close(device)
    if _RANGE.unpack(found)[0] != fcntl.F_UNLCK:
        raise BlockingIOError
