"""Run a program on a terminal of its own."""

import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Timer

ROWS = 60


def on_terminal(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    columns: int = 80,
    until: bytes = b"",
    number: signal.Signals = signal.SIGTERM,
) -> str:
    """All that it writes; once `until` is among that, it gets the signal."""
    # A process in the background of a script ignores SIGINT, and all that it starts.
    argv = ["env", "--default-signal", *argv]
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", ROWS, columns, 0, 0))
    with subprocess.Popen(
        argv, env=dict(environment), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        too_long = Timer(60, process.kill)
        too_long.start()
        written, is_told = b"", False
        # The end of the last process on a terminal is EIO to its reader.
        with suppress(OSError):
            while part := os.read(ours, 65_536):
                written += part
                if until and until in written and not is_told:
                    process.send_signal(number)
                    is_told = True
        too_long.cancel()
    os.close(ours)
    return written.decode().replace("\r\n", "\n")
