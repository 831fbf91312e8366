"""The runner of `check`: whatever happens in a check, its findings come, and in time."""

from collections.abc import Iterator
from threading import Event
from time import monotonic

import pytest

from ebs_autoscale.checks.background import Check
from ebs_autoscale.checks.line import Line, hint_of
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import (
    Cause,
    CommandFailed,
    ConfigInvalid,
    EbsAutoscaleError,
    Transient,
    Unfit,
)

FINE = Line("thing", "ok", "it is fine")


def results_of(check: Check[Line], *, seconds: float = 30.0) -> Iterator[Line]:
    """What a check finds, waiting at most so long."""
    clock = SystemClock()
    return check.results(clock, until_seconds=clock.now_seconds() + seconds)


def test_a_check_that_hangs_is_given_up() -> None:
    """What it found before comes, then an error that says it hangs, at the time limit."""
    release = Event()

    def hang() -> Iterator[Line]:
        yield FINE
        release.wait(60)

    began = monotonic()
    results = results_of(Check("thing", hang), seconds=0.2)
    assert next(results) == FINE
    with pytest.raises(Transient) as caught:
        next(results)
    release.set()
    assert monotonic() - began < 10
    assert caught.value.hint


def test_the_results_of_a_check_in_time() -> None:
    """All results come in their order."""
    lines = [Line("thing", "ok", str(number)) for number in range(5)]
    assert list(results_of(Check("thing", lambda: lines))) == lines


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Unfit("it is broken", hint="repair it", cause=Cause.UNIT), Cause.UNIT),
        (ZeroDivisionError("by zero"), Cause.PROGRAM),
    ],
)
def test_an_error_comes_last(error: Exception, cause: Cause) -> None:
    """An expected error, or a bug, is raised after the results before it, with a hint."""

    def fail() -> Iterator[Line]:
        yield FINE
        raise error

    results = results_of(Check("thing", fail))
    assert next(results) == FINE
    with pytest.raises(EbsAutoscaleError) as caught:
        next(results)
    assert caught.value.cause is cause
    assert caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        Unfit("no", hint="do this", cause=Cause.UNIT),
        ConfigInvalid("2 mistakes"),
        CommandFailed(("btrfs",), None, ""),
        Transient("EC2 error", cause=Cause.EC2_ERROR),
    ],
)
def test_there_is_always_a_hint(error: EbsAutoscaleError) -> None:
    """Every failure says what to do, its own hint first."""
    assert hint_of(error) == error.hint or not error.hint
    assert hint_of(error)
