"""The only door to subprocess."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from ebs_autoscale.errors import Cause, CommandFailed, Stopped, Transient, Unfit

_PACKAGES = {
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "blkid": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "findfs": "util-linux",
    "systemctl": "systemd",
}

# A preexec_fn of our own would run between fork and exec.
_DIES_WITH_PARENT = (sys.executable, "-I", "-m", "ebs_autoscale.host.process")

_LOOK_EVERY_SECONDS = 0.2
# A balance that is told to stop first finishes its chunk: 5 s for 256 MiB of metadata,
# up to 20 s for 1 GiB (measured at 125 MiB/s). Then it has to be gone.
_TERMINATE_GRACE_SECONDS = 30.0
_KILL_GRACE_SECONDS = 10.0


def path_of(tool: str) -> str | None:
    """Where `run` finds this tool; None when it is not installed."""
    return shutil.which(tool, path=_search_path())


def never() -> bool:
    """Nobody asks us to stop."""
    return False


def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    stopping: Callable[[], bool] = never,
    dies_with_us: bool = False,
) -> str:
    """Run a tool to its end and return what it wrote to stdout; nothing of it outlives this call.

    No shell, no stdin, messages in English. The tool has a process group of its own:
    Ctrl-C reaches us, and we decide. `stopping` is asked five times a second. With
    `dies_with_us` the tool gets SIGTERM from the kernel when we are killed.

    Raises CommandFailed when the tool ends with a non-zero status, is killed or runs out of
    time; Unfit when it is not installed; Transient when the host cannot start it
    now; Stopped when `stopping` became true, after having ended the tool.
    """
    process = _start([*_DIES_WITH_PARENT, *argv] if dies_with_us else argv)
    try:
        return _finish(process, tuple(argv), timeout_seconds, stopping)
    except BaseException:
        _end(process)
        raise


def _start(argv: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "PATH": _search_path()},
            encoding="utf-8",
            errors="replace",
            process_group=0,
        )
    except (FileNotFoundError, PermissionError) as error:
        package = _PACKAGES.get(argv[0])
        raise Unfit(
            f"cannot run {argv[0]}: {error.strerror}",
            hint=f"install the package {package}" if package else f"install {argv[0]}",
            cause=Cause.MISSING_TOOL,
        ) from error
    except OSError as error:
        raise Transient(f"cannot start {argv[0]}: {error.strerror}", cause=Cause.HOST) from error


def _search_path() -> str:
    # `su` without a dash, and some cron jobs, leave root without the sbin folders.
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _finish(
    process: subprocess.Popen[str],
    argv: tuple[str, ...],
    timeout_seconds: float,
    stopping: Callable[[], bool],
) -> str:
    remaining_seconds = timeout_seconds
    while True:
        slice_seconds = min(remaining_seconds, _LOOK_EVERY_SECONDS)
        try:
            output, messages = process.communicate(timeout=slice_seconds)
        except subprocess.TimeoutExpired:
            remaining_seconds -= slice_seconds
        else:
            break
        if stopping():
            _terminate(process)
            raise Stopped(f"`{' '.join(argv)}` was ended because a stop was requested")
        if remaining_seconds <= 0:
            raise CommandFailed(argv, None, _end(process))
    if process.returncode != 0:
        raise CommandFailed(argv, process.returncode, messages or output)
    return output


def _terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_TERMINATE_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _end(process)


def _end(process: subprocess.Popen[str]) -> str:
    """Kill and reap, once; what it had written to stderr, for the message."""
    if process.stdout is None or process.stdout.closed:
        return ""
    process.kill()
    try:
        return process.communicate(timeout=_KILL_GRACE_SECONDS)[1]
    except subprocess.TimeoutExpired:
        # In an uninterruptible system call (a volume that hangs), or a grandchild keeps the
        # pipes open. Waiting longer would hang us with it; init reaps what is left.
        return "killed, but the kernel keeps it in a system call"
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
