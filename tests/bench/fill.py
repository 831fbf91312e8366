"""The highest rate of writing without ENOSPC, ours and that of a reference."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event
from time import monotonic

from ebs_autoscale.model import FilesystemKind
from tests.bench.ground import GIB
from tests.bench.guards import NICE, bench_host, ours, reference
from tests.system.bench import Host

# Small, so that its limit of 0.3 GB/s can be written with two CPUs.
SIZE_BYTES = {
    FilesystemKind.BTRFS: 3 * GIB // 2,
    FilesystemKind.XFS: GIB,
    FilesystemKind.EXT4: GIB,
}
STEP = "4GiB"
# Where growths are timed: large enough for a writer to continue meanwhile.
ROOMY_BYTES = 16 * GIB
BESIDE_BYTES_PER_SECOND = 250e6
# More than what was writable at the start, so that a growth is needed.
WRITTEN_SHARE = 1.1
# `df` changes with each committed transaction, so a single success may be luck.
ATTEMPTS = 2
# Where the rate of each is searched, in shares of the limit.
RANGES = {"ours": (0.8, 1.05), "reference": (1 / 48, 1 / 6), "quick df": (1 / 24, 1 / 2)}
GUARDS: dict[str, Callable[[Host], AbstractContextManager[object]]] = {
    "ours": ours,
    "reference": lambda host: reference(host, STEP),
    "quick df": lambda host: reference(host, STEP, quick=True),
}
TRACE_EVERY_SECONDS = 0.05
MODES = ("buffered", "fsync")
TARGET_SHARE = 0.85
TARGET_RATIO = 4.0
# The defaults, for a filesystem a hundredth of what they are made for.
CONFIG = {
    "threshold": {"available": "20%", "available_min": "64MiB", "lead_time": "auto"},
    "growth": {"size": STEP, "min": "1GiB", "max": "64GiB"},
    "poll": {"max": "5s"},
}

Guard = Callable[[Host], AbstractContextManager[object]]
Make = Callable[[int], AbstractContextManager[Host]]
"""A host whose filesystem has this size in bytes."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """Available bytes at one moment of a trial, by our reading and by `df`."""

    seconds: float
    available_bytes: int
    statvfs_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One writer with one guard; `rate` is the rate that it reached, in bytes per second."""

    asked: float
    rate: float
    survived: bool
    growths: int
    trace: tuple[Sample, ...]

    @property
    def told(self) -> str:
        """As a sentence."""
        verdict = f"survived with {self.growths} growths" if self.survived else "ENOSPC"
        asked, wrote = f"{self.asked / 1e6:6.1f}", f"{self.rate / 1e6:6.1f}"
        return f"{asked} MB/s asked, {wrote} written: {verdict}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The highest rate with a guard, in bytes per second, and all its trials."""

    guard: str
    mode: str
    rate: float
    trials: list[Trial] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The physical limit: bytes writable at the start divided by the time that a growth takes.

    A growth takes longer under a writer, which uses the same two CPUs: that time counts.
    """

    writable_bytes: int
    resting_seconds: float
    growth_seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.writable_bytes / self.growth_seconds

    @property
    def told(self) -> str:
        """As a sentence."""
        return (
            f"{self.writable_bytes / 1e6:.0f} MB writable; a growth takes"
            f" {self.resting_seconds:.2f} s at rest, {self.growth_seconds:.2f} s beside a writer:"
            f" the limit is {self.rate / 1e6:.0f} MB/s"
            f" (at rest {self.writable_bytes / self.resting_seconds / 1e6:.0f})"
        )


def host_maker(folder: Path, kind: FilesystemKind = FilesystemKind.BTRFS) -> Make:
    """Hosts with this kind of filesystem."""
    return partial(bench_host, folder, config=CONFIG, kind=kind)


def measure_limit(make: Make, size_bytes: int) -> Limit:
    """Time growths until the space is usable, at rest and under a writer."""
    with make(size_bytes) as host:
        writable = host.read().available_bytes
    with make(ROOMY_BYTES) as host:
        resting = _growth_seconds(host)
        argv = [sys.executable, "-m", "tests.bench.writer", str(host.mountpoint / "content")]
        argv += [str(BESIDE_BYTES_PER_SECOND), str(ROOMY_BYTES), "fsync"]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as writer:
            beside = _growth_seconds(host)
            writer.kill()
    return Limit(writable_bytes=writable, resting_seconds=resting, growth_seconds=beside)


def _growth_seconds(host: Host, *, repeats: int = 3) -> float:
    took = []
    for _ in range(repeats):
        size_bytes, began = host.read().size_bytes, monotonic()
        argv = ["nice", "-n", str(NICE), *host.argv, "grow", "--size", STEP]
        with subprocess.Popen(argv, env=host.environment, stderr=subprocess.DEVNULL) as growth:
            while host.read().size_bytes == size_bytes and growth.poll() is None:
                Event().wait(0.01)
            took.append(monotonic() - began)
        if host.read().size_bytes == size_bytes:
            raise AssertionError("a growth added nothing: run it by hand to see why")
    return median(took)


def attempt(make: Make, guard: Guard, *, size_bytes: int, rate: float, mode: str) -> Trial:
    """Write at this rate, more than the filesystem can take without a growth."""
    with make(size_bytes) as host:
        most_bytes = int(host.read().available_bytes * WRITTEN_SHARE)
        argv = [sys.executable, "-m", "tests.bench.writer", str(host.mountpoint / "content")]
        argv += [str(rate), str(most_bytes), mode]
        with guard(host):
            began, trace = monotonic(), []
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
                while writer.poll() is None:
                    seen = host.read()
                    trace.append(
                        Sample(
                            monotonic() - began, seen.available_bytes, seen.statvfs_available_bytes
                        )
                    )
                    Event().wait(TRACE_EVERY_SECONDS)
                ending = json.loads(writer.communicate()[0])
            growths = host.devices - 1 + sum(each.modifications for each in host.volumes())
    return Trial(
        asked=rate,
        rate=ending["written"] / ending["seconds"],
        survived=ending["errno"] == 0,
        growths=growths,
        trace=tuple(trace),
    )


def search(
    attempt_at: Callable[..., Trial], name: str, mode: str, *, limit: Limit, trials: int, say: Say
) -> Found:
    """Bisect, in equal ratios, for the highest share of the limit that ends without ENOSPC."""
    guard = GUARDS[name]
    low, high = RANGES[name]
    made: list[Trial] = []
    best = 0.0
    for _ in range(trials):
        share = (low * high) ** 0.5
        these: list[Trial] = []
        while len(these) < ATTEMPTS and all(trial.survived for trial in these):
            these.append(attempt_at(guard, rate=share * limit.rate, mode=mode))
            say(f"  {name:<10}{mode:<10}{these[-1].told}")
        made += these
        if all(trial.survived for trial in these):
            low = share
            best = max(best, min(trial.rate for trial in these))
        else:
            high = share
    return Found(guard=name, mode=mode, rate=best, trials=made)


def run(
    make: Make,
    say: Say,
    *,
    size_bytes: int,
    trials: int = 3,
    guards: Sequence[str] = ("ours", "reference"),
) -> tuple[Limit, list[Found]]:
    """Measure everything, telling the progress."""
    limit = measure_limit(make, size_bytes)
    say(limit.told)
    attempt_at = partial(attempt, make, size_bytes=size_bytes)

    def of(name: str, mode: str) -> Found:
        return search(attempt_at, name, mode, limit=limit, trials=trials, say=say)

    found = [of("ours", mode) for mode in MODES]
    # Such slow writers can run in parallel.
    others = [(name, mode) for name in guards if name != "ours" for mode in MODES]
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        found += pool.map(of, *zip(*others, strict=True)) if others else []
    return limit, found


def broken(limit: Limit, found: list[Found]) -> list[str]:
    """Which targets were missed: 85 % of the limit, four times the reference if there is one."""
    of = {(each.guard, each.mode): each.rate for each in found}
    wrong = []
    for mode in MODES:
        mine, theirs = of["ours", mode], of.get(("reference", mode), 0.0)
        if mine < TARGET_SHARE * limit.rate:
            wrong.append(f"{mode}: {mine / limit.rate:.0%} of the limit, not {TARGET_SHARE:.0%}")
        if mine < TARGET_RATIO * theirs:
            wrong.append(f"{mode}: only {mine / theirs:.1f} times the reference")
    return wrong


def table(limit: Limit, found: list[Found]) -> list[str]:
    """The result as lines."""
    lines = [f"{'guard':<12}{'mode':<12}{'survived':>12}{'of the limit':>14}{'of reference':>14}"]
    of = {(each.guard, each.mode): each.rate for each in found}
    for each in found:
        reference = of.get(("reference", each.mode))
        ratio = f"{each.rate / reference:.1f}x" if reference else "-"
        lines.append(
            f"{each.guard:<12}{each.mode:<12}{each.rate / 1e6:>7.0f} MB/s"
            f"{each.rate / limit.rate:>13.0%}{ratio:>14}"
        )
    return lines
