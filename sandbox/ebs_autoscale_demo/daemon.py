"""The daemon of the demo: a process started through its normal command line, and what it says."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ebs_autoscale.errors import Unfit
from ebs_autoscale.wiring import status_path
from ebs_autoscale_demo.preparation import CONFIG, MOUNTPOINT

PROGRAM = (sys.executable, "-I", "-m", "ebs_autoscale", "--config", str(CONFIG))

# It finishes the EC2 call that it is in; the demo stops it only when it is idle.
_STOP_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """One line of the daemon's journal; `event` is what happened, `fields` its figures."""

    event: str
    level: str
    sentence: str
    fields: dict[str, Any]


class Daemon:
    """`ebs-autoscale run` as its own process."""

    def __init__(self, process: "subprocess.Popen[bytes]", output_fd: int) -> None:
        self._process = process
        self._output_fd = output_fd
        self._unread = b""
        self._last_words = ""

    def journal(self) -> list[JournalLine]:
        """What it said since the last call."""
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
            self._last_words = parsed[-1].sentence
        return parsed

    def report(self) -> dict[str, Any]:
        """Its own report under /run; empty when there is none."""
        try:
            report: dict[str, Any] = json.loads(status_path(str(MOUNTPOINT)).read_text())
        except (OSError, ValueError):
            return {}
        return report

    def require_alive(self) -> None:
        """Raise Unfit when it has ended by itself."""
        if (status := self._process.poll()) is not None:
            raise Unfit(
                f"the daemon ended with status {status}: {self._last_words or 'no word'}",
                cause="daemon",
            )

    def stop(self) -> int:
        """Ask it to end as systemd does, by SIGTERM: its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Unfit(
                f"the daemon did not end in {_STOP_PATIENCE_SECONDS:.0f} s after SIGTERM",
                cause="daemon",
            ) from error


@contextmanager
def running_daemon() -> Iterator[Daemon]:
    """Start the daemon; at the end, however it comes, it is gone."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    process = subprocess.Popen(
        [*PROGRAM, "run"], stdin=subprocess.DEVNULL, stdout=write_end, stderr=write_end
    )
    os.close(write_end)
    try:
        yield Daemon(process, read_end)
    finally:
        process.kill()
        process.wait()


def _parsed(text: str) -> JournalLine:
    """A line of JSON, or of whatever a program says that fails before it knows its format."""
    try:
        found = json.loads(text)
        return JournalLine(
            event=found.pop("event"),
            level=found.pop("level"),
            sentence=found.pop("message"),
            fields=found,
        )
    except (ValueError, AttributeError, KeyError):
        return JournalLine(event="", level="error", sentence=text, fields={})
