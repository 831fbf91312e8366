"""The installed program, which may be replaced while this process runs."""

import os
from pathlib import Path

import ebs_autoscale
from ebs_autoscale.clock import Clock

# A look costs microseconds. Installing takes seconds, in which half of the files are new.
LOOK_EVERY_SECONDS = 4.0
SETTLED_AFTER_SECONDS = 8.0


class Installation:
    """Whether the program's files are still the ones that this process was started from.

    A growth is a new process, of whatever is installed by then; an old loop must not go on with it.
    """

    def __init__(self, clock: Clock, *, path: Path = Path(ebs_autoscale.__file__)) -> None:
        self._clock = clock
        self._path = path
        self._ours = self._last = self._stamp()
        self._looked_at_seconds = self._changed_at_seconds = clock.now_seconds()

    def is_replaced(self) -> bool:
        """Whether there is another program, whose installation is over."""
        now = self._clock.now_seconds()
        if now - self._looked_at_seconds >= LOOK_EVERY_SECONDS:
            self._looked_at_seconds = now
            stamp = self._stamp()
            if stamp != self._last:
                self._last, self._changed_at_seconds = stamp, now
        is_other = self._last is not None and self._last != self._ours
        return is_other and now - self._changed_at_seconds >= SETTLED_AFTER_SECONDS

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 -- a tick takes microseconds
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
