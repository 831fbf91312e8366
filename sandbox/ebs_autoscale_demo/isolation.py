"""Namespaces for the demo, so that the kernel removes everything it made, however it ends."""

import ctypes
import os
import select
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType

from ec2_sandbox.devices.namespace import enter_private_namespace, hint_for_refusal
from ec2_sandbox.errors import HostUnfit

from ebs_autoscale_demo.command import ToolFailed, run

# linux/sched.h, linux/prctl.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1

_EXIT_FAILED = 1
_SHOW_CURSOR = "\x1b[?25h"

PRIVATE = Path("/run")
"""In the namespaces, this directory is a tmpfs of the demo."""


def isolate() -> int | None:
    """Continue in a child process that is PID 1 of its own namespaces; returns None there.

    The original process forwards signals and returns the exit code of the child when nothing of
    it is left. If the original process is killed, the kernel kills the child; with PID 1, the
    kernel kills all processes of the PID namespace (pid_namespaces(7)), and with these go the
    mounts and the loop devices. Raises HostUnfit when not permitted.
    """
    sys.stdout.flush()
    parent_alive, held_by_parent = os.pipe2(os.O_CLOEXEC)
    _unshare(_CLONE_NEWPID)
    child = os.fork()
    if child:
        return _wait_for(child)
    os.close(held_by_parent)
    # Detached from the terminal: Ctrl-C reaches the parent only, which forwards it to PID 1
    # and to no other process of the demo.
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL.value)
    if select.select([parent_alive], [], [], 0)[0]:
        os._exit(_EXIT_FAILED)  # the parent ended before prctl
    _make_private_mounts()
    return None


def _wait_for(child: int) -> int:
    signals: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):  # the terminal may be gone
        _report_end(code, stopped=bool(signals))
    return code if code >= 0 else _EXIT_FAILED


def _report_end(code: int, *, stopped: bool) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else "stopped"
    if code < 0 or (stopped and code):
        sys.stderr.write(f"ebs-autoscale: the demo was {how}; it left nothing behind\n")


def _make_private_mounts() -> None:
    _unshare(_CLONE_NEWNS)
    for arguments in (
        ["--make-rprivate", "/"],
        ["-t", "proc", "proc", "/proc"],
        ["-t", "tmpfs", "-o", "mode=755", "tmpfs", str(PRIVATE)],
    ):
        try:
            run(["mount", *arguments])
        except ToolFailed as error:
            raise _unfit(str(error)) from error
    os.environ["TMPDIR"] = tempfile.tempdir = str(PRIVATE)
    enter_private_namespace()


def _unshare(flags: int) -> None:
    # os.unshare needs Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise _unfit(os.strerror(ctypes.get_errno()))


def _unfit(reason: str) -> HostUnfit:
    return HostUnfit(
        f"cannot create namespaces for the demo: {reason}",
        hint=hint_for_refusal(),
    )
