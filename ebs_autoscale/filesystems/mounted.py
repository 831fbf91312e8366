"""A mounted filesystem of whatever kind: its path, what is mounted there, and why nothing is."""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.host import files, fstab
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.model import FilesystemKind, Reading

_AUTOMOUNT_TIMEOUT_SECONDS = 20.0
_NEEDS_ANOTHER = (
    "correct `mountpoint` in the configuration, or create one with `ebs-autoscale init`"
)


# It cannot be unmounted. Source: systemd-fsck@.service(8).
CHECK_ROOT = "reboot with `fsck.mode=force` on the kernel command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMount:
    """A verified mount; valid while the descriptor is open."""

    fd: int
    uuid: str


class VerifiedMount(ABC):
    """A mountpoint, bound to the filesystem that was mounted there at construction."""

    path: str
    uuid: str

    @abstractmethod
    def opened(self, *, read_only: bool = False) -> AbstractContextManager[OpenMount]:
        """Verify the mount and hold it open (law 6); raises Unfit or OSError."""

    def verify(self) -> None:
        """Raise Unfit unless the mount is as it has to be."""
        with self.opened():
            pass


MountT = TypeVar("MountT", bound=VerifiedMount)


class VerifiedFilesystem(ABC, Generic[MountT]):
    """A mounted filesystem, whose mount is verified before every read and every change."""

    def __init__(self, mount: MountT) -> None:
        self._mount = mount

    @property
    def uuid(self) -> str:
        """The filesystem's UUID, as blkid writes it."""
        return self._mount.uuid

    @property
    def mountpoint(self) -> str:
        """The absolute path, without symlinks."""
        return self._mount.path

    def read(self) -> Reading:
        """The current state, in microseconds, without a subprocess; raises Unfit or Transient."""
        with self.opened() as mount:
            return self.reading(mount, os.fstatvfs(mount.fd))

    @abstractmethod
    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:
        """The current state, with statvfs(3) as the caller read it; raises OSError."""

    @contextmanager
    def opened(self) -> Iterator[OpenMount]:
        """The verified mount, held open while this is entered; raises Unfit or Transient."""
        try:
            with self._mount.opened() as mount:
                yield mount
        except OSError as error:
            self._mount.verify()
            raise Transient(
                f"cannot read the state of {self.mountpoint}: {error}", cause=Cause.READING
            ) from error


def kind_at(path: str) -> FilesystemKind:
    """The kind of the filesystem that is mounted here; raises Unfit without one that can grow.

    Triggers an automount.
    """
    path, table = resolved(path), MountTable()
    trigger_automount(table, path)
    mount = mount_at(table, path)
    if mount.kind not in set(FilesystemKind):
        raise wrong_kind(mount, "BTRFS, XFS or ext4")
    return FilesystemKind(mount.kind)


def resolved(path: str) -> str:
    """The absolute path without symlinks; raises Unfit.

    A link never leads to the root filesystem: who wants that watched names it.
    """
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise cannot_open(path, error) from error
    if real == "/" and path != "/":
        raise Unfit(
            f"{shown(path)} leads to the root filesystem",
            hint="correct `mountpoint`; to have the root filesystem grow, it has to be /",
            cause=Cause.NOT_MOUNTED,
        )
    return real


def trigger_automount(table: MountTable, path: str) -> None:
    """Have a direct automount, such as x-systemd.automount in fstab, mount what it is for.

    By a process with a time limit: systemd may wait for a device. A reading does not do it:
    whoever unmounts the filesystem has a reason.
    """
    mount = table.at(path)
    if mount and mount.kind == "autofs":
        with suppress(CommandFailed):
            # The path of a folder in it: a look at the mountpoint alone triggers nothing.
            run(["stat", "--", f"{path}/."], timeout_seconds=_AUTOMOUNT_TIMEOUT_SECONDS)


def mount_at(table: MountTable, path: str) -> Mount:
    """What is mounted on this path, which has no symlinks; raises Unfit when nothing is."""
    mount = table.at(path)
    if mount is None:
        raise _not_mounted(table, path)
    if mount.kind == "autofs":
        # Opening it would wait for the automount.
        raise Unfit(
            f"nothing is mounted on {shown(path)}: its automount has not mounted it",
            hint=f"run `mount {shown(path)}`",
            cause=Cause.NOT_MOUNTED,
        )
    return mount


def wrong_kind(mount: Mount, wanted: str) -> Unfit:
    """Why it is no use that this is mounted."""
    return Unfit(
        f"{shown(mount.point)} is {mount.kind} ({mount.source}), not {wanted}",
        hint=_NEEDS_ANOTHER,
        cause=Cause.NOT_BTRFS,
    )


def other_filesystem(path: str, found: str, wanted: str) -> Unfit:
    """The filesystem there is not the one that was there at the start, by their UUIDs."""
    return Unfit(
        f"filesystem {found} is mounted on {shown(path)} instead of {wanted}",
        hint="mount the right one again, or restart the service to watch this one",
        cause=Cause.OTHER_FILESYSTEM,
    )


def read_only_mount(path: str) -> Unfit:
    """The mount is read-only, which the filesystem need not be."""
    return Unfit(
        f"{shown(path)} is mounted read-only",
        hint=f"run `mount -o remount,rw {shown(path)}`",
        cause=Cause.READ_ONLY,
    )


def open_folder(path: str) -> int:
    """A descriptor of this folder; raises Unfit."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_open(path, error) from error


def mount_hint(path: str, kind: str = "btrfs", *, is_incomplete: bool = False) -> str:
    """What to do about a filesystem that is not mounted; incomplete is one that lacks devices."""
    if kind != "btrfs":
        return f"run `mount {path}`"
    never = "never mount it read-write and degraded"
    if is_incomplete:
        return f"attach the volumes of the missing devices, then run `mount {path}`; {never}"
    return (
        f"run `mount {path}`; if a device is missing (see `ebs-autoscale check`), first attach its "
        f"volume, and {never}"
    )


def require_mountable(path: Path) -> None:
    """Raise Unfit unless the path is an empty folder or does not exist."""
    try:
        content = next(path.iterdir(), None)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unfit(
            f"cannot mount on {path}: {error.strerror}",
            hint="choose an empty directory, or a path that does not exist",
            cause=Cause.MOUNTPOINT,
        ) from error
    if content is not None:
        raise Unfit(
            f"{path} is not empty: a mount would hide {content.name!r}",
            hint="move its contents elsewhere, or choose another mountpoint",
            cause=Cause.MOUNTPOINT,
        )


def shown(path: str) -> str:
    """The path as a person reads it."""
    return path if path.isprintable() else repr(path)


def cannot_open(path: str, error: OSError) -> Unfit:
    """Why there is no look at the filesystem on this path."""
    if isinstance(error, FileNotFoundError):
        return Unfit(
            f"{shown(path)} does not exist",
            hint=f"run `ebs-autoscale init {shown(path)}`, or correct `mountpoint`",
            cause=Cause.MISSING,
        )
    if isinstance(error, NotADirectoryError):
        return Unfit(
            f"{shown(path)} is not a directory", hint=_NEEDS_ANOTHER, cause=Cause.NOT_MOUNTED
        )
    if isinstance(error, PermissionError) and os.geteuid() == 0:
        return Unfit(
            f"cannot open {shown(path)}: only its owner has access",
            hint=f"run `chmod o+rx {shown(path)}`, or run `systemctl edit ebs-autoscale` and add "
            "CapabilityBoundingSet=CAP_DAC_OVERRIDE to [Service]",
            cause=Cause.UNREADABLE,
        )
    if error.errno == errno.EIO:
        # Measured on 6.18: XFS that was shut down opens nothing, not even its root.
        return shut_down(path)
    return Unfit(
        f"cannot open {shown(path)}: {error.strerror}",
        hint="run as root" if isinstance(error, PermissionError) else "see dmesg",
        cause=Cause.UNREADABLE,
    )


def shut_down(path: str) -> Unfit:
    """The kernel refuses every access after an error of the device or of the filesystem."""
    return Unfit(
        f"the kernel has shut {shown(path)} down after an error (see dmesg)",
        hint="stop the programs that use it, then run "
        f"`umount {shown(path)} && mount {shown(path)}`; check it in between if dmesg says so"
        if path != "/"
        else CHECK_ROOT,
        cause=Cause.READ_ONLY,
    )


def _not_mounted(table: MountTable, path: str) -> Unfit:
    os.close(open_folder(path))  # raises when the folder itself is missing
    beneath = table.over(path)
    of = f"the {beneath.kind} filesystem ({beneath.source}) on {beneath.point}" if beneath else "/"
    lines = fstab.lines_at(files.read_text(fstab.FSTAB), path)
    # Without a line for it, there is nothing that `mount` could mount.
    hint = f"run `ebs-autoscale init {shown(path)}`"
    if lines:
        hint = mount_hint(shown(path), lines[-1].kind)
    return Unfit(
        f"nothing is mounted on {shown(path)}: it is a directory of {of}",
        hint=hint,
        cause=Cause.NOT_MOUNTED,
    )
