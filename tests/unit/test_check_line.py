"""Looks: whatever happens in one ends in a line, and in time."""

from collections.abc import Iterator
from threading import Event
from time import monotonic

import pytest

from ebs_autoscale.checks.line import Line, Look, hint_of
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, CommandFailed, ConfigInvalid, EbsAutoscaleError, Transient, Unfit

FINE = Line("thing", "ok", "it is fine")


def seen(look: Look, *, seconds: float = 30.0) -> list[Line]:
    """The lines of a look that is waited for so long."""
    clock = SystemClock()
    return list(look.lines(clock, until_seconds=clock.now_seconds() + seconds))


def test_a_look_that_hangs_is_given_up() -> None:
    """What it said before is told, then that it hangs; nobody waits longer than the limit."""
    release = Event()

    def hang() -> Iterator[Line]:
        yield FINE
        release.wait(60)

    began = monotonic()
    fine, given_up = seen(Look("thing", hang), seconds=0.2)
    release.set()
    assert monotonic() - began < 10
    assert fine == FINE
    assert (given_up.name, given_up.verdict) == ("thing", "fail")
    assert "given up" in given_up.sentence
    assert given_up.hint


def test_the_lines_of_a_look_in_time() -> None:
    """All lines come in their order, and a limit that has passed takes nothing from a done look."""
    lines = [Line("thing", "ok", str(number)) for number in range(5)]
    look = Look("thing", lambda: lines)
    assert seen(look) == lines


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unfit("it is broken", hint="mend it", cause=Cause.UNIT), "it is broken"),
        (ZeroDivisionError("by zero"), "unexpected ZeroDivisionError: by zero"),
    ],
)
def test_an_error_is_a_line(error: Exception, words: str) -> None:
    """An error of ours, or a bug, is one failed line after those that came before."""

    def fail() -> Iterator[Line]:
        yield FINE
        raise error

    fine, failed = seen(Look("thing", fail))
    assert fine == FINE
    assert (failed.name, failed.verdict, failed.sentence) == ("thing", "fail", words)
    assert failed.hint


@pytest.mark.parametrize(
    "error",
    [
        Unfit("no", hint="do this", cause=Cause.UNIT),
        ConfigInvalid("2 mistakes"),
        CommandFailed(("btrfs",), None, ""),
        Transient("ill", cause=Cause.EC2_ERROR),
    ],
)
def test_there_is_always_something_to_do(error: EbsAutoscaleError) -> None:
    """Every failure says what to do, its own hint first."""
    assert hint_of(error) == error.hint or not error.hint
    assert hint_of(error)
