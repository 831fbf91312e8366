"""The installed program and its Python, which may be replaced while this process runs."""

import os
import sys
from pathlib import Path

import ebs_autoscale
from ebs_autoscale.clock import Clock

# A look costs microseconds. Installing takes seconds, in which half of the files are new.
LOOK_EVERY_SECONDS = 4.0
SETTLED_AFTER_SECONDS = 8.0

_Stamp = tuple[int, int]


class Installation:
    """Whether the program's files and Python are still those that this process was started from.

    A growth is a new process, of whatever is installed by then; an old loop must not go on with it.
    Without its Python there is none: an upgrade of the host may bring another under another name.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        path: Path = Path(ebs_autoscale.__file__),
        python: Path = Path(sys.executable),
    ) -> None:
        self._clock = clock
        self._path = path
        self._python = python
        self._ours = self._last = self._stamp()
        self._looked_at_seconds = self._changed_at_seconds = clock.now_seconds()

    def is_replaced(self) -> bool:
        """Whether there is another program or Python, whose installation is over."""
        now = self._clock.now_seconds()
        if now - self._looked_at_seconds >= LOOK_EVERY_SECONDS:
            self._looked_at_seconds = now
            stamp = self._stamp()
            if stamp != self._last:
                self._last, self._changed_at_seconds = stamp, now
        is_other = self._last is not None and self._last != self._ours
        return is_other and now - self._changed_at_seconds >= SETTLED_AFTER_SECONDS

    def _stamp(self) -> tuple[_Stamp, _Stamp | None] | None:
        program = _stamp(self._path)
        return (program, _stamp(self._python)) if program else None


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 -- a tick takes microseconds
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
