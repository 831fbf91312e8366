"""kill -9 at random moments of an add, a balance and the reserve, under writers."""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

import psutil
from ebs_autoscale_demo.filesystem import scrub
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.devices.namespace import enter_private_namespace

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import CommandFailed, EbsAutoscaleError
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.host.paths import RUNTIME_DIRECTORY
from ebs_autoscale.model import Rebalance
from tests.bench.ground import store

MIB = 1024**2
BASE_BYTES = 768 * MIB
DEVICE_BYTES = 384 * MIB
# Little metadata: a full balance that is killed while it merges much of it may force the filesystem
# read-only (merge_reloc_roots, EINTR, seen on 6.18), whatever has started it.
RESERVE_BYTES = 16 * MIB
KILLS_PER_FILESYSTEM = 10
RECOVERY_SECONDS = 120.0
TOO_LATE = "nothing, too late"
PROFILES = ("dup", "single", "raid1")

# What a growth does to the filesystem, printing each step so that a kill can be aimed.
GROWTH = """
import sys
from functools import partial
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.model import Rebalance
path, name, size, reserve = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
filesystem = BtrfsFilesystem(path, clock=SystemClock())
print("add", flush=True)
filesystem.add_device(name, verified=partial(BlockDevices().verified_blank, name, size_bytes=size))
print("balance", flush=True)
filesystem.balance_metadata(Rebalance.FULL)
print("reserve", flush=True)
filesystem.keep_reserve(0)
filesystem.keep_reserve(reserve)
print("done", flush=True)
"""


@dataclass(slots=True)
class Tally:
    """What was killed, and what was wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    filesystems: int = 0
    files: int = 0
    wrongs: list[str] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many growths were killed before they had finished."""
        return self.kills.total() - self.kills[TOO_LATE]


class Writer:
    """Writes files in a thread and remembers their checksums."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[Path, str] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write as long as this is entered."""
        over = threading.Event()
        thread = threading.Thread(target=self._write, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _write(self, over: threading.Event) -> None:
        while not over.wait(0.01):
            content = os.urandom(64 * 1024) * random.randint(1, 8)  # noqa: S311 -- not a secret
            path = self._folder / f"file-{len(self._digests)}"
            with suppress(OSError), path.open("wb") as file:
                file.write(content)
                os.fsync(file.fileno())
                self._digests[path] = hashlib.sha256(content).hexdigest()

    @property
    def files(self) -> int:
        """How many files were written completely."""
        return len(self._digests)

    def wrong(self) -> list[str]:
        """Files whose content is not what was written."""
        return [path.name for path, digest in self._digests.items() if _digest(path) != digest]


def campaign(kills: int, seed: int, say: Callable[[str], None] = print) -> Tally:
    """Kill this many growths and verify each filesystem; what was wrong is in the tally.

    A growth that has finished before its kill does not count.
    """
    dice, tally = random.Random(seed), Tally()  # noqa: S311 -- repeatable
    while tally.killed < kills and not tally.wrongs:
        profile = PROFILES[tally.filesystems % len(PROFILES)]
        rounds = min(KILLS_PER_FILESYSTEM, kills - tally.killed)
        _one_filesystem(profile, rounds, dice, tally)
        tally.filesystems += 1
        say(f"{tally.killed} kills, {tally.filesystems} filesystems, {tally.files} files")
    return tally


def _one_filesystem(profile: str, rounds: int, dice: random.Random, tally: Tally) -> None:
    with ExitStack() as stack:
        path = Path(tempfile.mkdtemp(prefix="kills-"))
        stack.callback(path.rmdir)
        make = partial(_make, stack)
        base = [make(BASE_BYTES) for _ in range(2 if profile == "raid1" else 1)]
        nodes = [device.node for device in base]
        run(["mkfs.btrfs", "--quiet", "-d", "single", "-m", profile, *nodes], timeout_seconds=60)
        run(["mount", nodes[0], str(path)], timeout_seconds=60)
        unmount = stack.enter_context(_unmounting(path))
        filesystem = BtrfsFilesystem(str(path), clock=SystemClock())
        writer = Writer(path)
        with writer.running():
            for _ in range(rounds):
                device = make(DEVICE_BYTES)
                tally.kills[_killed_growth(path, device, dice)] += 1
                if wrong := _recover(filesystem, device):
                    tally.wrongs.append(wrong)
                    break
        run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
        tally.files += writer.files
        tally.wrongs += [f"wrong bytes in {name}" for name in writer.wrong()]
        scrubbed = scrub(path, [device.devid for device in filesystem.read().devices])
        if scrubbed.errors:
            tally.wrongs.append(f"the scrub found {scrubbed.errors} errors")
        unmount()
        try:
            run(["btrfs", "check", "--readonly", nodes[0]], timeout_seconds=300)
        except CommandFailed as error:
            tally.wrongs.append(str(error))


def _killed_growth(path: Path, device: LoopDevice, dice: random.Random) -> str:
    """Start a growth and kill it; returns the step it was in."""
    argv = [str(path), device.name, str(device.size_bytes), str(RESERVE_BYTES)]
    growth = subprocess.Popen(
        [sys.executable, "-c", GROWTH, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="ascii",
    )
    step, aim = "start", dice.choice(("add", "add", "balance", "balance", "reserve"))
    assert growth.stdout
    while step != aim and (line := growth.stdout.readline()):
        step = line.strip()
    with suppress(subprocess.TimeoutExpired):
        growth.wait(dice.uniform(0, {"add": 0.08, "balance": 0.06, "reserve": 0.03}[aim]))
    tools = psutil.Process(growth.pid).children() if growth.poll() is None else []
    growth.kill()
    with_tool = "alone"
    if tools and dice.random() < 0.5:
        with_tool = "with its tool"
        for tool in tools:
            with suppress(psutil.NoSuchProcess):
                tool.send_signal(signal.SIGKILL)
    last, _ = growth.communicate()
    step = (last.split() or [step])[-1]
    return TOO_LATE if step == "done" else f"{step}, {with_tool}"


def _recover(filesystem: BtrfsFilesystem, device: LoopDevice) -> str:
    """Do what the next growth does until it succeeds; returns the error when it does not."""
    verified = partial(BlockDevices().verified_blank, device.name, size_bytes=device.size_bytes)
    deadline, last = monotonic() + RECOVERY_SECONDS, ""
    pause = threading.Event()
    while monotonic() < deadline:
        try:
            filesystem.add_device(device.name, verified=verified)
            if filesystem.needs_balance(Rebalance.FULL, device.name):
                filesystem.balance_metadata(Rebalance.FULL)
        except EbsAutoscaleError as error:
            last = str(error)
            pause.wait(0.1)
        else:
            return ""
    return f"not recovered after {RECOVERY_SECONDS:.0f} s: {last}"


def _make(stack: ExitStack, size_bytes: int) -> LoopDevice:
    return stack.enter_context(
        LoopDevice.create(size_bytes, directory=store(Path(tempfile.gettempdir())))
    )


@contextmanager
def _unmounting(path: Path) -> Iterator[Callable[[], None]]:
    done: list[bool] = []

    def unmount() -> None:
        if not done:
            run(["umount", str(path)], timeout_seconds=120)
            done.append(True)

    try:
        yield unmount
    finally:
        unmount()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Run the campaign; returns 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 -- no secret
    arguments = parser.parse_args()
    enter_private_namespace(folders=[RUNTIME_DIRECTORY])
    say = partial(print, flush=True)
    tally = campaign(arguments.kills, arguments.seed, say)
    for what, count in sorted(tally.kills.items()):
        say(f"killed in {what:<24}{count:>5}")
    for wrong in tally.wrongs:
        say(f"WRONG: {wrong}")
    say(f"seed {arguments.seed}: {'FAILED' if tally.wrongs else 'passed'}")
    return int(bool(tally.wrongs))


if __name__ == "__main__":
    sys.exit(main())
