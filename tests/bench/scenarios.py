"""Ways to use up a filesystem, each with the number of growths it is worth."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tests.bench.ground import GIB, MIB, tool
from tests.bench.guards import bench_host, ours
from tests.bench.writer import write

SIZE_BYTES = 2 * GIB
STEP_BYTES = GIB
HEADING = f"{'scenario':<20}{'growths':>8}{'needed':>8}  ending"
AVAILABLE_SHARE = 0.2
CONFIG: Mapping[str, Any] = {
    # What auto comes to once growths of 5 s were seen.
    "threshold": {"available": "20%", "available_min": "64MiB", "lead_time": "10s"},
    "growth": {"size": "1GiB", "min": "1GiB", "max": "1GiB"},
    "poll": {"max": "5s"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a scenario went: growths that happened, and those that its bytes were worth."""

    name: str
    growths: int
    needed: int
    enospc: bool

    @property
    def told(self) -> str:
        """In one line."""
        ending = "ENOSPC" if self.enospc else "no ENOSPC"
        return f"{self.name:<20}{self.growths:>8}{self.needed:>8}  {ending}"

    @property
    def good(self) -> bool:
        """No ENOSPC, and at most one volume too many."""
        return not self.enospc and self.growths <= self.needed + 1


def burst(point: Path) -> bool:
    """Rest, then write at full speed; whether there was an error."""
    Event().wait(10)
    return _write(point / "burst", rate_mb=200, mib=2500)


def sawtooth(point: Path) -> bool:
    """Write and delete, over and over."""
    failed = False
    for number in range(12):
        failed |= _write(point / f"tooth-{number}", rate_mb=50, mib=200)
        (point / f"tooth-{number}").unlink()
    return failed


def parallel(point: Path) -> bool:
    """Eight writers at once."""
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(_write, point / f"of-{n}", rate_mb=15, mib=300) for n in range(8)]
        return any(job.result() for job in jobs)


def fallocate(point: Path) -> bool:
    """Book space without writing, in three large pieces."""
    for number in range(3):
        with (point / f"booked-{number}").open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, 700 * MIB)
            except OSError:
                return True
        Event().wait(10)
    return False


def snapshots(point: Path) -> bool:
    """Overwrite a file again and again while snapshots keep what it was."""
    volume = point / "volume"
    tool("btrfs", "subvolume", "create", str(volume))
    failed = False
    for number in range(6):
        failed |= _write(volume / "content", rate_mb=60, mib=400)
        tool("btrfs", "subvolume", "snapshot", "-r", str(volume), str(point / f"then-{number}"))
    return failed


def reflinks(point: Path) -> bool:
    """A hundred copies that share their content."""
    failed = _write(point / "original", rate_mb=60, mib=300)
    for number in range(100):
        tool("cp", "--reflink=always", str(point / "original"), str(point / f"copy-{number}"))
    Event().wait(5)
    return failed


def compressed(point: Path) -> bool:
    """Four times what fits, of what shrinks to nothing."""
    code = "import sys; f = open(sys.argv[1], 'wb')\nfor _ in range(8192): f.write(bytes(1 << 20))"
    argv = [sys.executable, "-c", code, str(point / "zeros")]
    return subprocess.run(argv, check=False, capture_output=True).returncode != 0


SCENARIOS: Mapping[str, tuple[Callable[[Path], bool], str]] = {
    "burst after rest": (burst, "defaults"),
    "sawtooth": (sawtooth, "defaults"),
    "parallel writers": (parallel, "defaults"),
    "fallocate": (fallocate, "defaults"),
    "snapshots": (snapshots, "defaults"),
    "reflinks": (reflinks, "defaults"),
    "compression": (compressed, "compress=zstd:1"),
}


def play(folder: Path, name: str) -> Outcome:
    """Let a scenario run under the daemon, and look at its peak."""
    act, options = SCENARIOS[name]
    with bench_host(folder, SIZE_BYTES, options=options, config=CONFIG) as host:
        ended, peak = Event(), [0]

        def watch() -> None:
            while not ended.wait(0.1):
                peak[0] = max(peak[0], host.read().used_bytes)

        watcher = Thread(target=watch)
        with ours(host):
            watcher.start()
            try:
                failed = act(host.mountpoint)
            finally:
                ended.set()
                watcher.join()
        return Outcome(name=name, growths=host.members - 1, needed=_needed(peak[0]), enospc=failed)


def _needed(peak_bytes: int) -> int:
    """How many steps leave the share available that is configured, at the peak of use."""
    missing = peak_bytes / (1 - AVAILABLE_SHARE) - SIZE_BYTES
    return max(0, -int(-missing // STEP_BYTES))


def _write(path: Path, *, rate_mb: int, mib: int) -> bool:
    ending = write(path, rate=rate_mb * 1e6, most_bytes=mib * MIB, fsync=False)
    return ending["errno"] != 0
