"""Locks between processes: one daemon and one growth for each filesystem."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ebs_autoscale.errors import Cause, LockHeld, Unfit


class Lock:
    """An exclusive flock(2) on a file that contains the pid of its holder.

    Raises LockHeld at once when another process holds it. The kernel releases it when the holder
    ends; a process that inherits the descriptor holds it as well. The file is never removed: else
    two processes could lock two files of the same name.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            # An flock needs only read permission, so others must not have that.
            os.fchmod(self._fd, 0o600)
        except OSError as error:
            raise Unfit(
                f"cannot open the lock {path}: {error.strerror}", cause=Cause.LOCK
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._fd, 64).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise LockHeld(
                f"another ebs-autoscale process (pid {holder}) holds {path}",
                hint="see `ebs-autoscale status`",
                cause=Cause.LOCKED,
            ) from error
        self.sign()

    def sign(self) -> None:
        """Write the pid of this process, for the message of LockHeld."""
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
