"""sd_notify(3): tell systemd what the service is doing."""

import os
import socket
from collections.abc import Mapping

from ebs_autoscale.units import printable

# sd_watchdog_enabled(3) advises half of WatchdogSec: this suffices for any down to 2 s.
WATCHDOG_EVERY_SECONDS = 1.0

# systemd takes 4 KiB in one message (NOTIFY_BUFFER_MAX); a character has 4 bytes at the most.
_STATUS_MAX = 1000
_DATAGRAMS = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Notifier:
    """Sends READY, RELOADING, STATUS, WATCHDOG and STOPPING; does nothing without NOTIFY_SOCKET.

    Never waits for systemd. What it does not take now is sent with the next message, in order; of
    each kind only the last. `dropped` counts the messages that were replaced before they were sent.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._unsent: dict[str, str] = {}
        self._status = ""
        self._fed_at_seconds = float("-inf")
        self.dropped = 0

    @property
    def is_service(self) -> bool:
        """Whether a service manager wants to hear of this process."""
        return bool(self._address)

    def ready(self) -> None:
        """The service is up, or a reload is over, successful or not."""
        self._send("READY", "1")

    def reloading(self, now_seconds: float) -> None:
        """The configuration is being read again; `ready` ends it. Takes monotonic time."""
        self._send("RELOADING", f"1\nMONOTONIC_USEC={now_seconds * 1e6:.0f}")

    def stopping(self) -> None:
        """The service is shutting down, which may take as long as a step of a growth."""
        self._send("STOPPING", "1")

    def status(self, sentence: str) -> None:
        """The line that `systemctl status` shows; sent only when it has changed."""
        sentence = printable(sentence)[:_STATUS_MAX]
        if sentence != self._status:
            self._status = sentence
            self._send("STATUS", sentence)

    def feed_watchdog(self, now_seconds: float) -> None:
        """The loop is alive; sent at most once a second, however often it is called."""
        if now_seconds - self._fed_at_seconds >= WATCHDOG_EVERY_SECONDS:
            self._fed_at_seconds = now_seconds
            self._send("WATCHDOG", "1")

    def _send(self, name: str, value: str) -> None:
        if not self._address:
            return
        # At the end: after RELOADING it is the second READY that counts.
        self.dropped += self._unsent.pop(name, None) is not None
        self._unsent[name] = f"{name}={value}"
        # "@" stands for the NUL byte of an abstract socket.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, _DATAGRAMS) as sender:
            try:
                sender.connect(address)
                while self._unsent:
                    first = next(iter(self._unsent))
                    sender.send(self._unsent[first].encode("utf-8", "backslashreplace"))
                    del self._unsent[first]
            except OSError:
                # The filesystem is watched whether or not a service manager listens.
                return
