"""One XFS or ext4: read its state, extend it to the size of its device."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from ebs_autoscale.errors import (
    Cause,
    CommandFailed,
    Refused,
    Transient,
    Unfit,
)
from ebs_autoscale.filesystems.mounted import CHECK_ROOT, OpenMount, VerifiedFilesystem
from ebs_autoscale.filesystems.one_device.mount import OneDeviceMount
from ebs_autoscale.filesystems.one_device.reading import device_of, reading_of
from ebs_autoscale.filesystems.one_device.superblock import Superblock
from ebs_autoscale.host import partitions
from ebs_autoscale.host.command import run
from ebs_autoscale.host.requirements import require_able_to_grow
from ebs_autoscale.model import SLACK_BYTES, Device, FilesystemKind, Reading, Rebalance
from ebs_autoscale.units import format_size

# XFS takes milliseconds, ext4 110 ms for some GiB and the longer the more it grows (measured).
_RESIZE_TIMEOUT_SECONDS = 600.0


class Clock(Protocol):
    """Monotonic time."""

    def now_seconds(self) -> float:
        """Seconds since some fixed moment."""


class OneDeviceFilesystem(VerifiedFilesystem[OneDeviceMount]):
    """One mounted XFS or ext4, bound to its UUID at construction.

    Every read and every change first verifies the mount, and raises Unfit when it is not as it has
    to be; see OneDeviceMount for the causes.
    """

    def __init__(self, mountpoint: str, *, clock: Clock) -> None:
        super().__init__(OneDeviceMount(mountpoint))
        self._clock = clock

    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:
        """The current state, with statvfs(3) as the caller read it; raises OSError."""
        now_seconds = self._clock.now_seconds()
        return reading_of(self._mount, mount, statvfs, now_seconds=now_seconds)

    def devices(self) -> tuple[Device, ...]:
        """The device, also of a filesystem that is read-only; raises Unfit or OSError."""
        with self._mount.opened(read_only=True):
            return (device_of(self._mount),)

    def exclusive_operation(self) -> str:
        """`none`: nothing prevents a growth for long."""
        return "none"

    def balance_progress(self) -> str:
        """Empty: there is nothing to balance."""
        return ""

    def keep_reserve(self, data_bytes: int) -> str:  # noqa: ARG002 -- as in Filesystem
        """Nothing: growing needs no reserve."""
        return ""

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:  # noqa: ARG002 -- as in Filesystem
        """False: metadata takes the space that data does."""
        return False

    def balance_metadata(
        self,
        mode: Rebalance,  # noqa: ARG002 -- as in Filesystem
        *,
        stopping: Callable[[], bool],  # noqa: ARG002 -- as in Filesystem
        tell: Callable[[str], None],  # noqa: ARG002 -- as in Filesystem
    ) -> str:
        """Nothing."""
        return ""

    def add_device(
        self,
        name: str,
        *,
        verified: Callable[[], AbstractContextManager[object]],  # noqa: ARG002 -- as in Filesystem
        tell: Callable[[str], None],  # noqa: ARG002 -- as in Filesystem
    ) -> None:
        """Raises Refused."""
        raise Refused(
            f"cannot add {name} to {self.mountpoint}: {self._mount.kind} has one device",
            hint="set growth.method to auto or enlarge",
            cause=Cause.METHOD,
        )

    def require_growable(self) -> int | None:
        """Raise Unfit unless this process can extend the filesystem, and its partition.

        Returns the size up to which its block device can be used; None without a limit. Reads the
        device, so it may block.
        """
        require_able_to_grow(self._mount.kind)
        self._mount.renew()
        if self._mount.superblock:
            require_resizable(self._mount.superblock, self._mount.place.name, self.mountpoint)
        place, limits = self._mount.place, []
        if self._mount.superblock:
            limits.append(place.start_bytes + self._mount.superblock.largest_bytes)
        if place.partition and (most_bytes := partitions.require_growable(place.partition)):
            limits.append(most_bytes)
        usable_bytes = min(limits, default=None)
        [device] = self.read().devices
        if usable_bytes is not None and device.size_bytes + SLACK_BYTES > usable_bytes:
            raise Unfit(
                f"{self.mountpoint} cannot use more than {format_size(usable_bytes)} of "
                f"{device.name}",
                hint="an MBR describes 2 TiB, and an ext4 without the feature 64bit has 16 TiB at "
                "most: copy the data to a new volume",
                cause=Cause.NOT_GROWABLE,
            )
        return usable_bytes

    def verify_devices(self, volumes: Mapping[str, str] | None = None) -> None:
        """Nothing: the one device is the filesystem."""

    def resize_device(self, name: str, *, tell: Callable[[str], None]) -> str | None:
        """Extend the filesystem to the size of its device, which has this kernel name.

        Takes milliseconds, also at ENOSPC (measured). Returns where the partition table of before
        is, if it was changed. Raises Unfit or Transient.
        """
        partition = self._mount.place.partition
        kept = partitions.grow(partition, tell=tell) if partition else None
        before, failure = self._device(name), None
        argv = self._resize_command()
        tell(f"extending {self.mountpoint}")
        try:
            run(argv, timeout_seconds=_RESIZE_TIMEOUT_SECONDS)
        except CommandFailed as error:
            failure = error  # Our timeout may end the tool after the kernel has done it.
        self._mount.renew()
        after = self._device(name)
        if after.size_bytes <= before.size_bytes and (failure or after.unused_bytes):
            command = " ".join(argv)
            why = failure or f"`{command}` succeeded, but changed nothing"
            hint = f"see `dmesg`, then run `{command}`"
            what = f"cannot extend {self.mountpoint}: {why}"
            raise Transient(what, hint=hint, cause=Cause.RESIZE)
        return f"the partition table of {name} as it was is in {kept}" if kept else None

    def _resize_command(self) -> list[str]:
        if self._mount.kind is FilesystemKind.XFS:
            return ["xfs_growfs", "-d", self.mountpoint]
        return ["resize2fs", f"/dev/{self._mount.place.name}"]

    def _device(self, name: str) -> Device:
        [device] = self.read().devices
        if device.name != name:
            what = f"{self.mountpoint} is on {device.name}, no longer on {name}"
            raise Transient(what, cause=Cause.RESIZE)
        return device


def require_resizable(found: Superblock, name: str, path: str) -> None:
    """Raise Unfit when the kernel refuses to extend this ext4 while it is mounted.

    Source: fs/ext4/resize.c, ext4_resize_begin.
    """
    why, hint = "", f"run `umount {path} && e2fsck -f /dev/{name} && mount {path}`"
    if path == "/":
        hint = CHECK_ROOT
    if found.has_errors:
        why = "has errors, with which the kernel does not extend it"
    elif found.has_sparse_super2:
        why = "has the feature sparse_super2, with which the kernel does not extend it"
        hint = "copy its data to a filesystem without it"
    if why:
        raise Unfit(
            f"the ext4 on {name}, mounted on {path}, {why}", hint=hint, cause=Cause.NOT_GROWABLE
        )
