"""Tools run without a shell and with a time limit, and every failure is reported."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from ebs_autoscale.errors import Cause, CommandFailed, Stopped, Unfit
from ebs_autoscale.host import command
from ebs_autoscale.host.command import require_tools, run


def python(script: str) -> list[str]:
    """Run a few lines as a tool."""
    return [sys.executable, "-c", script]


def is_gone(pid: int) -> bool:
    """Whether the process has ended and was reaped."""
    return not Path(f"/proc/{pid}").exists()


def after(looks: int) -> Callable[[], bool]:
    """Become true at this call."""
    answers: Iterator[bool] = iter([False] * looks)
    return lambda: next(answers, True)


def test_gives_what_was_written() -> None:
    """The result is all of stdout, without stderr."""
    script = "import sys; sys.stdout.write('x' * 200_000); sys.stderr.write('y' * 200_000)"
    assert run(python(script), timeout_seconds=60) == "x" * 200_000


def test_speaks_english_and_has_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool has English messages and no stdin."""
    monkeypatch.setenv("LC_ALL", "de_CH.UTF-8")
    script = "import os, sys; print(os.environ['LC_ALL'], repr(sys.stdin.read()))"
    assert run(python(script), timeout_seconds=60) == "C ''\n"


def test_gives_what_it_is_given() -> None:
    """A script on stdin, and the descriptors that are named, but no others."""
    kept, closed = os.memfd_create("kept", 0), os.memfd_create("closed", 0)
    script = (
        "import os, sys; print(sys.stdin.read(), sorted(map(int, os.listdir('/proc/self/fd'))))"
    )
    try:
        answer = run(python(script), stdin="a\nb", keep_open=[kept], timeout_seconds=60)
        assert answer.startswith("a\nb [0, 1, 2, ")
        assert {kept, closed} & set(json.loads(answer[4:])) == {kept}
    finally:
        os.close(kept)
        os.close(closed)


def test_finds_tools_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools in sbin are found even when PATH lacks it, as after `su` or under sudo."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    path = run(["sh", "-c", "echo $PATH"], timeout_seconds=60)
    assert path.strip() == "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def test_a_failure_tells_command_status_and_message() -> None:
    """The error of a non-zero exit has the command, the status and stderr."""
    argv = python("import sys; print('out'); sys.exit('no space left')")
    with pytest.raises(CommandFailed) as caught:
        run(argv, timeout_seconds=60)
    assert (caught.value.argv, caught.value.status) == (tuple(argv), 1)
    assert caught.value.stderr == "no space left\n"


def test_a_failure_without_message_shows_the_output() -> None:
    """When stderr is empty, the error has stdout."""
    with pytest.raises(CommandFailed, match="in progress"):
        run(python("print('in progress'); raise SystemExit(2)"), timeout_seconds=60)


def test_a_killed_tool_has_failed() -> None:
    """The end by a signal is a failure with a negative status."""
    with pytest.raises(CommandFailed) as caught:
        run(python("import os; os.kill(os.getpid(), 9)"), timeout_seconds=60)
    assert caught.value.status == -9


@pytest.mark.parametrize(
    ("tool", "package"), [("mkfs.btrfs", "btrfs-progs"), ("blkid", "util-linux")]
)
def test_a_missing_tool_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tool: str, package: str
) -> None:
    """The error of a missing tool names its package, when it is to run and before."""
    monkeypatch.setattr(command, "_PACKAGES", {f"{tool}-no-such": package})
    for failing in (
        lambda: run([f"{tool}-no-such"], timeout_seconds=60),
        lambda: require_tools("sh", f"{tool}-no-such"),
    ):
        with pytest.raises(Unfit) as caught:
            failing()
        assert caught.value.cause is Cause.MISSING_TOOL
        assert package in caught.value.hint


def test_a_timeout_kills_and_reaps(tmp_path: Path) -> None:
    """A tool that takes too long is killed and reaped, and its stderr is kept."""
    script = f"""
import os, sys, time
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
sys.stderr.write("halfway"); sys.stderr.flush(); time.sleep(600)
"""
    with pytest.raises(CommandFailed, match="halfway") as caught:
        run(python(script), timeout_seconds=1.0)
    assert caught.value.status is None
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_stop_terminates_the_tool(tmp_path: Path) -> None:
    """A stop ends the tool by SIGTERM, so that it can clean up."""
    script = f"""
import signal, sys, time
def leave(*_):
    open({str(tmp_path / "left")!r}, "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print(flush=True)
time.sleep(600)
"""
    with pytest.raises(Stopped):
        run(python(script), timeout_seconds=60, stopping=after(5))
    assert (tmp_path / "left").exists()


def test_a_stop_kills_what_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that ignores SIGTERM is killed after a while."""
    monkeypatch.setattr(command, "_KILL_GRACE_SECONDS", 0.2)
    script = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""
    with pytest.raises(Stopped):
        run(python(script), timeout_seconds=60, stopping=after(5))
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_tool_that_ends_in_time_is_not_stopped() -> None:
    """A tool that has ended is not stopped."""
    assert run(["echo", "done"], timeout_seconds=60, stopping=lambda: True) == "done\n"


def test_nothing_survives_an_exception(tmp_path: Path) -> None:
    """The tool does not outlive an exception."""
    script = f"""
import os, time
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""

    def break_down() -> bool:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(python(script), timeout_seconds=60, stopping=break_down)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_has_its_own_process_group() -> None:
    """Ctrl-C in a terminal does not reach the tool."""
    group = run(python("import os; print(os.getpgrp())"), timeout_seconds=60)
    assert int(group) != os.getpgrp()


def test_a_tool_is_cancelled_once_it_has_begun(tmp_path: Path) -> None:
    """What a tool has not begun cannot be cancelled: that is tried again until the tool ends."""
    begun, cancelled = tmp_path / "begun", tmp_path / "cancelled"
    tool = f"sleep 0.6; touch {begun}; until [ -e {cancelled} ]; do sleep 0.05; done"

    def cancel() -> None:
        if begun.exists():
            cancelled.touch()

    began = monotonic()
    with pytest.raises(Stopped):
        run(["sh", "-c", tool], timeout_seconds=60, stopping=lambda: True, cancel=cancel)
    assert cancelled.exists()
    assert monotonic() - began < 15
