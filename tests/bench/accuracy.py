"""How far readings are from what can really be written."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.policy import wanted_reserve_bytes
from tests.bench.ground import GIB, MIB, mounted

SAMPLE_EVERY_SECONDS = 0.02

# The targets: a reading is never higher, or lower, than the truth by more than this.
OPTIMISTIC_MOST_BYTES = 16 * MIB
PESSIMISTIC_MOST_BYTES = 64 * MIB

# Sizes of the devices in bytes, and profiles of metadata.
MATRIX: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
    ((GIB,), ("dup", "single")),
    ((2 * GIB,), ("dup", "single")),
    ((GIB, GIB // 2), ("dup", "single", "raid1")),
    ((GIB, GIB // 2, 3 * GIB // 4), ("dup", "single", "raid1")),
    ((GIB // 2, GIB, GIB // 4, GIB // 2), ("single", "raid1")),
    ((GIB, GIB // 2, GIB // 4, GIB // 2, 3 * GIB // 4), ("dup", "single", "raid1")),
)

_WRITER = """
import os, sys, mmap
path, shared, sync = sys.argv[1:]
written = mmap.mmap(os.open(shared, os.O_RDWR), 16)
block = os.urandom(1 << 20)
fd = os.open(path, os.O_WRONLY | os.O_CREAT)
total = 0
while True:
    written[8:16] = (total + len(block)).to_bytes(8, "little")
    try:
        n = os.write(fd, block)
    except OSError:
        break
    total += n
    written[0:8] = total.to_bytes(8, "little")
    if sync == "fsync" and total % (16 << 20) == 0:
        os.fsync(fd)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The worst errors of the readings in one run, in bytes; positive when they are too high."""

    devices: int
    profile: str
    mode: str
    writable_bytes: int
    first_bytes: int
    most_bytes: int
    least_bytes: int
    samples: int

    @property
    def good(self) -> bool:
        """Whether all errors are within the targets."""
        most = max(self.first_bytes, self.most_bytes)
        least = min(self.first_bytes, self.least_bytes)
        return most <= OPTIMISTIC_MOST_BYTES and least >= -PESSIMISTIC_MOST_BYTES


def measure(
    folder: Path, sizes: tuple[int, ...], profile: str, mode: str, *, reserve: bool = True
) -> Accuracy:
    """Write at full speed until ENOSPC and compare each reading with what was written after it.

    The emergency reserve is held, as by the daemon.
    """
    with mounted(folder, sizes, mkfs=("-d", "single", "-m", profile)) as point:
        filesystem = BtrfsFilesystem(str(point), clock=SystemClock())
        if reserve:
            filesystem.keep_reserve(wanted_reserve_bytes(None, filesystem.read()))
        first = filesystem.read().available_bytes
        samples = list(_watched(filesystem, point / "content", folder / "written", mode))
        writable = samples[-1][1]
        errors_most, errors_least = [], []
        for begun, done, available in samples:
            # The current write may be counted or not: both are right.
            errors_most.append(available - (writable - done))
            errors_least.append(available - (writable - begun))
        return Accuracy(
            devices=len(sizes),
            profile=profile,
            mode=mode,
            writable_bytes=writable,
            first_bytes=first - writable,
            most_bytes=max(min(a, b) for a, b in zip(errors_most, errors_least, strict=True)),
            least_bytes=min(max(a, b) for a, b in zip(errors_most, errors_least, strict=True)),
            samples=len(samples),
        )


def _watched(
    filesystem: BtrfsFilesystem, content: Path, shared: Path, mode: str
) -> Iterator[tuple[int, int, int]]:
    shared.write_bytes(bytes(16))
    argv = [sys.executable, "-c", _WRITER, str(content), str(shared), mode]
    with subprocess.Popen(argv) as writer, shared.open("rb", buffering=0) as counter:
        while writer.poll() is None:
            before = os.pread(counter.fileno(), 16, 0)
            available = filesystem.read().available_bytes
            after = os.pread(counter.fileno(), 16, 0)
            yield (
                int.from_bytes(after[8:], "little"),
                int.from_bytes(before[:8], "little"),
                available,
            )
            Event().wait(SAMPLE_EVERY_SECONDS)
        total = int.from_bytes(os.pread(counter.fileno(), 16, 0)[:8], "little")
        yield total, total, filesystem.read().available_bytes


def table(found: list[Accuracy]) -> list[str]:
    """The result as lines, in MiB."""
    lines = [
        f"{'devices':>7} {'metadata':<9}{'mode':<10}{'writable':>9}{'at first':>9}{'errors':>16}"
    ]
    for each in found:
        errors = f"{each.least_bytes / MIB:+.1f} .. {each.most_bytes / MIB:+.1f}"
        verdict = "" if each.good else "  outside of +16/-64"
        lines.append(
            f"{each.devices:>7} {each.profile:<9}{each.mode:<10}{each.writable_bytes / MIB:>9.1f}"
            f"{each.first_bytes / MIB:>+9.1f}{errors:>16}{verdict}"
        )
    return lines


def run(folder: Path) -> list[Accuracy]:
    """Measure the whole matrix."""
    return [
        measure(folder, sizes, profile, mode)
        for sizes, profiles in MATRIX
        for profile in profiles
        for mode in ("buffered", "fsync")
    ]
