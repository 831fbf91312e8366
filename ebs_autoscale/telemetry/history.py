"""What has happened to a filesystem: growths, refusals and alarms, from logged events."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.model import Stage, StepKind
from ebs_autoscale.telemetry.entries import Entry
from ebs_autoscale.telemetry.events import EventKind

SCHEMA = 1
"""The version of `as_dict`; raised when a key changes its meaning or goes."""

KINDS = (
    EventKind.STARTED,
    EventKind.STOPPING,
    EventKind.DECIDED,
    EventKind.STEP_DONE,
    EventKind.GROWTH_DONE,
    EventKind.GROWTH_REFUSED,
    EventKind.GROWTH_FAILED,
    EventKind.CONDITION_BEGAN,
    EventKind.CONDITION_LASTS,
    EventKind.CONDITION_ENDED,
)
"""The events that a history is made of."""

# Found in these stages, a growth adds nothing more.
_IN_SERVICE = {Stage.ADDED, Stage.BALANCED}
_REFUSING = {cause.value for cause in Cause if cause.exit is Exit.REFUSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PastGrowth:
    """A growth that was completed.

    `seconds` is how long it took when it was completed, `steps` what each step took, also in
    earlier tries. None where the program's version of that time has not told it.
    """

    at_seconds: float
    growth: str
    volume: str
    size_bytes: int | None
    seconds: float | None
    steps: Mapping[str, float]
    added_usd_per_month: float | None
    reason: str


class AlarmState(StrEnum):
    """How an alarm ended."""

    LASTING = "lasting"
    RESOLVED = "resolved"
    INTERRUPTED = "interrupted"
    """By the end of the daemon, which reports it again if it still exists."""
    TOLD = "told"
    """Of a single growth, such as one that an operator asked for; it does not last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A problem that has lasted for a time; `ended_seconds` is None while it lasts."""

    began_seconds: float
    ended_seconds: float | None
    state: AlarmState
    cause: str
    volume: str
    sentence: str
    hint: str

    @property
    def is_refusal(self) -> bool:
        """Whether a limit has refused a growth."""
        return self.cause in _REFUSING


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was logged since a time, oldest first; `notes` say what is missing from it, and why."""

    mountpoint: str
    since_seconds: float
    until_seconds: float
    sources: tuple[str, ...] = ()
    growths: tuple[PastGrowth, ...] = ()
    refusals: tuple[Alarm, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    entries: int = 0
    unreadable_lines: int = 0
    notes: tuple[str, ...] = ()

    @property
    def added_bytes(self) -> int:
        """The capacity that all growths have added."""
        return sum(growth.size_bytes or 0 for growth in self.growths)

    @property
    def added_usd_per_month(self) -> float | None:
        """What that costs, as far as it is known; None if it is not known of any growth."""
        known = [g.added_usd_per_month for g in self.growths if g.added_usd_per_month is not None]
        return sum(known, 0.0) if known or not self.growths else None


@dataclass(slots=True)
class _Telling:
    """What was told so far."""

    growths: dict[str, PastGrowth] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    steps: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    lasting: dict[tuple[str, str, str], Alarm] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        match entry.kind:
            case EventKind.DECIDED if entry.growth:
                self.reasons.setdefault(entry.growth, entry.sentence)
                if entry.stage not in _IN_SERVICE:
                    self.begun.add(entry.growth)
            case EventKind.STEP_DONE if entry.growth and entry.seconds is not None:
                steps = self.steps[entry.growth]
                steps[entry.step] = steps.get(entry.step, 0.0) + entry.seconds
            case EventKind.GROWTH_DONE if entry.growth:
                self._complete(entry)
            case EventKind.GROWTH_REFUSED | EventKind.GROWTH_FAILED:
                self.alarms.append(_alarm(entry, AlarmState.TOLD, entry.at_seconds))
            case EventKind.CONDITION_BEGAN | EventKind.CONDITION_LASTS:
                self.lasting.setdefault(_key(entry), _alarm(entry, AlarmState.LASTING, None))
            case EventKind.CONDITION_ENDED:
                began = self.lasting.pop(_key(entry), None)
                alarm = began or _alarm(entry, AlarmState.RESOLVED, entry.at_seconds)
                self._end(alarm, AlarmState.RESOLVED, entry.at_seconds)
            case EventKind.STARTED | EventKind.STOPPING:
                for key in [key for key in self.lasting if key[0] == entry.mountpoint]:
                    self._end(self.lasting.pop(key), AlarmState.INTERRUPTED, entry.at_seconds)

    def _end(self, alarm: Alarm, state: AlarmState, at_seconds: float) -> None:
        self.alarms.append(replace(alarm, state=state, ended_seconds=at_seconds))

    def _complete(self, entry: Entry) -> None:
        """Count it once: a growth is completed again when only its metadata was balanced later."""
        steps = self.steps[entry.growth]
        is_new = entry.stage not in _IN_SERVICE or entry.growth in self.begun
        if entry.growth in self.growths or not (is_new or StepKind.ADD_DEVICE in steps):
            return
        self.growths[entry.growth] = PastGrowth(
            at_seconds=entry.at_seconds,
            growth=entry.growth,
            volume=entry.volume,
            size_bytes=entry.size_bytes,
            seconds=entry.seconds,
            steps=steps,
            added_usd_per_month=entry.added_usd_per_month,
            reason=self.reasons.get(entry.growth, ""),
        )


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.mountpoint, entry.cause, entry.volume


def _alarm(entry: Entry, state: AlarmState, ended_seconds: float | None) -> Alarm:
    """The alarm; one of which the beginning was not read has told how long it has lasted."""
    return Alarm(
        began_seconds=max(0.0, entry.at_seconds - (entry.seconds or 0.0)),
        ended_seconds=ended_seconds,
        state=state,
        cause=entry.cause,
        volume=entry.volume,
        sentence=entry.sentence,
        hint=entry.hint,
    )


def history_of(entries: Iterable[Entry], whole: History) -> History:
    """`whole`, with what the entries of its time and of its mountpoint tell, in any order.

    Entries of earlier versions do not name their mountpoint, and count for each.
    """
    telling = _Telling()
    wanted = [
        entry
        for entry in entries
        if entry.at_seconds >= whole.since_seconds
        and (not whole.mountpoint or entry.mountpoint in {"", whole.mountpoint})
    ]
    for entry in sorted(wanted, key=lambda each: each.at_seconds):
        telling.take(entry)
    alarms = sorted([*telling.alarms, *telling.lasting.values()], key=lambda a: a.began_seconds)
    return replace(
        whole,
        growths=tuple(sorted(telling.growths.values(), key=lambda each: each.at_seconds)),
        refusals=tuple(alarm for alarm in alarms if alarm.is_refusal),
        alarms=tuple(alarm for alarm in alarms if not alarm.is_refusal),
        entries=len(wanted),
    )


def as_dict(history: History) -> dict[str, Any]:
    """The history for machines; times are in UTC."""
    usd = history.added_usd_per_month
    return {
        "schema": SCHEMA,
        "mountpoint": history.mountpoint,
        "since": _utc(history.since_seconds),
        "until": _utc(history.until_seconds),
        "sources": list(history.sources),
        "growths": [
            {"time": _utc(growth.at_seconds), **_without(asdict(growth), "at_seconds")}
            for growth in history.growths
        ],
        "refusals": [_alarm_dict(alarm) for alarm in history.refusals],
        "alarms": [_alarm_dict(alarm) for alarm in history.alarms],
        "total": {
            "growths": len(history.growths),
            "added_bytes": history.added_bytes,
            "added_usd_per_month": None if usd is None else round(usd, 2),
            "refusals": len(history.refusals),
            "alarms": len(history.alarms),
        },
        "unreadable_lines": history.unreadable_lines,
        "notes": list(history.notes),
    }


def _alarm_dict(alarm: Alarm) -> dict[str, Any]:
    ended = alarm.ended_seconds
    return {
        "began": _utc(alarm.began_seconds),
        "ended": None if ended is None else _utc(ended),
        "seconds": None if ended is None else round(ended - alarm.began_seconds, 3),
        **_without(asdict(alarm), "began_seconds", "ended_seconds"),
    }


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
