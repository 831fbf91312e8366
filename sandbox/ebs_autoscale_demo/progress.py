"""The progress of the demo: what the screen shows, observed from outside the daemon."""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from ebs_autoscale_demo.clock import now_seconds
from ebs_autoscale_demo.command import ToolFailed
from ebs_autoscale_demo.daemon import Daemon, LogLine
from ebs_autoscale_demo.filesystem import Filesystem, Space
from ebs_autoscale_demo.workload import Workload
from ebs_autoscale_demo.writer import Writer

_RATE_OVER_SECONDS = 3.0


@dataclass(slots=True)
class GrowthTimer:
    """Measures each growth, from the first report of low space until the filesystem is larger.

    Low space that is reported while a growth is still balancing metadata belongs to the next one.
    """

    growth_seconds: list[float] = field(default_factory=list)
    _low_since_seconds: float | None = None
    _size_bytes: int = 0
    _is_finishing: bool = False

    def observe(self, status: dict[str, Any], space: Space, *, now_seconds: float) -> None:
        """Take the status of the daemon and the size of the filesystem into account."""
        is_growing = status.get("state") == "growing"
        if 0 < self._size_bytes < space.size_bytes:
            self.growth_seconds.append(now_seconds - (self._low_since_seconds or now_seconds))
            self._low_since_seconds = None
            self._is_finishing = True
        self._size_bytes = space.size_bytes
        self._is_finishing = self._is_finishing and is_growing
        if status.get("low") and not self._is_finishing:
            self._low_since_seconds = self._low_since_seconds or now_seconds
        elif not is_growing:
            self._low_since_seconds = None


class Progress:
    """The state of the demo at each moment; only the thread of the screen calls `observe`."""

    def __init__(self) -> None:
        self._began_seconds = now_seconds()
        self._samples: deque[tuple[float, int]] = deque()
        self._filesystem_in_use = Lock()
        self.phase = ""
        self.workload: Workload | None = None
        self.writer: Writer | None = None
        self.filesystem: Filesystem | None = None
        self.daemon: Daemon | None = None
        self.space: Space | None = None
        self.status: dict[str, Any] = {}
        self.log: list[tuple[float, LogLine]] = []
        self.timer = GrowthTimer()

    @property
    def elapsed_seconds(self) -> float:
        """Time since the start of the demo."""
        return now_seconds() - self._began_seconds

    @property
    def bytes_per_second(self) -> float:
        """The measured rate of writing, or of reading back, over the last seconds."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began)

    @property
    def is_verifying(self) -> bool:
        """Whether the data is being read back."""
        return self.writer is not None and self.writer.verified_bytes > 0

    @property
    def daemon_is_idle(self) -> bool:
        """Whether no growth is running or due."""
        return self.status.get("state") == "watching" and not self.status.get("low")

    @property
    def daemon_activity(self) -> str:
        """What the daemon is doing, in its own words."""
        if not self.status:
            return "not running"
        if self.status["state"] == "growing":
            return str(self.status["activity"] or "starting a growth")
        return "; ".join(self.status["conditions"].values()) or "watching"

    @property
    def done_and_total_bytes(self) -> tuple[int, int]:
        """How much of the data has been written, or read back, and how much there is."""
        if not self.writer or not self.workload:
            return 0, 1
        done_bytes = self.writer.verified_bytes or self.writer.written_bytes
        return done_bytes, self.workload.data_bytes

    def release_filesystem(self) -> None:
        """Stop measuring the filesystem, so that it can be unmounted."""
        with self._filesystem_in_use:
            self.filesystem = None

    def observe(self) -> None:
        """Update everything."""
        if self.daemon:
            self.status = self.daemon.status()
            lines = self.daemon.new_log_lines()
            self.log += [(self.elapsed_seconds, line) for line in lines]
        with self._filesystem_in_use:
            if self.filesystem:
                # While a device is being added, `btrfs` may fail: the next look succeeds.
                with suppress(ToolFailed):
                    self.space = self.filesystem.measure()
        now = now_seconds()
        if self.space:
            self.timer.observe(self.status, self.space, now_seconds=now)
        if self.writer:
            moved_bytes = self.writer.written_bytes + self.writer.verified_bytes
            self._samples.append((now, moved_bytes))
            while now - self._samples[0][0] > _RATE_OVER_SECONDS:
                self._samples.popleft()
