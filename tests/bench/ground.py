"""A BTRFS filesystem on loop devices in memory, for as long as a measurement takes."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from threading import Event

from ec2_sandbox.devices.loop import LoopDevice

MIB = 1024**2
GIB = 1024**3

_NUMBERS = count(1)
_UNMOUNT_TRIES = 100
_ROOM_BYTES = 4 * GIB


def store(folder: Path) -> Path:
    """The folder for the files behind block devices: in memory where there is room for them.

    Docker gives /dev/shm 64 MiB by default; a device that is full there fails.
    """
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return folder
    room = os.statvfs(shm)
    return shm if room.f_bavail * room.f_frsize > _ROOM_BYTES else folder


@contextmanager
def mounted(
    folder: Path, sizes: Sequence[int], *, mkfs: Sequence[str] = (), options: str = "defaults"
) -> Iterator[Path]:
    """Make and mount a filesystem on devices of these sizes in bytes, and remove it afterwards."""
    point = folder / f"scratch-{next(_NUMBERS)}"
    point.mkdir(parents=True)
    with ExitStack() as stack:
        devices = [
            stack.enter_context(LoopDevice.create(size, directory=store(folder))) for size in sizes
        ]
        tool("mkfs.btrfs", "--quiet", *mkfs, *(device.node for device in devices))
        tool("mount", "-o", options, devices[0].node, str(point))
        stack.callback(_unmount, point)
        yield point


def tool(*argv: str) -> None:
    """Run a tool of the operating system; raises CalledProcessError with its output."""
    subprocess.run(
        argv, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )


def _unmount(point: Path) -> None:
    # Processes of other threads hold it open between their fork and exec.
    for _ in range(_UNMOUNT_TRIES):
        if subprocess.run(["umount", str(point)], check=False, capture_output=True).returncode == 0:
            return
        Event().wait(0.1)
    subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)
