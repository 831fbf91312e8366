"""What is to be seen in a demo at each moment; the play moves it on, a view shows it."""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.model import Reading
from ebs_autoscale.telemetry.events import EventKind
from ebs_autoscale_demo.daemon import Daemon, JournalLine
from ebs_autoscale_demo.workload import Script
from ebs_autoscale_demo.writer import Writer

_RATE_OVER_SECONDS = 3.0
_ADDED = "AddDevice"


@dataclass(slots=True)
class Stopwatch:
    """From the daemon's first tick that found space low to the word that the new device is in.

    While metadata is settled after that, space may be low again: that counts for the next growth.
    """

    growth_seconds: list[float] = field(default_factory=list)
    _low_since_seconds: float | None = None

    def see(self, report: dict[str, Any], *, now_seconds: float) -> None:
        """Take the daemon's report into account."""
        if report.get("low"):
            self._low_since_seconds = self._low_since_seconds or now_seconds
        elif report.get("state") != "growing":
            self._low_since_seconds = None

    def hear(self, line: JournalLine, *, now_seconds: float) -> None:
        """Take a line of the daemon's journal into account."""
        if line.event == EventKind.GROWTH_DONE:
            self._low_since_seconds = None
        if line.event == EventKind.STEP_DONE and line.fields.get("step") == _ADDED:
            self.growth_seconds.append(now_seconds - (self._low_since_seconds or now_seconds))
            self._low_since_seconds = None


class Scene:
    """Everything that a view may show; only the watcher's thread calls `look`."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._began_seconds = clock.now_seconds()
        self._samples: deque[tuple[float, int]] = deque()
        self._looking = Lock()
        self.act = ""
        self.script: Script | None = None
        self.writer: Writer | None = None
        self.filesystem: BtrfsFilesystem | None = None
        self.daemon: Daemon | None = None
        self.reading: Reading | None = None
        self.report: dict[str, Any] = {}
        self.journal: list[tuple[float, JournalLine]] = []
        self.stopwatch = Stopwatch()

    @property
    def elapsed_seconds(self) -> float:
        """Time since the demo began."""
        return self._clock.now_seconds() - self._began_seconds

    @property
    def bytes_per_second(self) -> float:
        """What was really written, or read back, over the last seconds."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began)

    @property
    def is_verifying(self) -> bool:
        """Whether data is read back, no longer written."""
        return self.writer is not None and self.writer.verified_bytes > 0

    @property
    def daemon_is_idle(self) -> bool:
        """Whether no growth runs and none is due."""
        return self.report.get("state") == "watching" and not self.report.get("low")

    @property
    def doing(self) -> str:
        """What the daemon is at, in its own words."""
        if not self.report:
            return "not running"
        if self.report["state"] == "growing":
            return str(self.report["activity"] or "asks EC2 what there is, and decides")
        return "; ".join(self.report["conditions"].values()) or "watches"

    @property
    def progress(self) -> tuple[int, int]:
        """How many bytes of how many are through in this act."""
        if not self.writer or not self.script:
            return 0, 1
        done = self.writer.verified_bytes or self.writer.written_bytes
        return done, self.script.data_bytes

    def leave_filesystem(self) -> None:
        """From now on nobody looks at it: it can be unmounted."""
        with self._looking:
            self.filesystem = None

    def look(self) -> None:
        """See how things stand now."""
        with self._looking:
            if self.filesystem:
                # For the moment of an add the kernel's own views disagree.
                with suppress(EbsAutoscaleError):
                    self.reading = self.filesystem.read()
        now_seconds = self._clock.now_seconds()
        if self.daemon:
            # The report first: what it says of a step's end, the journal already has.
            self.report = self.daemon.report()
            for line in self.daemon.journal():
                self.journal.append((self.elapsed_seconds, line))
                self.stopwatch.hear(line, now_seconds=now_seconds)
            self.stopwatch.see(self.report, now_seconds=now_seconds)
        if self.writer:
            moved_bytes = self.writer.written_bytes + self.writer.verified_bytes
            self._samples.append((now_seconds, moved_bytes))
            while now_seconds - self._samples[0][0] > _RATE_OVER_SECONDS:
                self._samples.popleft()
