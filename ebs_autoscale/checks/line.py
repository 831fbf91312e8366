"""One line of `check`: what was looked at, how it is, and what to do; and a look's time limit."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import CommandFailed, ConfigInvalid, EbsAutoscaleError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at; `hint` says what to do about it."""

    name: str
    verdict: Verdict
    sentence: str
    hint: str = ""


def failed(name: str, error: EbsAutoscaleError) -> Line:
    """The line of a look that ended with an error of ours."""
    return Line(name, "fail", error.what, hint_of(error))


def hint_of(error: EbsAutoscaleError) -> str:
    """What to do about it, also when the error itself does not know."""
    match error:
        case EbsAutoscaleError(hint=hint) if hint:
            return hint
        case ConfigInvalid():
            return "correct the file; the shipped config.yaml explains every key"
        case CommandFailed():
            return "run it by hand, and see what the kernel says in `dmesg`"
    return "it may pass: check again in a minute"


class Look:
    """A look that has begun on a thread of its own: whatever hangs in it, nobody waits for ever.

    `look` may raise: that is its last line. The thread does not keep the process from ending.
    """

    def __init__(self, name: str, look: Callable[[], Iterable[Line]]) -> None:
        self._name = name
        self._look = look
        self._lines: SimpleQueue[Line | None] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def lines(self, clock: Clock, *, until_seconds: float) -> Iterator[Line]:
        """Its lines as they come; at `until_seconds` of the clock it is given up, which is told."""
        while True:
            left_seconds = max(0.0, until_seconds - clock.now_seconds())
            try:
                line = self._lines.get(timeout=left_seconds)
            except Empty:
                hint = "something hangs: see `dmesg`, and `ps -eo pid,stat,wchan:30,args`"
                yield Line(self._name, "fail", "no answer in time; the look was given up", hint)
                return
            if line is None:
                return
            yield line

    def _run(self) -> None:
        try:
            for line in self._look():
                self._lines.put(line)
        except EbsAutoscaleError as error:
            self._lines.put(failed(self._name, error))
        except Exception as error:  # noqa: BLE001 -- one broken look must not hide the others
            what = f"unexpected {type(error).__name__}: {error}"
            self._lines.put(Line(self._name, "fail", what, "please report it"))
        finally:
            self._lines.put(None)
