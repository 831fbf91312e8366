"""A check on a thread of its own, so that one that hangs holds up no other."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit

T = TypeVar("T")


class Check(Generic[T]):
    """A check that runs on a thread of its own, so that one that hangs holds up no other.

    The thread does not keep the process from ending.
    """

    def __init__(self, name: str, check: Callable[[], Iterable[T]]) -> None:
        self.name = name
        self._results: SimpleQueue[T | _End] = SimpleQueue()
        Thread(target=self._run, args=(check,), name=name, daemon=True).start()

    def results(self, clock: Clock, *, until_seconds: float) -> Iterator[T]:
        """What the check finds, as it comes.

        Raises what the check raised; Transient when it has not ended at `until_seconds` of the
        clock; Unfit for a bug.
        """
        while True:
            left_seconds = max(0.0, until_seconds - clock.now_seconds())
            try:
                result = self._results.get(timeout=left_seconds)
            except Empty:
                raise Transient(
                    "timed out",
                    hint="this host hangs: see `dmesg` and `ps -eo pid,stat,wchan:30,args`",
                    cause=Cause.HOST,
                ) from None
            if not isinstance(result, _End):
                yield result
            elif result.error:
                raise result.error
            else:
                return

    def _run(self, check: Callable[[], Iterable[T]]) -> None:
        error: EbsAutoscaleError | None = None
        try:
            for result in check():
                self._results.put(result)
        except EbsAutoscaleError as expected:
            error = expected
        except Exception as bug:  # noqa: BLE001 -- one broken check must not hide the others
            what = f"unexpected {type(bug).__name__}: {bug}"
            error = Unfit(what, hint="please report it", cause=Cause.PROGRAM)
        self._results.put(_End(error))


class Answer(Generic[T]):
    """The answer to one call, which is made on a thread of its own from now on."""

    def __init__(self, call: Callable[[], T], clock: Clock, until_seconds: float) -> None:
        self._check = Check("call", lambda: [call()])
        self._clock, self._until_seconds = clock, until_seconds

    @cached_property
    def result(self) -> T | EbsAutoscaleError:
        """What the call returned, or the error that it ended with; waits for it."""
        try:
            [result] = self._check.results(self._clock, until_seconds=self._until_seconds)
        except EbsAutoscaleError as error:
            return error
        return result


@dataclass(frozen=True, slots=True)
class _End:
    """How a check ended."""

    error: EbsAutoscaleError | None
