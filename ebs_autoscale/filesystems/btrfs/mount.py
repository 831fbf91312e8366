"""Verify that a path is the BTRFS filesystem that is meant, mounted and writable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.btrfs.ioctl import FilesystemInfo, filesystem_info
from ebs_autoscale.filesystems.btrfs.superblock import superblock_uuid
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.mountinfo import Mount, MountTable

_NEEDS_BTRFS = "correct `mountpoint` in the configuration, or create one with `ebs-autoscale init`"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMount:
    """A verified mount; valid while the descriptor is open."""

    fd: int
    info: FilesystemInfo


class BtrfsMount:
    """A mountpoint, bound to the filesystem that was mounted there at construction.

    Symlinks are resolved once. Nothing is held open between calls, so that it can be unmounted.
    Raises Unfit with the cause MISSING, NOT_MOUNTED, NOT_BTRFS, READ_ONLY, OTHER_FILESYSTEM or
    UNREADABLE.
    """

    def __init__(self, path: str) -> None:
        try:
            self.path = os.path.realpath(path, strict=True)
        except OSError as error:
            raise _cannot_open(path, error) from error
        self.uuid = ""
        self._table = MountTable()
        self._verified: tuple[Mount, ...] = ()
        with self.opened() as mount:
            self.uuid = mount.info.uuid

    @contextmanager
    def opened(self) -> Iterator[OpenMount]:
        """Verify the mount and hold it open: mounted, BTRFS, this UUID, read-write (law 6)."""
        self._verify_mounted()
        fd = self._open()
        try:
            yield self._verify_writable(fd)
        finally:
            os.close(fd)

    def verify(self) -> None:
        """Raise Unfit unless the mount is as it has to be."""
        with self.opened():
            pass

    def _verify_mounted(self) -> None:
        mounts = self._table.mounts()
        if mounts is self._verified:
            return
        mount = self._table.at(self.path)
        if mount is None:
            raise self._not_mounted()
        if mount.kind != "btrfs":
            raise Unfit(
                f"{_shown(self.path)} is {mount.kind} ({mount.source}), not BTRFS",
                hint=_NEEDS_BTRFS,
                cause=Cause.NOT_BTRFS,
            )
        self._verified = mounts

    def _not_mounted(self) -> Unfit:
        os.close(self._open())  # raises when the folder itself is missing
        beneath = self._table.over(self.path)
        of = (
            f"the {beneath.kind} filesystem ({beneath.source}) on {beneath.point}"
            if beneath
            else "/"
        )
        return Unfit(
            f"nothing is mounted on {_shown(self.path)}: it is a directory of {of}",
            hint=f"run `mount {_shown(self.path)}`",
            cause=Cause.NOT_MOUNTED,
        )

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_open(self.path, error) from error

    def _verify_writable(self, fd: int) -> OpenMount:
        found = filesystem_info(fd)
        if found is None:
            raise Unfit(
                f"{_shown(self.path)} is hidden by another mount, which is not BTRFS",
                hint=f"find it with `findmnt --target {_shown(self.path)}` and unmount it",
                cause=Cause.NOT_BTRFS,
            )
        if self.uuid not in ("", found.uuid):
            raise Unfit(
                f"filesystem {found.uuid} is mounted on {_shown(self.path)} instead of {self.uuid}",
                hint="mount the right one again, or restart the service to watch this one",
                cause=Cause.OTHER_FILESYSTEM,
            )
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            raise self._read_only()
        return OpenMount(fd=fd, info=found)

    def _read_only(self) -> Unfit:
        path = _shown(self.path)
        mount = self._table.at(self.path)
        if mount is None or mount.read_only:
            return Unfit(
                f"{path} is mounted read-only",
                hint=f"run `mount -o remount,rw {path}`",
                cause=Cause.READ_ONLY,
            )
        # The mount is read-write, the filesystem is not: the kernel aborted a transaction, and
        # refuses a remount (measured on 6.18: remount,rw exits with 32).
        return Unfit(
            f"the kernel forced {path} read-only after an error (see dmesg)",
            hint=f"stop the programs that use it, then run `{remount_command(path, self.uuid)}`; "
            "remounting it read-write does not work",
            cause=Cause.READ_ONLY,
        )


def remount_command(path: str, uuid: str) -> str:
    """The commands that mount the filesystem anew, without devices that were never fully added.

    After an add that failed half-way the kernel still lists the device, and takes it for the
    newest: the mount fails with "failed to read devices" (measured on 6.18: 6 of 6 mounts failed
    without `--forget`, none of 6 with it).
    """
    commands = [f"umount {path}", f"mount {path}"]
    try:
        nodes = [f"/dev/{path.name}" for path in (SYSFS / uuid / "devices").iterdir()]
        half_added = [node for node in sorted(nodes) if superblock_uuid(node) != uuid]
    except OSError:
        half_added = []
    if half_added:
        commands.insert(1, f"btrfs device scan --forget {' '.join(half_added)}")
    return " && ".join(commands)


def _cannot_open(path: str, error: OSError) -> Unfit:
    if isinstance(error, FileNotFoundError):
        return Unfit(
            f"{_shown(path)} does not exist",
            hint="create the directory and mount the filesystem there, or correct `mountpoint`",
            cause=Cause.MISSING,
        )
    if isinstance(error, NotADirectoryError):
        return Unfit(
            f"{_shown(path)} is not a directory", hint=_NEEDS_BTRFS, cause=Cause.NOT_MOUNTED
        )
    if isinstance(error, PermissionError) and os.geteuid() == 0:
        return Unfit(
            f"cannot open {_shown(path)}: only its owner has access",
            hint=f"run `chmod o+rx {_shown(path)}`, or run `systemctl edit ebs-autoscale` and add "
            "CapabilityBoundingSet=CAP_DAC_OVERRIDE to [Service]",
            cause=Cause.UNREADABLE,
        )
    return Unfit(
        f"cannot open {_shown(path)}: {error.strerror}",
        hint="run as root, and see dmesg for filesystem errors",
        cause=Cause.UNREADABLE,
    )


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
