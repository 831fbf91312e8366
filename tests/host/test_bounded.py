"""Commands of an operator that misbehave: bounded, and nothing of them is left."""

import os
import time
from pathlib import Path

import psutil
import pytest

from ebs_autoscale.host.command import feed


def test_it_gets_the_text(tmp_path: Path) -> None:
    """On its stdin, to the end; what it prints is not kept."""
    got = tmp_path / "got"
    assert feed(["sh", "-c", f"echo loud; cat >{got}"], b'{"a": 1}\n', timeout_seconds=10) == 0
    assert got.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/no/such/command"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
        (["yes"], 124),
        (["sleep", "600"], 124),
        (["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"], 124),
        (["sh", "-c", "head -c 10000000 /dev/zero; head -c 10000000 /dev/zero >&2"], 0),
        (["true"], 0),
    ],
)
def test_it_ends_in_time(argv: list[str], status: int) -> None:
    """Whatever it does, there is an exit status soon after its time is up."""
    began = time.monotonic()
    assert feed(argv, b"x" * 100_000, timeout_seconds=0.7 if status == 124 else 20) == status
    assert time.monotonic() - began < 20


def test_it_starts_as_any_program_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is closed ends it, and systemd does not hear it instead of the daemon."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    got = tmp_path / "got"
    script = f"(yes; echo $? >>{got}) | head -1; echo ${{NOTIFY_SOCKET-none}} >>{got}"
    assert feed(["sh", "-c", script], b"", timeout_seconds=10) == 0
    assert sorted(got.read_text().split()) == ["141", "none"]


def test_it_goes_before_what_bounds_it(tmp_path: Path) -> None:
    """When memory is short: otherwise the kernel may leave a command that nothing ends."""
    got = tmp_path / "got"
    script = f"sleep 0.3; cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj >{got}"
    assert feed(["sh", "-c", script], b"", timeout_seconds=10) == 0
    own, supervisor = map(int, got.read_text().split())
    assert own > supervisor


@pytest.mark.parametrize(
    "script",
    [
        "sleep 61234 &",
        "setsid sleep 61234 &",
        "(setsid sh -c 'sleep 61234 & sleep 61234' &) &",
        "setsid sh -c 'trap \"\" TERM HUP; sleep 61234 & wait' & sleep 61234",
    ],
)
def test_nothing_of_it_is_left(script: str) -> None:
    """Not even what has left its process group and session."""
    # Other workers run the other scripts at the same time.
    own = f"6{os.getpid()}"
    script = script.replace("61234", own)
    feed(["sh", "-c", f"{script}\nsleep 0.1"], b"", timeout_seconds=1)
    assert not [p.pid for p in psutil.process_iter() if own in _arguments(p)]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
