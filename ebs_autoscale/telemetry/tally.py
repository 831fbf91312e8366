"""What is counted since the start of the daemon: growths, their steps, EC2 calls, late ticks."""

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.model import StepKind
from ebs_autoscale.telemetry.events import Event, EventKind

# From a fast EC2 (0.2 s) to a balance of 1 GiB chunks on a slow volume.
STEP_BUCKETS_SECONDS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0)

# Every call that a growth may make, and how it may be answered; a test compares them with the
# policy and with `ec2.calls`, which the idle daemon does not load.
EC2_ACTIONS = (
    "DescribeVolumes",
    "DescribeInstances",
    "DescribeInstanceTypes",
    "CreateVolume",
    "CreateTags",
    "AttachVolume",
    "DetachVolume",
    "DeleteVolume",
    "ModifyInstanceAttribute",
    "ModifyVolume",
    "DescribeVolumesModifications",
)
EC2_RESULTS = ("success", "throttled", "denied", "error", "unanswered")

GROWTHS_KEPT = 5

_RESULTS = {
    EventKind.GROWTH_DONE: "done",
    EventKind.GROWTH_REFUSED: "refused",
    EventKind.GROWTH_FAILED: "failed",
    EventKind.GROWTH_STOPPED: "stopped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentGrowth:
    """A growth that was completed at that time of the epoch; `size_bytes` is 0 if not known."""

    ended_at: int
    growth: str
    seconds: float
    volume: str = ""
    size_bytes: int = 0

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> "RecentGrowth":
        """What the status file says of it; raises KeyError, ValueError or TypeError."""
        return cls(
            ended_at=int(report["ended_at"]),
            growth=str(report["growth"]),
            seconds=float(report["seconds"]),
            volume=str(report["volume"]),
            size_bytes=int(report["size_bytes"]),
        )


class Histogram:
    """How many durations were at most that long, for each of STEP_BUCKETS_SECONDS."""

    def __init__(self) -> None:
        self.counts = [0] * (len(STEP_BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(STEP_BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class Tally:
    """Counts what growths tell; every key that can be foreseen is there from the start.

    `growths` are ends of growths by result and cause, "" without one.
    """

    def __init__(self) -> None:
        refusals = {cause for cause in Cause if cause.exit is Exit.REFUSED}
        self.growths: dict[tuple[str, str], int] = {
            ("done", ""): 0,
            ("stopped", ""): 0,
            **{("refused" if each in refusals else "failed", each.value): 0 for each in Cause},
        }
        self.ec2_calls = {(each, result): 0 for each in EC2_ACTIONS for result in EC2_RESULTS}
        self.steps = {step.value: Histogram() for step in StepKind}
        self.late_ticks = 0
        self.recent: deque[RecentGrowth] = deque(maxlen=GROWTHS_KEPT)

    def add(self, event: Event, wall_seconds: float) -> None:
        """Count an event of a growth."""
        match event.kind:
            case EventKind.EC2_CALL:
                _count(self.ec2_calls, (str(event.action), str(event.result)))
            case EventKind.STEP_DONE if event.step in self.steps and event.seconds is not None:
                self.steps[event.step].add(float(event.seconds))
            case kind if result := _RESULTS.get(kind):
                is_stopped = kind is EventKind.GROWTH_STOPPED
                cause = "" if is_stopped or not event.cause else event.cause.value
                _count(self.growths, (result, cause))
        if event.kind is EventKind.GROWTH_DONE:
            self.recent.append(
                RecentGrowth(
                    ended_at=round(wall_seconds),
                    growth=event.growth or "",
                    seconds=float(event.seconds or 0),
                    volume=event.volume or "",
                    size_bytes=event.size_bytes or 0,
                )
            )


def _count(counts: dict[tuple[str, str], int], key: tuple[str, str]) -> None:
    counts[key] = counts.get(key, 0) + 1
