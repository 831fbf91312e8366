"""How a device gets into the filesystem: by the tool, or at once when space is at its end."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.ioctl import add_device_now
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount
from ebs_autoscale.filesystems.btrfs.reserve import Reserve
from ebs_autoscale.host.command import run

Verified = Callable[[], AbstractContextManager[object]]
"""Entered right before an add; raises unless the device is blank, and keeps its name its own."""

# 12 to 430 ms measured for 10 GiB to 16 TiB; the rest is for hosts that drown in writes.
_TIMEOUT_SECONDS = 120.0


def add_by_tool(mount: BtrfsMount, name: str) -> None:
    """Add without force and without TRIM, which EBS does not have; raises CommandFailed."""
    argv = ["btrfs", "device", "add", "-K", f"/dev/{name}", mount.path]
    run(argv, timeout_seconds=_TIMEOUT_SECONDS)


def add_at_the_end(mount: BtrfsMount, name: str, reserve: Reserve) -> None:
    """Give up the reserve and add at once what is proved blank; raises CommandFailed.

    A process would take 30 to 400 ms to come to that, in which fast writers use the reserve up;
    this way it is 2 to 4 ms (measured).
    """
    with mount.opened() as opened:
        # Worse than the kernel's race is no space at all: a failure keeps nothing back.
        with suppress(Transient, Unfit):
            reserve.keep(0)
        try:
            add_device_now(opened.fd, f"/dev/{name}")
        except OSError as error:
            argv = ("BTRFS_IOC_ADD_DEV", f"/dev/{name}")
            raise CommandFailed(argv, error.errno, error.strerror or "") from error


def add_failure(name: str, error: CommandFailed) -> Transient | Unfit:
    """What a failed add means to whoever asked for it."""
    if "appears to contain" in error.stderr:
        return Unfit(
            f"{name} is not blank: {error.stderr.splitlines()[0]}",
            hint="look what is on it; nothing is ever overwritten",
            cause=Cause.NOT_BLANK,
        )
    if is_exclusive(error):
        return Transient(
            f"cannot add {name} now: {error}",
            hint="let it end, or end it; before Linux 5.17 a paused balance too is in the way",
            cause=Cause.EXCLUSIVE_OPERATION,
        )
    return Transient(f"cannot add {name}: {error}", cause=Cause.ADD)


def is_exclusive(error: CommandFailed) -> bool:
    """Whether another exclusive operation was in the way."""
    return "exclusive operation" in error.stderr or "in progress" in error.stderr
