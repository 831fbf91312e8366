"""What is wrong and lasts: told once when it begins, then at intervals, and when it ends."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ebs_autoscale.clock import Clock
from ebs_autoscale.telemetry.events import Event, EventKind, Level

REMIND_AFTER_SECONDS = 900.0


@dataclass(slots=True)
class _Condition:
    sentence: str
    began_at_seconds: float
    told_at_seconds: float


class Conditions:
    """Lasting conditions by cause; `raised` as often as it is seen, it is told sparingly."""

    def __init__(self, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._lasting: dict[str, _Condition] = {}

    @property
    def sentences(self) -> Mapping[str, str]:
        """What is wrong now, by cause."""
        return {cause: condition.sentence for cause, condition in self._lasting.items()}

    def raised(self, cause: str, sentence: str, level: Level = Level.ERROR) -> None:
        """Note that the condition holds now."""
        now = self._clock.now_seconds()
        condition = self._lasting.get(cause)
        if condition is None:
            self._lasting[cause] = _Condition(sentence, now, now)
            self._tell(EventKind.CONDITION_BEGAN, sentence, level, cause)
            return
        condition.sentence = sentence
        if now - condition.told_at_seconds >= REMIND_AFTER_SECONDS:
            condition.told_at_seconds = now
            lasts = f"for {_minutes(now - condition.began_at_seconds)} now: {sentence}"
            self._tell(EventKind.CONDITION_LASTS, lasts, level, cause)

    def only(self, causes: Iterable[str]) -> None:
        """End every condition but these."""
        for cause in set(self._lasting) - set(causes):
            condition = self._lasting.pop(cause)
            lasted = _minutes(self._clock.now_seconds() - condition.began_at_seconds)
            sentence = f"over after {lasted}: {condition.sentence}"
            self._tell(EventKind.CONDITION_ENDED, sentence, Level.INFO, cause)

    def _tell(self, kind: EventKind, sentence: str, level: Level, cause: str) -> None:
        self._emit(Event(kind=kind, sentence=sentence, level=level, fields={"cause": cause}))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
