"""notify.command: what it gets, and that it can do no harm."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.telemetry.notify import NotifyCommand
from ebs_autoscale.telemetry.outbox import WAITING_MAX
from tests.system.bench import until

DONE = Event(kind=EventKind.GROWTH_DONE, sentence="growth a-1 is complete", growth="a-1")


def notifier(*command: str) -> NotifyCommand:
    """One that runs this command."""
    found = NotifyCommand("/scratch")
    found.follow(command)
    return found


def test_it_gets_each_event_as_json(tmp_path: Path) -> None:
    """In their order, with the host and the mountpoint, and without those for debugging."""
    got = tmp_path / "got"
    notify = notifier("sh", "-c", f"cat >>{got}")
    low = Event(
        kind=EventKind.CONDITION_BEGAN,
        sentence="denied",
        hint="allow it",
        cause=Cause.DENIED,
        level=Level.ERROR,
    )
    notify(Event(kind=EventKind.EC2_CALL, sentence="quiet", level=Level.DEBUG))
    notify(DONE)
    notify(low)
    until(lambda: got.exists() and got.read_text().count("\n") == 2, "a thread to do its work")
    first, second = map(json.loads, got.read_text().splitlines())
    assert (first["event"], first["growth"], first["level"]) == ("growth_done", "a-1", "info")
    assert (second["event"], second["level"]) == ("condition_began", "error")
    assert (second["cause"], second["hint"]) == ("denied", "allow it")
    assert second["mountpoint"] == "/scratch"
    assert second["host"]
    assert notify.dropped == 0
    assert notify.take_warning() is None


@pytest.mark.parametrize(
    ("command", "why"), [(("false",), "exit status 1"), (("/no/such",), "no such command")]
)
def test_a_failure_is_told_once(command: tuple[str, ...], why: str) -> None:
    """One warning with the reason; all others are counted, and a reload begins anew."""
    notify = notifier(*command)
    for _ in range(3):
        notify(DONE)
    until(lambda: notify.dropped == 3, "a thread to do its work")
    warning = notify.take_warning()
    assert warning
    assert (warning.cause, warning.level) == (Cause.NOTIFY, Level.WARNING)
    assert why in warning.sentence
    assert notify.take_warning() is None
    notify(warning)
    notify(DONE)
    until(lambda: notify.dropped == 4, "a thread to do its work")
    assert notify.take_warning() is None
    notify.follow(command)
    notify(DONE)
    until(lambda: notify.dropped == 5, "a thread to do its work")
    assert notify.take_warning()


def test_a_command_that_hangs_costs_nobody_time() -> None:
    """What is too much for it is dropped and counted at once."""
    notify = notifier("sleep", "600")
    began = time.monotonic()
    for _ in range(WAITING_MAX + 50):
        notify(DONE)
    assert time.monotonic() - began < 5
    assert notify.dropped >= 50
    notify.follow(())


def test_without_a_command_nothing_runs() -> None:
    """The usual case: no thread, nothing counted."""
    notify = notifier()
    notify(DONE)
    assert (notify.dropped, notify.take_warning()) == (0, None)


def test_a_reload_runs_no_two_at_a_time(tmp_path: Path) -> None:
    """The run that is under way ends; what waits behind it is for the new command."""
    got = tmp_path / "got"
    notify = notifier("sh", "-c", f"echo old >>{got}; sleep 0.3; echo old >>{got}")
    notify(DONE)
    notify(DONE)
    until(got.exists, "a thread to do its work")
    notify.follow(("sh", "-c", f"echo new >>{got}"))
    notify(DONE)
    until(lambda: got.read_text().count("new") == 2, "a thread to do its work")
    assert got.read_text().split() == ["old", "old", "new", "new"]


HANGING = """
import time
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.notify import NotifyCommand
notify = NotifyCommand("/scratch")
for number in range(4):
    notify.follow(("sleep", f"6{number}"))
    for _ in range(2):
        notify(Event(kind=EventKind.GROWTH_DONE, sentence="x"))
print(time.monotonic(), flush=True)
"""


def test_an_end_waits_for_a_hanging_command_once() -> None:
    """For a second, however often the daemon was reloaded with a command that hangs."""
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, check=True, timeout=60
    )
    assert time.monotonic() - float(ended.stdout) < 3
