"""Ways to fill a filesystem, each with the number of growths that it needs."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ebs_autoscale.policy.settings import GrowthPolicy
from tests.bench.ground import GIB, MIB, tool
from tests.bench.guards import bench_host, ours
from tests.bench.writer import write

# With default settings a growth, of 20 GiB, is needed after 2 GiB more.
SIZE_BYTES = 40 * GIB
AVAILABLE_BYTES = 12 * GIB
HEADING = f"{'scenario':<20}{'growths':>8}{'needed':>8}  ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a scenario ended: its growths, and how many were needed."""

    name: str
    growths: int
    needed: int
    enospc: bool

    @property
    def told(self) -> str:
        """As one line."""
        ending = "ENOSPC" if self.enospc else "no ENOSPC"
        return f"{self.name:<20}{self.growths:>8}{self.needed:>8}  {ending}"

    @property
    def good(self) -> bool:
        """No ENOSPC, and at most one volume too many."""
        return not self.enospc and self.growths <= self.needed + 1


def burst(point: Path) -> bool:
    """Wait, then write at full speed; returns whether there was an error."""
    Event().wait(10)
    return _write(point / "burst", rate_mb=400, mib=3000)


def sawtooth(point: Path) -> bool:
    """Write and delete repeatedly, across the threshold and back."""
    failed = False
    for number in range(6):
        failed |= _write(point / f"tooth-{number}", rate_mb=250, mib=2500)
        (point / f"tooth-{number}").unlink()
    return failed


def parallel(point: Path) -> bool:
    """Eight writers at once."""
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(_write, point / f"of-{n}", rate_mb=40, mib=600) for n in range(8)]
        return any(job.result() for job in jobs)


def fallocate(point: Path) -> bool:
    """Allocate space without writing, in two large pieces."""
    for number in range(2):
        with (point / f"booked-{number}").open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, 6 * GIB)
            except OSError:
                return True
        Event().wait(10)
    return False


def snapshots(point: Path) -> bool:
    """Overwrite a file repeatedly while snapshots keep its old content."""
    volume = point / "volume"
    tool("btrfs", "subvolume", "create", str(volume))
    failed = False
    for number in range(8):
        failed |= _write(volume / "content", rate_mb=150, mib=500)
        tool("btrfs", "subvolume", "snapshot", "-r", str(volume), str(point / f"then-{number}"))
    return failed


def reflinks(point: Path) -> bool:
    """A hundred copies that share their content, and would not fit if they did not."""
    failed = _write(point / "original", rate_mb=150, mib=1000)
    for number in range(100):
        tool("cp", "--reflink=always", str(point / "original"), str(point / f"copy-{number}"))
    Event().wait(5)
    return failed


def compressed(point: Path) -> bool:
    """Write twice what fits, of zeroes that compress to nothing."""
    code = "import sys; f = open(sys.argv[1], 'wb')\nfor _ in range(24576): f.write(bytes(1 << 20))"
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
    """Run a scenario under the daemon with default settings, and measure its peak."""
    act, options = SCENARIOS[name]
    with bench_host(folder, SIZE_BYTES, options=options) as host:
        with (host.mountpoint / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, host.read().available_bytes - AVAILABLE_BYTES)
        ended, peak = Event(), [0]

        def watch() -> None:
            while not ended.wait(0.1):
                peak[0] = max(peak[0], host.read().used_bytes)

        with ours(host), ThreadPoolExecutor(1) as pool:
            first = host.read()
            watching = pool.submit(watch)
            try:
                failed = act(host.mountpoint)
            finally:
                ended.set()
            watching.result()
        least_bytes = first.available_bytes - (peak[0] - first.used_bytes)
        volumes = [device.size_bytes for device in host.read().devices[1:]]
        needed = _needed(least_bytes, first.size_bytes, volumes)
        return Outcome(name=name, growths=len(volumes), needed=needed, enospc=failed)


def _needed(available_bytes: int, size_bytes: int, volumes: Sequence[int]) -> int:
    """How many of the volumes were needed for the default thresholds, in hindsight."""
    threshold = GrowthPolicy().threshold
    for count, volume in enumerate((*volumes, 0)):
        share = size_bytes * threshold.available_percent / 100
        floor = max(share, threshold.available_min_of(size_bytes))
        if available_bytes >= floor:
            return count
        available_bytes += volume
        size_bytes += volume
    return len(volumes)


def _write(path: Path, *, rate_mb: int, mib: int) -> bool:
    ending = write(path, rate=rate_mb * 1e6, most_bytes=mib * MIB, fsync=False)
    return ending["errno"] != 0
