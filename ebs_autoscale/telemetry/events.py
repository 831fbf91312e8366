"""What happens, as values: a sentence and a hint for people, typed fields for machines."""

import json
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from ebs_autoscale.errors import Cause, EbsAutoscaleError, with_hint
from ebs_autoscale.model import DecisionKind, InitStep, Stage, StepKind
from ebs_autoscale.units import printable, quoted


class EventKind(StrEnum):
    """What happened; also the value of EBS_AUTOSCALE_EVENT in the journal."""

    STARTED = "started"
    RELOADED = "reloaded"
    STOPPING = "stopping"
    DECIDED = "decided"
    STEP_STARTED = "step_started"
    STEP_DONE = "step_done"
    STEP_PROGRESS = "step_progress"
    THROUGHPUT = "throughput"
    INVENTORY = "inventory"
    EC2_CALL = "ec2_call"
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


_TYPES: dict[str, type[Enum]] = {
    "cause": Cause,
    "decision": DecisionKind,
    "stage": Stage,
    "step": StepKind,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something worth telling: `sentence` says what happened, `hint` what to do about it.

    All further fields are for machines, None where they do not apply. `step` is one of `number`
    of `steps`; `volume` is an EBS volume id, `device` a kernel name, `bytes_per_second` the most
    that it takes, `size_bytes` that of the volume or of all `volumes`, `filesystem` a UUID,
    `status` an exit status. `usd_per_month` is what all managed volumes cost, an estimate, `cost`
    the same in words, `added_usd_per_month` what a growth adds to it. `orphans` counts the volumes
    with our tags that are not in use, `slots_free` the free attachment slots. `action` is an EC2
    call, `result` how it was answered. `seconds` is how long something took, or a condition lasts.
    """

    kind: EventKind
    sentence: str
    hint: str = ""
    level: Level = Level.INFO
    decision: DecisionKind | None = None
    growth: str | None = None
    stage: Stage | None = None
    step: StepKind | InitStep | None = None
    number: int | None = None
    steps: int | None = None
    volume: str | None = None
    size_bytes: int | None = None
    device: str | None = None
    bytes_per_second: float | None = None
    seconds: float | None = None
    cause: Cause | None = None
    status: int | None = None
    growths: int | None = None
    filesystem: str | None = None
    version: str | None = None
    volumes: int | None = None
    orphans: int | None = None
    slots_free: int | None = None
    usd_per_month: float | None = None
    added_usd_per_month: float | None = None
    cost: str | None = None
    action: str | None = None
    result: str | None = None
    mountpoint: str | None = None

    def __post_init__(self) -> None:
        # A mount source or a file name has any byte; each sink can rely on this here.
        for name in _TEXTS:
            text = getattr(self, name)
            if text and not isinstance(text, Enum):
                object.__setattr__(self, name, printable(text))

    @classmethod
    def of_error(cls, kind: EventKind, error: EbsAutoscaleError, **fields: Any) -> "Event":
        """The event that tells an error."""
        return cls(kind=kind, sentence=error.what, hint=error.hint, cause=error.cause, **fields)

    @property
    def line(self) -> str:
        """Both sentences, as a person reads them."""
        return with_hint(self.sentence, self.hint)

    @property
    def fields(self) -> dict[str, str | int | float]:
        """The fields for machines that apply, as plain values."""
        found = ((name, getattr(self, name)) for name in _FIELDS)
        return {
            name: value.value if isinstance(value, Enum) else value
            for name, value in found
            if value is not None
        }

    def to_json(self) -> str:
        """One line for the pipe between a growth and the daemon."""
        return json.dumps(
            {
                "event": self.kind.value,
                "level": self.level.name.lower(),
                "sentence": self.sentence,
                "hint": self.hint,
                "fields": self.fields,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> "Event":
        """The event that `to_json` wrote; raises ValueError for anything else."""
        try:
            parsed = json.loads(line)
            fields: dict[str, Any] = {
                name: _TYPES[name](value) if name in _TYPES else value
                for name, value in parsed["fields"].items()
            }
            return cls(
                kind=EventKind(parsed["event"]),
                sentence=parsed["sentence"],
                hint=parsed["hint"],
                level=Level[parsed["level"].upper()],
                **fields,
            )
        except (KeyError, TypeError, ValueError, AttributeError, *_TOO_MUCH) as error:
            raise ValueError(f"not an event: {quoted(line)}") from error


_TOO_MUCH = (OverflowError, RecursionError)
_TEXTS = (
    "sentence",
    "hint",
    "growth",
    "volume",
    "device",
    "filesystem",
    "version",
    "cost",
    "action",
    "result",
    "mountpoint",
)
_FIELDS = tuple(
    name for name in Event.__dataclass_fields__ if name not in {"kind", "sentence", "hint", "level"}
)
