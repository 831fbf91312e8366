"""`status --watch` on a terminal and in a pipe."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import on_terminal

ENTER, HOME, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[H", "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


def argv_in(folder: Path) -> list[str]:
    """The command for a mountpoint that does not exist, which needs no rights."""
    config = folder / "config.yaml"
    config.write_text("mountpoint: /nonexistent\n", "utf-8")
    program = [sys.executable, "-I", "-m", "ebs_autoscale", "--config", str(config)]
    return [*program, "status", "--watch"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminal_is_restored(tmp_path: Path, number: signal.Signals) -> None:
    """It redraws in place on a screen of its own, and leaves the terminal as it was."""
    environment = {**os.environ, "COLUMNS": "", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    second = b"\x1b[J\x1b[H"
    written = on_terminal(argv_in(tmp_path), environment, until=second, number=number)
    assert written.startswith(f"{ENTER}{HOME}")
    before, _, after = written.partition(LEAVE)
    assert before.count(HOME) >= 2
    assert "/nonexistent: unfit" in before
    assert after == "ebs-autoscale: stopped\n"


def test_a_pipe_gets_no_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the same text each second, for as long as it is read."""
    argv = argv_in(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        lines = [process.stdout.readline() for _ in range(2)]
        while process.stdout.readline() != lines[0]:
            pass
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    assert lines[0] == b"/nonexistent: unfit\n"
    assert b"\x1b" not in b"".join(lines)
