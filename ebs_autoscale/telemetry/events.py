"""What happens, as values: a sentence for people, fields for machines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum


class EventKind(StrEnum):
    """What happened; also the value of EBS_AUTOSCALE_EVENT in the journal."""

    STARTED = "started"
    RELOADED = "reloaded"
    STOPPING = "stopping"
    DECIDED = "decided"
    STEP_STARTED = "step_started"
    STEP_DONE = "step_done"
    STEP_PROGRESS = "step_progress"
    TENDED = "tended"
    GROWTH_DONE = "growth_done"
    GROWTH_STOPPED = "growth_stopped"
    GROWTH_REFUSED = "growth_refused"
    GROWTH_FAILED = "growth_failed"
    CONDITION_BEGAN = "condition_began"
    CONDITION_LASTS = "condition_lasts"
    CONDITION_ENDED = "condition_ended"
    WARNING = "warning"
    BUG = "bug"
    HEARTBEAT = "heartbeat"


class Level(Enum):
    """How loud an event is; the numbers are syslog priorities."""

    DEBUG = 7
    INFO = 6
    WARNING = 4
    ERROR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something worth telling: a sentence for people, `fields` for machines."""

    kind: EventKind
    sentence: str
    level: Level = Level.INFO
    fields: Mapping[str, str | int | float] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line for the pipe between a growth and the daemon, and for JSON logs."""
        return json.dumps(
            {
                "event": self.kind.value,
                "level": self.level.name.lower(),
                "sentence": self.sentence,
                "fields": dict(self.fields),
            }
        )

    @classmethod
    def from_json(cls, line: str) -> "Event":
        """The event that `to_json` wrote; raises ValueError for anything else."""
        try:
            parsed = json.loads(line)
            return cls(
                kind=EventKind(parsed["event"]),
                sentence=parsed["sentence"],
                level=Level[parsed["level"].upper()],
                fields=parsed["fields"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an event: {line!r}") from error
