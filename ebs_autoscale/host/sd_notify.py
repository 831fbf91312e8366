"""How the process lives: sd_notify, its parent's death, and detaching without systemd."""

import atexit
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# The manager is told sooner than the half of its patience that sd_watchdog_enabled(3) advises.
WATCHDOG_EVERY_SECONDS = 1.0


class Notifier:
    """sd_notify(3): READY, RELOADING, STATUS, WATCHDOG and STOPPING; silent when nobody listens."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._fed_at_seconds = float("-inf")

    def ready(self) -> None:
        """The service is up: it watches, or waits for what it is to watch."""
        self._send("READY=1")

    def reloading(self, now_seconds: float) -> None:
        """The configuration is read anew; `ready` says when that is over, well or not."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_seconds * 1e6:.0f}")

    def stopping(self) -> None:
        """The end has begun and may take as long as a step takes."""
        self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows, in one line; sent when it changes."""
        sentence = " ".join(sentence.split())
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={sentence}")

    def feed_watchdog(self, now_seconds: float) -> None:
        """The loop lives."""
        if now_seconds - self._fed_at_seconds >= WATCHDOG_EVERY_SECONDS:
            self._fed_at_seconds = now_seconds
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the NUL of an abstract socket.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.connect(address)
                sender.send(message.encode())
            except OSError:
                # A service manager that went away is no reason to stop watching a filesystem.
                return


# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process the signal when its parent ends, however it ends."""
    import ctypes  # noqa: PLC0415 -- only a growth needs it

    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number.value)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


@contextmanager
def detached(*, pid_path: Path, log_path: Path, keep: tuple[int, ...]) -> Iterator[None]:
    """Go to the background with a pid file, output appended to a log file, `keep` left open.

    The pid file is a courtesy; the lock is what keeps a second daemon away, so a stale
    pid file never stops anyone (python-daemon's own pid lock would, after a kill -9).
    """
    import daemon  # noqa: PLC0415 -- only hosts without systemd pay for it

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
