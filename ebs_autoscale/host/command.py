"""Run a tool of the operating system."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO

from ebs_autoscale.errors import Cause, CommandFailed, Stopped, Transient, Unfit
from ebs_autoscale.host.paths import IS_UNPACKED, LIBRARY

_PACKAGES = {
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.ext4": "e2fsprogs",
    "xfs_growfs": "xfsprogs",
    "resize2fs": "e2fsprogs",
    "blkid": "util-linux",
    "flock": "util-linux",
    "partx": "util-linux",
    "wipefs": "util-linux",
    "sfdisk": "fdisk (util-linux on Amazon Linux and RHEL)",
    "mount": "mount",
    "umount": "mount",
    "findfs": "util-linux",
    "systemctl": "systemd",
    "journalctl": "systemd",
}

# Without what is in the environment or the working directory (-I); a release, which has all
# packages that it needs, also without those of the host (-S).
_PYTHON = (
    (sys.executable, "-I", "-S", str(LIBRARY)) if IS_UNPACKED else (sys.executable, "-I", "-m")
)
OURSELVES = (*_PYTHON, "ebs_autoscale")
"""The program; its verb and options follow."""

_BOUNDED = (*_PYTHON, "ebs_autoscale.host.process")
# Instead of a preexec_fn, which is not safe with threads.
_IGNORING_SIGNALS = (*_BOUNDED, "deaf")
_BOUNDED_GRACE_SECONDS = 10.0

_POLL_SECONDS = 0.2
# A balance finishes its chunk first. Measured at 125 MiB/s: 5 s for 256 MiB of metadata, up to
# 20 s for 1 GiB.
_CANCEL_GRACE_SECONDS = 30.0
_KILL_GRACE_SECONDS = 10.0


def path_of(tool: str) -> str | None:
    """The path at which `run` finds this tool; None when it is not installed."""
    return shutil.which(tool, path=_search_path())


def require_tools(*tools: str) -> None:
    """Raise Unfit unless all of them are installed, before the first one is run."""
    for tool in tools:
        if path_of(tool) is None:
            what = f"the tool `{tool}` is not installed"
            raise Unfit(what, hint=_how_to_install(tool), cause=Cause.MISSING_TOOL)


def never() -> bool:
    """No stop is ever requested."""
    return False


def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    stopping: Callable[[], bool] = never,
    cancel: Callable[[], object] | None = None,
    stdin: str = "",
    keep_open: Sequence[int] = (),
) -> str:
    """Run a tool to its end and return its stdout; the tool does not outlive the call.

    Without a shell, with messages in English, and with the descriptors `keep_open`. The tool has
    its own process group, so that Ctrl-C reaches only us. `stopping` is called five times a second.

    With `cancel`, that function ends the tool, and nothing else does: no signal is sent to it, it
    ignores SIGTERM, SIGINT and SIGHUP, and it outlives the call if it takes long to end, and us if
    we are killed.

    Raises CommandFailed when the tool exits with a non-zero status, is killed or times out; Unfit
    when it is not installed; Transient when the host cannot start it now; Stopped once `stopping`
    has returned true and the tool was ended.
    """
    command = [*_IGNORING_SIGNALS, *argv] if cancel else argv
    process = _start(command, stdin=stdin, keep_open=keep_open)
    try:
        return _finish(process, tuple(argv), timeout_seconds, stopping, cancel)
    except BaseException:
        _end(process, cancel)
        raise


def feed(argv: Sequence[str], text: bytes, *, timeout_seconds: float) -> int:
    """Run a command of the operator with this text on its stdin; returns its exit status.

    124 when its time was up, 126 when the command cannot be executed, 127 when there is none. What
    it prints is not kept, and none of the processes that it starts outlives it. Raises Transient
    when the host cannot start it now.
    """
    with _in_memory(text) as file:
        try:
            process = subprocess.Popen(
                [*_BOUNDED, f"{timeout_seconds:g}", *argv],
                stdin=file,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_without_service_manager(),
                process_group=0,
            )
        except OSError as error:
            what = f"cannot start {argv[0]}: {error.strerror}"
            raise Transient(what, cause=Cause.HOST) from error
    # At once: neither before the programs of the host nor before a growth.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
    try:
        return process.wait(timeout_seconds + _BOUNDED_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Question:
    """A tool that only looks, and may take for ever, such as one that reads a device.

    Nobody waits for it longer than they want to; it is left behind if it does not end.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = _start(argv)
        self._answer: str | None = None

    @classmethod
    def of_module(cls, module: str, *arguments: str) -> "Question":
        """Ask a module of this program, run as a command."""
        return cls([*_PYTHON, module, *arguments])

    def answer(self, *, wait_seconds: float) -> str | None:
        """Its stdout, of a page at most; None while it has not ended. Raises CommandFailed."""
        if self._answer is None:
            try:
                self._process.wait(wait_seconds)
            except subprocess.TimeoutExpired:
                return None
            output, messages = self._process.communicate()
            if self._process.returncode != 0:
                raise CommandFailed((str(self._process.args),), self._process.returncode, messages)
            self._answer = output.strip()
        return self._answer

    def drop(self) -> None:
        """Leave the tool behind, killed as soon as its system call ends."""
        if self._process.returncode is None:
            self._process.kill()
            _close_pipes(self._process)


def _start(
    argv: Sequence[str], *, stdin: str = "", keep_open: Sequence[int] = ()
) -> subprocess.Popen[str]:
    try:
        with _in_memory(stdin.encode()) as file:
            return subprocess.Popen(
                argv,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C", "PATH": _search_path()},
                encoding="utf-8",
                errors="replace",
                process_group=0,
                pass_fds=keep_open,
            )
    except (FileNotFoundError, PermissionError) as error:
        hint = _how_to_install(argv[0])
        if isinstance(error, PermissionError):
            hint = "check who may execute it, and may search the directories above it"
        what = f"cannot run {argv[0]}: {error.strerror}"
        raise Unfit(what, hint=hint, cause=Cause.MISSING_TOOL) from error
    except OSError as error:
        raise Transient(f"cannot start {argv[0]}: {error.strerror}", cause=Cause.HOST) from error


def _in_memory(text: bytes) -> BinaryIO:
    """A file with this text, so that whoever gives it to a command need not wait for its reader."""
    file = os.fdopen(os.memfd_create("stdin"), "w+b")
    file.write(text)
    file.seek(0)
    return file


def _how_to_install(tool: str) -> str:
    package = _PACKAGES.get(tool)
    return f"install the package {package}" if package else f"install {tool}"


def _search_path() -> str:
    # After `su` without a dash, in some cron jobs, and under sudo's secure_path (often without
    # /usr/local/sbin), the PATH of root lacks the sbin folders.
    return f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def _without_service_manager() -> dict[str, str]:
    # What a command tells systemd would be taken for a state of the daemon, or be complained about.
    environment = {**os.environ, "PATH": _search_path()}
    for name in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"):
        environment.pop(name, None)
    return environment


def _finish(
    process: subprocess.Popen[str],
    argv: tuple[str, ...],
    timeout_seconds: float,
    stopping: Callable[[], bool],
    cancel: Callable[[], object] | None,
) -> str:
    remaining_seconds = timeout_seconds
    while True:
        slice_seconds = min(remaining_seconds, _POLL_SECONDS)
        try:
            output, messages = process.communicate(timeout=slice_seconds)
        except subprocess.TimeoutExpired:
            remaining_seconds -= slice_seconds
        else:
            break
        if stopping():
            if cancel:
                _end(process, cancel)
            else:
                _terminate(process)
            raise Stopped(f"ended `{' '.join(argv)}` because a stop was requested")
        if remaining_seconds <= 0:
            raise CommandFailed(argv, None, _end(process, cancel))
    if process.returncode != 0:
        raise CommandFailed(argv, process.returncode, messages or output)
    return output


def _terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_KILL_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _end(process)


def _end(process: subprocess.Popen[str], cancel: Callable[[], object] | None = None) -> str:
    """Kill or cancel the tool and reap it, once; returns its stderr."""
    if process.stdout is None or process.stdout.closed:
        return ""
    try:
        if cancel:
            return _cancel(process, cancel)
        process.kill()
        return process.communicate(timeout=_KILL_GRACE_SECONDS)[1]
    except subprocess.TimeoutExpired:
        # It is in an uninterruptible system call, as with a volume that does not respond, or its
        # child holds the pipes open. Waiting longer would block us; init reaps it later.
        return "ended, but still in a system call"
    finally:
        _close_pipes(process)


def _cancel(process: subprocess.Popen[str], cancel: Callable[[], object]) -> str:
    """Cancel every second until the tool ends: it may not have begun yet what is to be cancelled.

    Raises TimeoutExpired.
    """
    seconds_left = _CANCEL_GRACE_SECONDS
    while True:
        cancel()
        try:
            return process.communicate(timeout=1.0)[1]
        except subprocess.TimeoutExpired:
            seconds_left -= 1.0
            if seconds_left <= 0:
                raise


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
