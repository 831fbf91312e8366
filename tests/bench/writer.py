"""`python -m tests.bench.writer`: write at a steady rate; prints the result as JSON."""

import json
import os
import sys
from pathlib import Path
from threading import Event
from time import monotonic

BLOCK_BYTES = 1024**2
FSYNC_EVERY_BYTES = 8 * BLOCK_BYTES


def write(path: Path, *, rate: float, most_bytes: int, fsync: bool) -> dict[str, float]:
    """Write `rate` bytes per second until `most_bytes` are written, or the first error."""
    block, pause = os.urandom(BLOCK_BYTES), Event()
    written, error_number = 0, 0
    began = monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while written < most_bytes:
            early = written / rate - (monotonic() - began)
            if early > 0:
                pause.wait(early)
            written += os.write(fd, block)
            if fsync and written % FSYNC_EVERY_BYTES < BLOCK_BYTES:
                os.fsync(fd)
    except OSError as error:
        error_number = error.errno or 0
    finally:
        os.close(fd)
    seconds = monotonic() - began
    return {"written": written, "seconds": seconds, "errno": error_number}


if __name__ == "__main__":
    target, rate_text, most_text, mode = sys.argv[1:]
    ending = write(
        Path(target), rate=float(rate_text), most_bytes=int(most_text), fsync=mode == "fsync"
    )
    sys.stdout.write(json.dumps(ending) + "\n")
