"""What the daemon costs, with references measured in the same run."""

import os
import socket
import subprocess
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event
from time import monotonic
from urllib.request import urlopen

import psutil

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.monitor import Monitor
from ebs_autoscale.policy import Forecast, GrowthPolicy
from ebs_autoscale.telemetry import Event as Told
from ebs_autoscale.telemetry import EventKind
from tests.bench.ground import GIB, mounted
from tests.bench.guards import bench_host, ours
from tests.system.bench import Host

IDLE_SECONDS = 30.0
SCRAPES = 4
ROOMY = {"threshold": {"available": "5%", "available_min": "1MiB"}, "poll": {"max": "5s"}}


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number with its unit and a reference."""

    what: str
    value: float
    unit: str
    beside: str = ""

    @property
    def told(self) -> str:
        """As one line."""
        return f"{self.what:<44}{self.value:>10.1f} {self.unit:<6}{self.beside}"


class NoGrowths:
    """Growths that never run, so that only the loop is measured."""

    running = False
    step = stuck = None

    def start(self, forecast: Forecast) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def events(self) -> list[Told]:
        """No events."""
        return []

    close = events


def measure(folder: Path) -> list[Figure]:
    """All figures, in the order in which they are printed."""
    return [*_reading(folder), *_idle(folder), *_reaction(folder)]


def _reading(folder: Path) -> list[Figure]:
    figures = []
    for count in (1, 5):
        with mounted(folder, [GIB] * count) as point:
            filesystem = BtrfsFilesystem(str(point), clock=SystemClock())
            read = _microseconds(filesystem.read, number=500)
            statvfs = _microseconds(partial(os.statvfs, point), number=5000)
            argv = ["btrfs", "filesystem", "usage", "-b", str(point)]
            usage = _microseconds(
                partial(subprocess.run, argv, check=True, capture_output=True), number=20
            )
            beside = (
                f"statvfs {statvfs:.1f} us, `btrfs filesystem usage` {usage / read:.0f}x as much"
            )
            figures.append(Figure(f"a reading with {count} devices", read, "us", beside))
            if count == 1:
                figures.append(_tick(filesystem, read))
    return figures


def _tick(filesystem: BtrfsFilesystem, read: float) -> Figure:
    def silent(_: object) -> None:
        pass

    monitor = Monitor(
        filesystem=filesystem,
        growths=NoGrowths(),
        policy=GrowthPolicy(),
        clock=SystemClock(),
        emit=silent,
        publish=silent,
    )
    tick = _microseconds(monitor.tick, number=500)
    return Figure("a tick of the loop", tick, "us", f"{tick / read:.1f} readings")


def _microseconds(call: Callable[[], object], *, number: int) -> float:
    # The minimum, as timeit advises: other processes take the rest.
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e6


def _idle(folder: Path) -> list[Figure]:
    """The idle daemon on a small and on a large filesystem, for half a minute each.

    Then with metrics in a file and over HTTP, collected twice as often as Prometheus does.
    """
    port = _free_port()
    metrics = {"listen": f"127.0.0.1:{port}", "textfile": str(folder / "metrics.prom")}
    figures = []
    for size_gib, more in ((10, {}), (200, {}), (200, {"metrics": metrics})):
        with (
            bench_host(folder, size_gib * GIB, config={**ROOMY, **more}) as host,
            ours(host) as daemon,
        ):
            process = psutil.Process(daemon.process.pid)
            calls, before = len(host.sandbox.calls()), _spent(process)
            for _ in range(SCRAPES):
                Event().wait(IDLE_SECONDS / SCRAPES)
                if more:
                    urlopen(f"http://127.0.0.1:{port}/metrics").read()
            cpu, switches = (
                (after - was) * 3600 / IDLE_SECONDS
                for after, was in zip(_spent(process), before, strict=True)
            )
            what = f"idle on {size_gib} GiB{' with metrics' if more else ''}:"
            resident = process.memory_info().rss / 1024**2
            asked = len(host.sandbox.calls()) - calls
            figures += [
                Figure(f"{what} wake-ups an hour", switches, ""),
                Figure(f"{what} CPU an hour", cpu, "s", f"{cpu / 36:.3f} % of one"),
                Figure(f"{what} resident memory", resident, "MiB"),
                Figure(f"{what} EC2 calls", asked, ""),
            ]
    return figures


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _spent(process: psutil.Process) -> tuple[float, float]:
    times = process.cpu_times()
    # psutil counts the switches of the main thread only.
    threads = [f"/proc/{process.pid}/task/{each.id}/status" for each in process.threads()]
    switches = sum(
        int(line.split()[1])
        for path in threads
        for line in Path(path).read_text("utf-8").splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
    return times.user + times.system, switches


def _reaction(folder: Path) -> list[Figure]:
    """The time from a shortage to CreateVolume, and the EC2 calls of a growth."""
    waits, calls = [], 0
    for _ in range(3):
        with bench_host(folder, 10 * GIB, config=ROOMY) as host, ours(host) as daemon:
            before = len(host.sandbox.calls())
            host.fill(3)
            waits.append(_seconds_until_create(host))
            daemon.wait_event(EventKind.GROWTH_DONE)
            calls = len(host.sandbox.calls()) - before
    argv = [sys.executable, "-I", "-c", "import boto3"]
    started = _microseconds(partial(subprocess.run, argv, check=True), number=1)
    beside = f"python with boto3 starts in {started / 1e6:.2f} s"
    return [
        Figure("from short space to CreateVolume", median(waits), "s", beside),
        Figure("EC2 calls of a growth", calls, ""),
    ]


def _seconds_until_create(host: Host) -> float:
    began, pause = monotonic(), Event()
    while not host.sandbox.calls("CreateVolume"):
        pause.wait(0.01)
    return monotonic() - began
