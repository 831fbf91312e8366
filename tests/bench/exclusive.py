"""An add during each exclusive operation: how long it takes, and how the operation ends."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic

from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.devices.namespace import enter_private_namespace

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import CommandFailed, EbsAutoscaleError
from ebs_autoscale.host.command import run
from ebs_autoscale.host.paths import RUNTIME_DIRECTORY
from ebs_autoscale.model import Rebalance
from tests.bench.ground import store

MIB = 1024**2
GIB = 1024**3
CONTENT_MIB = 1200
# Slow enough for the add to come while the operation is running.
BYTES_PER_SECOND = 100 * MIB
# The root of cgroup v1; without it the devices are as fast as memory.
THROTTLES = Path("/sys/fs/cgroup/blkio")
BEGINS_WITHIN_SECONDS = 10.0
ENDS_WITHIN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: its command line, and what sysfs says while it runs."""

    argv: tuple[str, ...]
    published: str


# MOUNTPOINT and SPARE stand for the filesystem and an unused device.
OPERATIONS = {
    "nothing": Operation((), "none"),
    "balance": Operation(("balance", "start", "-d", "MOUNTPOINT"), "balance"),
    "balance, paused by its owner": Operation(
        ("balance", "start", "-d", "MOUNTPOINT"), "balance paused"
    ),
    "scrub": Operation(("scrub", "start", "-B", "MOUNTPOINT"), "none"),
    "snapshot deletion": Operation(("subvolume", "delete", "MOUNTPOINT/snapshot"), "none"),
    "device remove": Operation(("device", "remove", "1", "MOUNTPOINT"), "device remove"),
    "device replace": Operation(
        ("replace", "start", "-B", "1", "SPARE", "MOUNTPOINT"), "device replace"
    ),
    "resize": Operation(("filesystem", "resize", "1:1G", "MOUNTPOINT"), "resize"),
}


def main() -> int:
    """Print a line for each operation; returns 1 when an add waited for a balance."""
    enter_private_namespace(folders=[RUNTIME_DIRECTORY])
    say = partial(print, flush=True)
    say("| running | usable after | how the operation ended |")
    say("| --- | --- | --- |")
    waited = False
    for name, operation in OPERATIONS.items():
        seconds, fate = _grow_during(operation)
        waited |= name.startswith("balance") and seconds > 30
        say(f"| {name} | {seconds:.2f} s | {fate} |")
    seconds, fate = _grow_during_ours()
    say(f"| our own `full` balance | {seconds:.2f} s | {fate} |")
    return int(waited)


def _grow_during(operation: Operation) -> tuple[float, str]:
    with _ground() as (filesystem, make):
        spare, new = make(3 * GIB), make(2 * GIB)
        names = {"MOUNTPOINT": filesystem.mountpoint, "SPARE": spare.node}
        argv = [_named(word, names) for word in operation.argv]
        process = subprocess.Popen(
            ["btrfs", *argv] if argv else ["true"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        _await(filesystem, operation.published.split()[0], process)
        if operation.published == "balance paused":
            run(["btrfs", "balance", "pause", filesystem.mountpoint], timeout_seconds=120)
        began = monotonic()
        while True:
            with suppress(EbsAutoscaleError):
                filesystem.add_device(new.name, verified=nullcontext)
                break
        seconds = monotonic() - began
        fate = _fate(filesystem, operation, process, new.name)
        return seconds, fate if argv else ""


def _fate(
    filesystem: BtrfsFilesystem,
    operation: Operation,
    process: "subprocess.Popen[str]",
    newest: str,
) -> str:
    now = filesystem.exclusive_operation()
    if filesystem.needs_balance(Rebalance.OFF, newest):
        told: list[str] = []
        filesystem.balance_metadata(Rebalance.OFF, tell=told.append)
        process.wait()
        return f"paused by us; {told[-1]}"
    running = process.poll() is None
    with suppress(CommandFailed):
        if operation.published == "balance paused":
            run(["btrfs", "balance", "cancel", filesystem.mountpoint], timeout_seconds=120)
    output, _ = process.communicate(timeout=ENDS_WITHIN_SECONDS)
    word = (output.strip().splitlines() or ["no output"])[-1]
    when = "continued" if running else "ended before the add"
    when = "stayed paused" if now == "balance paused" else when
    return f"{when}; exit status {process.returncode}: {word}"


def _grow_during_ours() -> tuple[float, str]:
    """The loop stops our balance, then the next growth adds its device."""
    with _ground() as (filesystem, make):
        folder = Path(filesystem.mountpoint, "metadata")
        folder.mkdir()
        for number in range(16_000):
            (folder / str(number)).touch()
            os.setxattr(folder / str(number), "user.fill", os.urandom(12 * 1024))
        run(["btrfs", "filesystem", "sync", filesystem.mountpoint], timeout_seconds=120)
        new = make(2 * GIB)
        asked: list[float] = []

        def stopping() -> bool:
            if filesystem.exclusive_operation() == "balance":
                asked.append(monotonic())
            return bool(asked)

        fate = "had ended before"
        try:
            filesystem.balance_metadata(Rebalance.FULL, stopping=stopping)
        except Exception as stopped:  # noqa: BLE001 -- Stopped is not an error of ours
            fate = f"cancelled: {stopped}"
        filesystem.add_device(new.name, verified=nullcontext)
        seconds = monotonic() - asked[0] if asked else 0.0
        again = filesystem.needs_balance(Rebalance.FULL, new.name)
        return seconds, f"{fate}; needed again: {'yes' if again else 'no'}"


@contextmanager
def _ground() -> Iterator[tuple[BtrfsFilesystem, Callable[[int], LoopDevice]]]:
    """A filesystem of two slow devices with content and a snapshot, and a factory for devices."""
    path = Path(tempfile.mkdtemp(prefix="exclusive-"))
    with ExitStack() as stack:

        def make(size_bytes: int) -> LoopDevice:
            device = LoopDevice.create(size_bytes, directory=store(Path(tempfile.gettempdir())))
            stack.enter_context(device)
            stack.enter_context(_slow(device))
            return device

        nodes = [make(3 * GIB).node, make(3 * GIB).node]
        run(["mkfs.btrfs", "--quiet", "-d", "single", "-m", "dup", *nodes], timeout_seconds=60)
        run(["mount", nodes[0], str(path)], timeout_seconds=60)
        try:
            with (path / "content").open("wb") as file:
                for _ in range(CONTENT_MIB):
                    file.write(os.urandom(MIB))
            snapshot = ["btrfs", "subvolume", "snapshot", str(path), str(path / "snapshot")]
            run(snapshot, timeout_seconds=120)
            run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=120)
            yield BtrfsFilesystem(str(path), clock=SystemClock()), make
        finally:
            run(["umount", str(path)], timeout_seconds=300)
            path.rmdir()


@contextmanager
def _slow(device: LoopDevice) -> Iterator[None]:
    number = Path(f"/sys/block/{device.name}/dev").read_text("ascii").strip()
    files = [THROTTLES / f"blkio.throttle.{way}_bps_device" for way in ("read", "write")]
    _write(files, f"{number} {BYTES_PER_SECOND}")
    try:
        yield
    finally:
        _write(files, f"{number} 0")


def _write(files: list[Path], rule: str) -> None:
    for file in files:
        with suppress(OSError):
            file.write_text(rule, "ascii")


def _await(filesystem: BtrfsFilesystem, published: str, process: "subprocess.Popen[str]") -> None:
    deadline = monotonic() + BEGINS_WITHIN_SECONDS
    pause = Event()
    while published != "none" and process.poll() is None and monotonic() < deadline:
        if filesystem.exclusive_operation().startswith(published):
            return
        pause.wait(0.01)


def _named(word: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        word = word.replace(name, value)
    return word


if __name__ == "__main__":
    sys.exit(main())
