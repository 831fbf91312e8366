"""Log lines on their way to a reader that may not read: nobody waits, and what is lost is counted.

A write without waiting is not enough: O_NONBLOCK would change a pipe or terminal for every process
that shares it, and has no effect on a file, whose filesystem may hang. So a thread writes.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread, current_thread

# Lines that wait for their reader: those of a dozen growths, 1 MiB of memory at the most.
WAITING_MAX = 200

# How long the end of the process, or an operator's verb, waits for a reader that does not read.
PATIENCE_SECONDS = 1.0

Deliver = Callable[[bytes], None]


class Outbox(logging.Handler):
    """Gives each line to `deliver`, which may block, in a thread; never blocks or raises itself.

    With WAITING_MAX lines waiting, further ones are dropped. `dropped` counts these and those that
    `deliver` has refused; as soon as it takes lines again, `tell_dropped` is called with the number
    since the last call, from the thread. With `patient`, a line that nothing waits in front of is
    waited for, so that an operator sees lines in their order with other output.
    """

    def __init__(
        self, deliver: Deliver, *, tell_dropped: Callable[[int], None], patient: bool = False
    ) -> None:
        super().__init__()
        self._deliver = deliver
        self._tell_dropped = tell_dropped
        self._patient = patient
        self._changed = Condition()
        self._waiting: deque[bytes] = deque()
        self._thread: Thread | None = None
        self._is_closed = False
        self._untold = 0
        self.dropped = 0

    def encoded(self, record: logging.LogRecord) -> bytes:
        """What is delivered of a record."""
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; one that cannot even be formatted is dropped."""
        try:
            line = self.encoded(record)
        except Exception:  # noqa: BLE001 -- whatever it is, it must not end the tick that tells it
            line = b""
        is_own = current_thread() is self._thread
        with self._changed:
            # The line that tells of dropped ones is not dropped: its count would be lost with it.
            if not line or (len(self._waiting) >= WAITING_MAX and not is_own):
                self._count_dropped()
                return
            self._waiting.append(line)
            self._start()
            self._changed.notify_all()
            is_alone = len(self._waiting) == 1
        if self._patient and is_alone and not is_own:
            self.flush()

    def flush(self) -> None:
        """Wait until every line is delivered, but not long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, PATIENCE_SECONDS)

    def close(self) -> None:
        """Have the thread end with its last line."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        super().close()

    def _count_dropped(self) -> None:
        self.dropped += 1
        self._untold += 1

    def _start(self) -> None:
        # At the first line, since a process that is to detach must not have a thread.
        if self._thread is None:
            thread = Thread(target=self._deliver_all, name="log", daemon=True)
            # Where no thread can be had now (TasksMax=), the next line tries again.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _deliver_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    return
                line = self._waiting[0]
            try:
                self._deliver(line)
            except Exception:  # noqa: BLE001 -- a line is lost, and the next one may not be
                is_delivered = False
            else:
                is_delivered = True
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
                if not is_delivered:
                    self._count_dropped()
                    continue
                lost, self._untold = self._untold, 0
            if lost:
                self._tell_dropped(lost)


class Descriptor:
    """Writes lines to a descriptor; after a line that was cut the next one begins on a new line."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._is_cut = False

    def __call__(self, line: bytes) -> None:
        """Write all of it; raises OSError."""
        left = b"\n" + line if self._is_cut else line
        while left:
            count = os.write(self.fd, left)
            left = left[count:]
            self._is_cut = bool(left)


class LogFile:
    """Writes lines to the file that has this name at that moment: rotation needs no signal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Descriptor | None = None

    def __call__(self, line: bytes) -> None:
        """Append a line; raises OSError."""
        if not self._file or not self._has_the_name(self._file.fd):
            if self._file:
                os.close(self._file.fd)
                self._file = None
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._file = Descriptor(os.open(self._path, flags, 0o644))
        self._file(line)

    def _has_the_name(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False


class Journal:
    """Sends datagrams to journald; connects again when its socket was made anew."""

    def __init__(self, address: str) -> None:
        """Raise OSError when nobody listens there."""
        self._address = address
        self._socket = self._connected()

    def __call__(self, datagram: bytes) -> None:
        """Send one entry; raises OSError."""
        try:
            self._socket.send(datagram)
        except OSError:
            self._socket.close()
            self._socket = self._connected()
            self._socket.send(datagram)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _connected(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            found.connect(self._address)
        except OSError:
            found.close()
            raise
        return found
