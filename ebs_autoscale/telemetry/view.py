"""What a daemon knows at one moment: what the status file, `status` and sd_notify show."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import MIB, Reading, StepKind
from ebs_autoscale.policy import Forecast
from ebs_autoscale.telemetry.events import Event
from ebs_autoscale.telemetry.tally import RecentGrowth, Tally

SCHEMA = 1
"""The version of the report; raised when a key changes its meaning or goes."""


class State(StrEnum):
    """What the daemon does."""

    WATCHING = "watching"
    GROWING = "growing"
    WAITING = "waiting"
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedVolumes:
    """What EC2 said at the latest look; None or empty where it is not known.

    `volumes` count against the limits, `orphans` have our tags but are not in use. `slots_free` are
    attachment slots of the instance, `cost` is `usd_per_month` in words.
    """

    volumes: int | None = None
    size_bytes: int | None = None
    orphans: int | None = None
    slots_free: int | None = None
    usd_per_month: float | None = None
    cost: str = ""

    @classmethod
    def of_event(cls, event: Event) -> "ManagedVolumes":
        """What an event of the kind INVENTORY tells."""
        return cls(
            volumes=event.volumes,
            size_bytes=event.size_bytes,
            orphans=event.orphans,
            slots_free=event.slots_free,
            usd_per_month=event.usd_per_month,
            cost=event.cost or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the daemon knows.

    `activity` is what it waits for now, `shortage` why space is short or cannot be measured, each
    empty when there is nothing to say. `conditions` are what is wrong, by key. `reading` is None
    while there is none. `retry_at` is when the next growth is tried, in seconds of the epoch, None
    when none is waited for. `recent` are the latest growths, the newest last, `tally` what has been
    counted since the start, which goes on counting. `dropped_log_lines` nobody has read,
    `dropped_notifications` not systemd, `dropped_metrics` not who asks for metrics or their file,
    `dropped_events` not notify.command.
    """

    state: State
    activity: str = ""
    step: StepKind | None = None
    shortage: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    growths_since_start: int = 0
    forecast: Forecast = field(default_factory=Forecast)
    reading: Reading | None = None
    dropped_log_lines: int = 0
    dropped_notifications: int = 0
    dropped_metrics: int = 0
    dropped_events: int = 0
    managed: ManagedVolumes = ManagedVolumes()
    retry_at: int | None = None
    recent: tuple[RecentGrowth, ...] = ()
    tally: Tally = field(default_factory=Tally, compare=False)

    def has_condition(self, cause: Cause) -> bool:
        """Whether something is wrong for this cause; a key may have a volume after it."""
        name = cause.value
        return any(key == name or key.startswith(f"{name} vol-") for key in self.conditions)

    @property
    def line(self) -> str:
        """The one line that `systemctl status` shows."""
        return "; ".join(self.conditions.values()) or self.activity or self.shortage or self.state

    def report(self) -> dict[str, Any]:
        """What the status file says of it.

        Without what changes at each reading: `status` looks for itself, and an idle daemon shall
        not write. The rate is there only while space is short, when the text changes anyway.
        """
        forecast = self.forecast
        if not self.shortage:
            forecast = Forecast(growth_seconds=forecast.growth_seconds)
        return {
            "state": self.state.value,
            "activity": self.activity,
            "step": self.step.value if self.step else "",
            "low": self.shortage,
            "conditions": dict(self.conditions),
            "growths_since_start": self.growths_since_start,
            "fill_bytes_per_second": _whole_mib(forecast.fill_bytes_per_second),
            "sustained_bytes_per_second": _whole_mib(forecast.sustained_bytes_per_second),
            "inodes_per_second": int(round(forecast.inodes_per_second, -2)),
            "growth_seconds": round(forecast.growth_seconds, 1),
            "devices_bytes_per_second": forecast.devices_bytes_per_second,
            "cache_bytes": _whole_mib(forecast.cache_bytes),
            "ceiling_bytes": forecast.ceiling_bytes,
            "ceiling_bytes_per_second": _whole_mib(forecast.ceiling_bytes_per_second),
            "dropped_log_lines": self.dropped_log_lines,
            "dropped_notifications": self.dropped_notifications,
            "dropped_metrics": self.dropped_metrics,
            "dropped_events": self.dropped_events,
            "managed_volumes": self.managed.volumes,
            "managed_bytes": self.managed.size_bytes,
            "orphaned_volumes": self.managed.orphans,
            "slots_free": self.managed.slots_free,
            "usd_per_month": self.managed.usd_per_month,
            "cost": self.managed.cost,
            "retry_at": self.retry_at,
            "recent_growths": [asdict(growth) for growth in self.recent],
        }

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> "View":
        """What `report` told; raises KeyError, ValueError or TypeError for anything else.

        A report of an older version has no rates and bounds, and counts nothing that was dropped.
        """
        usd = report.get("usd_per_month")
        return cls(
            state=State(report["state"]),
            activity=str(report["activity"]),
            step=StepKind(report["step"]) if report["step"] else None,
            shortage=str(report["low"]),
            conditions={key: str(line) for key, line in dict(report["conditions"]).items()},
            growths_since_start=int(report["growths_since_start"]),
            forecast=Forecast(
                fill_bytes_per_second=float(report.get("fill_bytes_per_second", 0)),
                sustained_bytes_per_second=float(report.get("sustained_bytes_per_second", 0)),
                inodes_per_second=float(report.get("inodes_per_second", 0)),
                growth_seconds=float(report["growth_seconds"]),
                devices_bytes_per_second=_number(report.get("devices_bytes_per_second")),
                cache_bytes=int(report.get("cache_bytes", 0)),
                ceiling_bytes=_number(report.get("ceiling_bytes")),
                ceiling_bytes_per_second=float(report.get("ceiling_bytes_per_second", 0)),
            ),
            dropped_log_lines=int(report.get("dropped_log_lines", 0)),
            dropped_notifications=int(report.get("dropped_notifications", 0)),
            dropped_metrics=int(report.get("dropped_metrics", 0)),
            dropped_events=int(report.get("dropped_events", 0)),
            managed=ManagedVolumes(
                volumes=_number(report.get("managed_volumes")),
                size_bytes=_number(report.get("managed_bytes")),
                orphans=_number(report.get("orphaned_volumes")),
                slots_free=_number(report.get("slots_free")),
                usd_per_month=None if usd is None else float(usd),
                cost=str(report.get("cost", "")),
            ),
            retry_at=_number(report.get("retry_at")),
            recent=tuple(map(RecentGrowth.from_report, report.get("recent_growths", ()))),
        )


def _whole_mib(size_bytes: float) -> int:
    return round(size_bytes / MIB) * MIB


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
