"""The daemon as a process: started by its command line, known by its log and status file."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ec2_sandbox.errors import SandboxError

# It finishes the EC2 call in progress; the demo stops it only when it is idle.
_STOP_TIMEOUT_SECONDS = 15.0
# The demo has a /run of its own, so there is one status file at most.
_STATUS_FILES = Path("/run/ebs-autoscale")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of the daemon's log."""

    level: str
    message: str


class Daemon:
    """A running `ebs-autoscale run`."""

    def __init__(self, process: "subprocess.Popen[bytes]", output_fd: int) -> None:
        self._process = process
        self._output_fd = output_fd
        self._unread = b""
        self._last_message = ""

    def new_log_lines(self) -> list[LogLine]:
        """What it has logged since the last call."""
        while True:
            try:
                chunk = os.read(self._output_fd, 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        parsed = [_parsed(line.decode(errors="replace")) for line in lines]
        if parsed:
            self._last_message = parsed[-1].message
        return parsed

    def status(self) -> dict[str, Any]:
        """The content of its status file; empty when there is none."""
        for path in _STATUS_FILES.glob("*.json"):
            try:
                status: dict[str, Any] = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            return status
        return {}

    def require_alive(self) -> None:
        """Raise SandboxError if it has ended by itself."""
        if (status := self._process.poll()) is not None:
            reason = self._last_message or "no message"
            raise SandboxError(f"the daemon ended with status {status}: {reason}")

    def stop(self) -> int:
        """Stop it with SIGTERM, as systemd does, and return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SandboxError(
                f"the daemon did not end within {_STOP_TIMEOUT_SECONDS:.0f} s of SIGTERM"
            ) from error


@contextmanager
def running_daemon(config: Path) -> Iterator[Daemon]:
    """Start the daemon with this configuration; it is killed if the block has not stopped it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "ebs_autoscale", "--config", str(config), "run"],
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        stderr=write_end,
    )
    os.close(write_end)
    try:
        yield Daemon(process, read_end)
    finally:
        process.kill()
        process.wait()


def _parsed(text: str) -> LogLine:
    """Parse a line of JSON, or take the text of a program that failed before logging."""
    try:
        found = json.loads(text)
        message, hint = found["message"], found.get("hint")
        return LogLine(level=found["level"], message=f"{message}; {hint}" if hint else message)
    except (ValueError, AttributeError, KeyError, TypeError):
        return LogLine(level="error", message=text)
