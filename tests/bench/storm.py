"""Many small and inline files, with default settings: whether metadata runs out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from ebs_autoscale.model import DecisionKind
from ebs_autoscale.telemetry import EventKind
from tests.bench.ground import GIB, MIB
from tests.bench.guards import bench_host, ours, reference
from tests.system.bench import Host, events_in

SIZE_BYTES = 40 * GIB
# Enough by `df` and by our defaults, unlike the space that is left for metadata.
AVAILABLE_BYTES = 30 * GIB
# Half of it can become metadata (dup): enough for our defaults, not for these files.
UNALLOCATED_BYTES = 3 * GIB
FILES = 1_000_000
KEPT_BYTES = 64 * MIB
INLINE_BYTES = 2000
STEP = "20GiB"

_STORM = """
import json, os, sys
folder, first, count, size = sys.argv[1], *map(int, sys.argv[2:])
content, made, number = os.urandom(size), 0, 0
try:
    for i in range(first, first + count):
        if i % 5000 == 0 or not made:
            inside = f"{folder}/{first}-{i // 5000}"
            os.makedirs(inside, exist_ok=True)
        with open(f"{inside}/{i}", "wb") as file:
            file.write(content[: size if i % 4 else 1])
        made += 1
except OSError as error:
    number = error.errno
print(json.dumps({"made": made, "errno": number}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """How the storm ended with this guard; `reasons` are those of the growths."""

    guard: str
    files: int
    seconds: float
    survived: bool
    growths: int
    statvfs_bytes: int
    reasons: tuple[str, ...]


def storm(folder: Path, guard: str, *, files: int = FILES) -> Storm:
    """Create files of 1 and of 2000 bytes where only metadata has little room."""
    watch: Callable[[Host], AbstractContextManager[object]] = (
        ours if guard == "ours" else lambda host: reference(host, STEP)
    )
    with bench_host(folder, SIZE_BYTES) as host:
        _leave_few_chunks_unallocated(host)
        began = monotonic()
        with watch(host) as daemon:
            endings = _blow(host, files)
            log = getattr(daemon, "log", "")
        seen = os.statvfs(host.mountpoint)
        return Storm(
            guard=guard,
            files=sum(ending["made"] for ending in endings),
            seconds=monotonic() - began,
            survived=not any(ending["errno"] for ending in endings),
            growths=host.devices - 1,
            statvfs_bytes=seen.f_bavail * seen.f_frsize,
            reasons=tuple(
                event["message"]
                for event in events_in(log)
                if event["event"] == EventKind.DECIDED and event["decision"] == DecisionKind.GROW
            ),
        )


def _blow(host: Host, files: int) -> list[dict[str, int]]:
    each = files // 2
    argv = [sys.executable, "-c", _STORM, str(host.mountpoint)]
    storms = [
        subprocess.Popen(
            [*argv, str(i * each), str(each), str(INLINE_BYTES)], stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    return [json.loads(storm.communicate()[0]) for storm in storms]


def _leave_few_chunks_unallocated(host: Host) -> None:
    """Allocate nearly everything to data chunks, then free most of the space in them."""
    ballast = host.mountpoint / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, host.read().available_bytes - UNALLOCATED_BYTES)
    subprocess.run(["btrfs", "filesystem", "sync", str(host.mountpoint)], check=True)
    # A part of each chunk stays in use, since the kernel releases empty chunks.
    for start in range(0, AVAILABLE_BYTES, GIB):
        hole = ["--offset", str(start), "--length", str(GIB - KEPT_BYTES)]
        subprocess.run(["fallocate", "--punch-hole", *hole, str(ballast)], check=True)
    subprocess.run(["btrfs", "filesystem", "sync", str(host.mountpoint)], check=True)


def table(storms: list[Storm]) -> list[str]:
    """The result as lines."""
    lines = [f"{'guard':<12}{'files':>10}{'seconds':>9}{'growths':>9}  {'df says':>9}  ending"]
    for each in storms:
        df = f"{each.statvfs_bytes / GIB:.1f} GiB"
        ending = "no ENOSPC" if each.survived else "ENOSPC"
        lines.append(
            f"{each.guard:<12}{each.files:>10}{each.seconds:>9.0f}{each.growths:>9}"
            f"  {df:>9}  {ending}"
        )
        lines += [f"    {line}" for line in each.reasons]
    return lines
