"""What is wrong and lasts: told once when it begins, then at intervals, and when it ends."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Problem
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.units import format_duration

REMIND_AFTER_SECONDS = 900.0


@dataclass(slots=True)
class _Lasting:
    problem: Problem
    began_at_seconds: float
    told_at_seconds: float


class Conditions:
    """Problems that last: call `raised` whenever one is seen; it is reported at intervals only."""

    def __init__(self, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._lasting: dict[str, _Lasting] = {}

    def __bool__(self) -> bool:
        return bool(self._lasting)

    @property
    def lines(self) -> Mapping[str, str]:
        """What is wrong now, by key."""
        return {key: lasting.problem.line for key, lasting in self._lasting.items()}

    def raised(self, problem: Problem, level: Level = Level.ERROR, *, when: str = "") -> None:
        """Note that there is this problem now; `when` is true only at this moment."""
        now = self._clock.now_seconds()
        told = replace(problem, sentence=f"{problem.sentence} ({when})") if when else problem
        lasting = self._lasting.get(problem.key)
        if lasting is None:
            self._lasting[problem.key] = _Lasting(problem, now, now)
            self._tell(EventKind.CONDITION_BEGAN, told, level)
            return
        lasting.problem = problem
        if now - lasting.told_at_seconds >= REMIND_AFTER_SECONDS:
            lasting.told_at_seconds = now
            seconds = now - lasting.began_at_seconds
            lasted = format_duration(round(seconds))
            sentence = f"still failing after {lasted}: {told.sentence}"
            again = replace(told, sentence=sentence)
            self._tell(EventKind.CONDITION_LASTS, again, level, seconds=seconds)

    def only(self, keys: Iterable[str]) -> None:
        """End every condition but these."""
        for key in set(self._lasting) - set(keys):
            ended = self._lasting.pop(key)
            seconds = self._clock.now_seconds() - ended.began_at_seconds
            lasted = format_duration(round(seconds))
            sentence = f"resolved after {lasted}: {ended.problem.sentence}"
            over = replace(ended.problem, sentence=sentence, hint="")
            self._tell(EventKind.CONDITION_ENDED, over, Level.INFO, seconds=seconds)

    def _tell(
        self, kind: EventKind, problem: Problem, level: Level, *, seconds: float | None = None
    ) -> None:
        self._emit(
            Event(
                kind=kind,
                sentence=problem.sentence,
                hint=problem.hint,
                level=level,
                cause=problem.cause,
                volume=problem.volume or None,
                seconds=None if seconds is None else round(seconds, 3),
            )
        )
