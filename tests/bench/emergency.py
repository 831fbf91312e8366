"""Adds while programs retry on ENOSPC, with the reserve and without: how many end read-only."""

import argparse
import errno
import mmap
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from statistics import median
from threading import Event
from time import monotonic

from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.devices.namespace import enter_private_namespace

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Unfit
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.host.paths import RUNTIME_DIRECTORY
from tests.bench.ground import store

MIB = 1024**2
KINDS = ("buffered", "direct", "metadata")
WRITERS = 4
# How many ENOSPC all writers together get before the add.
SPINS = 200
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """Whether the filesystem is writable after the add, or else recovers by unmount and mount."""

    survived: bool
    recovered: bool
    seconds: float


def main() -> int:
    """Print a line for each kind of writer; returns 1 when an add with the reserve failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.emergency", description=__doc__)
    parser.add_argument("--adds", type=int, default=300, help="for each of with and without")
    parser.add_argument("--reserve", type=int, default=256, help="MiB")
    parser.add_argument("--size", type=int, default=3072, help="MiB of the full filesystem")
    parser.add_argument("--only", choices=("with", "without"))
    arguments = parser.parse_args()
    enter_private_namespace(folders=[RUNTIME_DIRECTORY])
    say = partial(print, flush=True)
    say(
        f"{'reserve':<10}{'writers':<11}{'adds':>5}{'read-only':>11}{'recovered':>11}"
        f"{'add, median':>13}{'max':>8}"
    )
    broken = 0
    for reserve_mib in {"with": (arguments.reserve,), "without": (0,)}.get(
        arguments.only or "", (0, arguments.reserve)
    ):
        ends: dict[str, list[Emergency]] = {kind: [] for kind in KINDS}
        for number in range(arguments.adds):
            kind = KINDS[number % len(KINDS)]
            ends[kind].append(emergency(kind, reserve_mib * MIB, arguments.size * MIB))
        for kind in KINDS:
            forced = [end for end in ends[kind] if not end.survived]
            seconds = [end.seconds for end in ends[kind]]
            say(
                f"{reserve_mib or 'none':<10}{kind:<11}{len(seconds):>5}{len(forced):>11}"
                f"{sum(end.recovered for end in forced):>11}"
                f"{median(seconds):>11.3f} s{max(seconds):>6.2f} s"
            )
            broken += len(forced) if reserve_mib else 0
    return 1 if broken else 0


def emergency(kind: str, reserve_bytes: int, size_bytes: int) -> Emergency:
    """One add to a full filesystem under writers that retry on ENOSPC."""
    with ExitStack() as stack:
        old = stack.enter_context(
            LoopDevice.create(size_bytes, directory=store(Path(tempfile.gettempdir())))
        )
        new = stack.enter_context(
            LoopDevice.create(size_bytes, directory=store(Path(tempfile.gettempdir())))
        )
        path = stack.enter_context(_mounted(old))
        filesystem = BtrfsFilesystem(str(path), clock=SystemClock())
        filesystem.keep_reserve(reserve_bytes)
        _fill(path, kind)
        verified = partial(BlockDevices().verified_blank, new.name, size_bytes=new.size_bytes)
        spins: Synchronized[int] = multiprocessing.Value("q", 0)
        with _writers(path, kind, spins):
            began = monotonic()
            pause = Event()
            while spins.value < SPINS and monotonic() - began < PATIENCE_SECONDS:
                pause.wait(0.01)
            began, told = monotonic(), ""
            try:
                filesystem.add_device(new.name, verified=verified)
                survived = len(filesystem.read().devices) == 2
            except Unfit as error:
                survived, told = error.cause is not Cause.READ_ONLY, error.hint
            seconds = monotonic() - began
        recovered = survived or (new.node in told and _recovers(filesystem, old, new))
        return Emergency(survived=survived, recovered=recovered, seconds=seconds)


def _recovers(filesystem: BtrfsFilesystem, old: LoopDevice, new: LoopDevice) -> bool:
    """Whether the hint of the error works: mount without the new device, then add it again."""
    run(["umount", filesystem.mountpoint], timeout_seconds=60)
    try:
        run(["btrfs", "device", "scan", "--forget", new.node], timeout_seconds=60)
        run(["mount", old.node, filesystem.mountpoint], timeout_seconds=60)
        alone = len(filesystem.read().devices) == 1
        verified = partial(BlockDevices().verified_blank, new.name, size_bytes=new.size_bytes)
        filesystem.add_device(new.name, verified=verified)
        return alone and len(filesystem.read().devices) == 2
    except EbsAutoscaleError as error:
        sys.stderr.write(f"not recovered: {error}\n")
        return False


@contextmanager
def _mounted(device: LoopDevice) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="emergency-"))
    run(["mkfs.btrfs", "--quiet", "-m", "dup", device.node], timeout_seconds=60)
    run(["mount", device.node, str(path)], timeout_seconds=60)
    try:
        yield path
    finally:
        run(["umount", str(path)], timeout_seconds=60)
        path.rmdir()


def _fill(path: Path, kind: str) -> None:
    """Allocate everything to data; for writers of metadata fill only half of that."""
    if kind == "metadata":
        for number in range(WRITERS):
            (path / f"w{number}").mkdir()
    with (path / "ballast").open("wb") as file, suppress(OSError):
        for offset in range(0, 1 << 40, 4 * MIB):
            os.posix_fallocate(file.fileno(), offset, 4 * MIB)
    if kind == "metadata":
        with (path / "ballast").open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) // 2)
            fill_metadata(path / "ballast")
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)


def fill_metadata(file: Path) -> None:
    """Fill metadata by extended attributes."""
    with suppress(OSError):
        for number in range(1 << 20):
            os.setxattr(file, f"user.{number}", os.urandom(12 * 1024))


@contextmanager
def _writers(path: Path, kind: str, spins: "Synchronized[int]") -> Iterator[None]:
    write = {"buffered": _write_data, "direct": _write_data, "metadata": _write_metadata}[kind]
    flags = os.O_DIRECT if kind == "direct" else 0
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write, args=(path / f"w{number}", flags, spins), daemon=True)
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        for writer in writers:
            writer.kill()
            writer.join()


def _write_data(path: Path, flags: int, spins: "Synchronized[int]") -> None:
    content = mmap.mmap(-1, 64 * 1024)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    offset = 0
    while True:
        try:
            offset += os.pwrite(fd, content, offset)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                return
            spins.value += 1


def _write_metadata(folder: Path, _: int, spins: "Synchronized[int]") -> None:
    number = 0
    while True:
        number += 1
        try:
            (folder / str(number)).write_bytes(bytes(1800))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                return
            spins.value += 1


if __name__ == "__main__":
    sys.exit(main())
