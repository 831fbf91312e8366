"""`python -m tests.pictures.filling`: record a filesystem that a job fills; JSON on stdout."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from time import monotonic

from tests.alone import alone
from tests.bench.ground import GIB
from tests.bench.guards import bench_host, ours
from tests.system.bench import Daemon, Host

SIZE_BYTES = 3 * GIB
# The defaults, scaled down with the filesystem: what is in GiB, and the lead time, since a growth
# takes as long as one of hundreds of GiB would.
CONFIG = {
    "threshold": {"available": "20%", "available_min": "128MiB", "lead_time": "8s"},
    "growth": {"size": "50%", "min": "1GiB"},
    "poll": {"max": "5s"},
    "logging": {"format": "json"},
}
SAMPLE_EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the job: a steady rate in bytes per second, for so many seconds."""

    rate: float
    seconds: float


# Slow and fast in turn, so that growths begin by the threshold and by the forecast.
JOB = (Phase(50e6, 30), Phase(140e6, 16), Phase(40e6, 24), Phase(140e6, 16), Phase(40e6, 14))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The filesystem `seconds` after the job began, and how often the daemon decided to grow."""

    seconds: float
    size_bytes: int
    available_bytes: int
    device_count: int
    growths_begun: int


def record(folder: Path) -> list[Sample]:
    """Run the job on a filesystem that the daemon watches; raises if a write of the job fails."""
    samples: list[Sample] = []
    with bench_host(folder, SIZE_BYTES, config=CONFIG) as host, ours(host) as daemon:
        began = monotonic()
        for number, phase in enumerate(JOB):
            with subprocess.Popen(_writer(host, number, phase), stdout=subprocess.PIPE) as writer:
                while writer.poll() is None:
                    samples.append(_sample(host, daemon, monotonic() - began))
                    Event().wait(SAMPLE_EVERY_SECONDS)
                if error := json.loads(writer.communicate()[0])["errno"]:
                    raise OSError(error, os.strerror(error))
    return samples


def _writer(host: Host, number: int, phase: Phase) -> list[str]:
    target = str(host.mountpoint / f"part-{number}")
    size = str(int(phase.rate * phase.seconds))
    return [sys.executable, "-m", "tests.bench.writer", target, str(phase.rate), size, "buffered"]


def _sample(host: Host, daemon: Daemon, seconds: float) -> Sample:
    reading = host.read()
    return Sample(
        seconds=seconds,
        size_bytes=reading.size_bytes,
        available_bytes=reading.available_bytes,
        device_count=len(reading.devices),
        growths_begun=_growths_begun(daemon.log),
    )


def _growths_begun(log: str) -> int:
    complete = log.rpartition("\n")[0].splitlines()
    events = [json.loads(line) for line in complete]
    return sum(each["event"] == "decided" and each["decision"] == "grow" for each in events)


if __name__ == "__main__":
    json.dump([asdict(sample) for sample in record(alone("picture-"))], sys.stdout)
