"""One daemon and one growth per filesystem: locks that die with their holder."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ebs_autoscale.errors import Cause, LockHeld, Unfit


class Lock:
    """An exclusive flock(2) on a file that says who holds it; released when closed or dead.

    Raises LockHeld at once when another process has it. A process that inherits the
    descriptor holds the lock too: it lasts until the last of them ends. The file itself
    stays: to remove it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            # Whoever may read it could hold it: an flock needs no right to write.
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
                f"another ebs-autoscale works on this filesystem (pid {holder}, {path})",
                hint="see `ebs-autoscale status`",
                cause=Cause.LOCKED,
            ) from error
        self.sign()

    def sign(self) -> None:
        """Name this process as the holder, for whoever finds the lock held."""
        # On a full /run the lock holds all the same.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def fileno(self) -> int:
        """The descriptor to inherit."""
        return self._fd

    def close(self) -> None:
        """Let go; whoever inherited it keeps it."""
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
