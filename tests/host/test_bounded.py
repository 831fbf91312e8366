"""Commands of an operator that misbehave: bounded, and nothing of them is left."""

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
    feed(["sh", "-c", f"{script}\nsleep 0.1"], b"", timeout_seconds=1)
    assert not [p.pid for p in psutil.process_iter() if "61234" in _arguments(p)]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
