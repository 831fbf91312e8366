"""A process and its parent: die together, or outlive it. Also a command: see `main`."""

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Stopped
from ebs_autoscale.host.files import make_folder
from ebs_autoscale.units import quoted

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
# What a descendant leaves behind becomes our child, wherever it has gone.
_PR_SET_CHILD_SUBREAPER = 36

_OOM_SCORE = Path("/proc/self/oom_score_adj")

# As timeout(1) has them.
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127

# Python ignores them, and what is ignored stays so in a new program: `yes | head` would fail.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_POLL_SECONDS = 0.02

# A process that waits in the kernel is not ended by any signal.
_END_PATIENCE_SECONDS = 5.0


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process the signal when its parent ends, for whatever reason.

    Survives execve(2), see prctl(2).
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number.value)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


@contextmanager
def detached(*, pid_path: Path, log_path: Path, keep: tuple[int, ...]) -> Iterator[None]:
    """Become a daemon with a pid file and its output in a log file; descriptors in `keep` survive.

    The pid file is informational: the lock is what keeps a second daemon out, so a stale pid file
    prevents no start, as python-daemon's own pid lock would after a kill -9.
    """
    import daemon  # noqa: PLC0415 -- only hosts without systemd need python-daemon

    with _log_or_nothing(log_path) as log:
        context = daemon.DaemonContext(
            detach_process=True,
            working_directory="/",
            umask=0o022,
            files_preserve=list(keep),
            stdout=log,
            stderr=log,
            signal_map={},
        )
        with context:
            # A full /run or /var/log is no reason to leave the filesystem unwatched.
            with suppress(OSError):
                make_folder(pid_path.parent)
                pid_path.write_text(f"{os.getpid()}\n")
            atexit.register(_remove, pid_path)
            # As the unit has it: among the last to be killed when memory is short.
            with suppress(OSError):
                _OOM_SCORE.write_text("-500")
            yield


def _log_or_nothing(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError:
        return Path(os.devnull).open("a")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def prefer_as_victim(pid: int) -> None:
    """Have the kernel kill this child process before us when memory is short: proc(5).

    20 % of the memory in question, also of the limit in our unit, outweigh what we use.
    """
    score = Path(f"/proc/{pid}/oom_score_adj")
    with suppress(OSError, ValueError):
        score.write_text(f"{min(1000, int(score.read_text()) + 200)}")


def uninterruptible_wait(pid: int) -> str:
    """Which of this process and its children sleeps uninterruptibly, and where; empty if none does.

    Source: proc_pid_stat(5), proc_pid_wchan(5), proc_tid_children(5).
    """
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            name, _, rest = (task / "stat").read_text(errors="replace").rpartition(")")
            if rest.split()[0] == "D":
                where = (task / "wchan").read_text().strip("0") or "an unknown function"
                return f"`{name.partition('(')[2]}` (pid {pid}) in {where}"
            for child in (task / "children").read_text().split():
                if found := uninterruptible_wait(int(child)):
                    return found
    return ""


def users_of(path: Path) -> str:
    """The other processes that have this file open, such as `'multipathd' (pid 123)`.

    Empty if there are none; without root only one's own processes can be seen.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()) and _has_open(process, path):
            with suppress(OSError):
                command = (process / "comm").read_text("utf-8", "replace").strip()
                found.append(f"{quoted(command)} (pid {process.name})")
    return ", ".join(found)


def _has_open(process: Path, path: Path) -> bool:
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            # Any of them may be closed meanwhile.
            with suppress(OSError):
                if fd.readlink() == path:
                    return True
    return False


def main(argv: list[str]) -> int:
    """`python -m ebs_autoscale.host.process HOW COMMAND ...`: run it as HOW says.

    `deaf`: in the place of this process, ignoring every request to end. A number: for so many
    seconds at most, after which nothing of it is left; the status is 124 when its time was up, as
    that of timeout(1). 126 when the command cannot be executed, 127 when there is none.
    """
    how, *command = argv
    return _deaf(command) if how == "deaf" else _bounded(float(how), command)


def _deaf(argv: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # survives execve(2)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- replaces this process, no shell
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND


def _bounded(seconds: float, argv: list[str]) -> int:
    """Run a command within a time limit, and leave nothing of it behind; returns its status."""
    clock = SystemClock()
    clock.stop_on(signal.SIGTERM, signal.SIGINT)
    die_with_parent(signal.SIGTERM)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # When memory is short, before the daemon.
    with suppress(OSError):
        _OOM_SCORE.write_text("300")
    until = clock.now_seconds() + seconds
    try:
        pid = os.posix_spawnp(argv[0], argv, os.environ, setsid=True, setsigdef=_IGNORED_BY_PYTHON)
    except FileNotFoundError:
        return NOT_FOUND
    except OSError:
        return NOT_EXECUTABLE
    # A shell is smaller than we are, and without us nothing would end it.
    prefer_as_victim(pid)
    status = TIMED_OUT
    with suppress(Stopped):
        while clock.now_seconds() < until:
            ended, code = os.waitpid(-1, os.WNOHANG)
            if ended == pid:
                status = os.waitstatus_to_exitcode(code)
                break
            if not ended:
                clock.sleep(_POLL_SECONDS)
    _end_descendants(SystemClock())
    return status if status >= 0 else 128 - status


def _end_descendants(clock: SystemClock) -> None:
    """Kill children until there are none: those of a killed one become ours."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    until = clock.now_seconds() + _END_PATIENCE_SECONDS
    while (pids := children.read_text().split()) and clock.now_seconds() < until:
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        clock.sleep(_POLL_SECONDS)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
