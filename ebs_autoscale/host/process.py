"""A process and its parent: die together, or detach. Also a command: see `main`."""

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/prctl.h
_PR_SET_PDEATHSIG = 1


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

    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("a") as log:
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
            pid_path.parent.mkdir(parents=True, exist_ok=True)
            pid_path.write_text(f"{os.getpid()}\n")
            atexit.register(pid_path.unlink, missing_ok=True)
            yield


def main(argv: list[str]) -> int:
    """`python -m ebs_autoscale.host.process COMMAND ...`: run it, ended by SIGTERM with our parent.

    Returns 127 when there is no such command. setpriv(1) could do the same, but it first reads the
    capabilities, which the service's confinement forbids.
    """
    die_with_parent(signal.SIGTERM)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- replaces this process, no shell
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
