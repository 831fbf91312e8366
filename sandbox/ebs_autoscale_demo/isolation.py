"""A demo in namespaces of its own: whatever ends it, the kernel takes away all that it made."""

import ctypes
import os
import select
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType

from ec2_sandbox.namespace import enter_private_namespace

from ebs_autoscale.errors import CommandFailed, Exit, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.host.process import die_with_parent

# linux/sched.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000

_MOUNT_TIMEOUT_SECONDS = 30.0
_SHOW_CURSOR = "\x1b[?25h"

PRIVATE = Path("/run")
"""A tmpfs of the demo's own covers this folder inside."""


def isolate() -> int | None:
    """Go on in a child that is the first process of its own namespaces: returns None there.

    Here, in the original process, signals are passed on, and the child's exit code is
    returned when nothing of it is left. When this process is killed the kernel kills
    the child, with it all processes of the PID namespace (pid_namespaces(7)), with those the
    mounts, and with these the loop devices. Raises Unfit when not permitted.
    """
    sys.stdout.flush()
    lifeline, held_end = os.pipe2(os.O_CLOEXEC)
    _unshare(_CLONE_NEWPID)
    child = os.fork()
    if child:
        return _guard(child)
    os.close(held_end)
    # Out of reach of the terminal: Ctrl-C comes to our parent alone, and only the
    # first of all processes in here hears of it from there.
    os.setsid()
    die_with_parent(signal.SIGKILL)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(Exit.FAILED)  # it died before the kernel knew of our wish
    _take_private_mounts()
    return None


def _guard(child: int) -> int:
    signals: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):  # the terminal may be gone by now
        _say_how_it_ended(code, stopped=bool(signals))
    return code if code >= 0 else Exit.FAILED


def _say_how_it_ended(code: int, *, stopped: bool) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else "stopped"
    if code < 0 or (stopped and code):
        sys.stderr.write(f"ebs-autoscale: the demo was {how}; nothing of it is left\n")


def _take_private_mounts() -> None:
    _unshare(_CLONE_NEWNS)
    for arguments in (
        ["--make-rprivate", "/"],
        ["-t", "proc", "proc", "/proc"],
        # Over the host's: not even the empty folder /run/ebs-autoscale stays behind.
        ["-t", "tmpfs", "-o", "mode=755", "tmpfs", str(PRIVATE)],
    ):
        try:
            run(["mount", *arguments], timeout_seconds=_MOUNT_TIMEOUT_SECONDS)
        except CommandFailed as error:
            raise _unfit(str(error)) from error
    os.environ["TMPDIR"] = tempfile.tempdir = str(PRIVATE)
    enter_private_namespace()


def _unshare(flags: int) -> None:
    # os.unshare came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise _unfit(os.strerror(ctypes.get_errno()))


def _unfit(why: str) -> Unfit:
    return Unfit(
        f"cannot make namespaces for the demo: {why}",
        hint="run as root, in a container with --privileged",
        cause="namespace",
    )
