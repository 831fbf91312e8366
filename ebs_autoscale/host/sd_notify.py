"""sd_notify(3): tell systemd what the service is doing."""

import os
import socket
from collections.abc import Mapping

# sd_watchdog_enabled(3) advises half of WatchdogSec: this suffices for any down to 2 s.
WATCHDOG_EVERY_SECONDS = 1.0


class Notifier:
    """Sends READY, RELOADING, STATUS, WATCHDOG and STOPPING; does nothing without NOTIFY_SOCKET."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._fed_at_seconds = float("-inf")

    def ready(self) -> None:
        """The service is up, or a reload is over, successful or not."""
        self._send("READY=1")

    def reloading(self, now_seconds: float) -> None:
        """The configuration is being read again; `ready` ends it. Takes monotonic time."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_seconds * 1e6:.0f}")

    def stopping(self) -> None:
        """The service is shutting down, which may take as long as a step of a growth."""
        self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """The line that `systemctl status` shows; sent only when it has changed."""
        sentence = " ".join(sentence.split())
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={sentence}")

    def feed_watchdog(self, now_seconds: float) -> None:
        """The loop is alive; sent at most once a second, however often it is called."""
        if now_seconds - self._fed_at_seconds >= WATCHDOG_EVERY_SECONDS:
            self._fed_at_seconds = now_seconds
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL byte of an abstract socket.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.connect(address)
                sender.send(message.encode())
            except OSError:
                # The filesystem is watched whether or not a service manager listens.
                return
