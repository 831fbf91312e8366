"""What is wrong and lasts: told once when it begins, then at intervals, and when it ends."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.units import format_duration

REMIND_AFTER_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Condition:
    """Something wrong that lasts; `volume` is an EBS volume id where it is about one of several."""

    cause: Cause
    sentence: str
    hint: str = ""
    volume: str = ""

    @classmethod
    def of_error(cls, error: EbsAutoscaleError) -> "Condition":
        """The condition that an error tells of."""
        return cls(error.cause, error.what, error.hint)

    @property
    def key(self) -> str:
        """What it is told apart by; its name in the status file."""
        return f"{self.cause.value} {self.volume}".strip()

    @property
    def line(self) -> str:
        """What is wrong and what to do, as a person reads it."""
        return f"{self.sentence}; {self.hint}" if self.hint else self.sentence


@dataclass(slots=True)
class _Lasting:
    condition: Condition
    began_at_seconds: float
    told_at_seconds: float


class Conditions:
    """Lasting conditions; `raised` as often as each is seen, it is told sparingly."""

    def __init__(self, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._lasting: dict[str, _Lasting] = {}

    def __bool__(self) -> bool:
        return bool(self._lasting)

    @property
    def lines(self) -> Mapping[str, str]:
        """What is wrong now, by key."""
        return {key: lasting.condition.line for key, lasting in self._lasting.items()}

    def raised(self, condition: Condition, level: Level = Level.ERROR) -> None:
        """Note that the condition holds now."""
        now = self._clock.now_seconds()
        lasting = self._lasting.get(condition.key)
        if lasting is None:
            self._lasting[condition.key] = _Lasting(condition, now, now)
            self._tell(EventKind.CONDITION_BEGAN, condition, level)
            return
        lasting.condition = condition
        if now - lasting.told_at_seconds >= REMIND_AFTER_SECONDS:
            lasting.told_at_seconds = now
            lasted = format_duration(round(now - lasting.began_at_seconds))
            sentence = f"still failing after {lasted}: {condition.sentence}"
            self._tell(EventKind.CONDITION_LASTS, replace(condition, sentence=sentence), level)

    def only(self, keys: Iterable[str]) -> None:
        """End every condition but these."""
        for key in set(self._lasting) - set(keys):
            ended = self._lasting.pop(key)
            lasted = format_duration(round(self._clock.now_seconds() - ended.began_at_seconds))
            sentence = f"resolved after {lasted}: {ended.condition.sentence}"
            over = replace(ended.condition, sentence=sentence, hint="")
            self._tell(EventKind.CONDITION_ENDED, over, Level.INFO)

    def _tell(self, kind: EventKind, condition: Condition, level: Level) -> None:
        self._emit(
            Event(
                kind=kind,
                sentence=condition.sentence,
                hint=condition.hint,
                level=level,
                cause=condition.cause,
                volume=condition.volume or None,
            )
        )
