"""Verify that a path is the BTRFS filesystem that is meant, mounted and writable."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.filesystems.btrfs import superblock
from ebs_autoscale.filesystems.btrfs.ioctl import is_read_only
from ebs_autoscale.filesystems.btrfs.repair import mount_hint, remount_command
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS, uuid_at
from ebs_autoscale.host import files, fstab
from ebs_autoscale.host.command import Question, run
from ebs_autoscale.host.mountinfo import Mount, MountTable

# Python starts in 0.1 s, and a device that responds does so in milliseconds.
_QUESTION_WAIT_SECONDS = 1.0
_NEEDS_BTRFS = "correct `mountpoint` in the configuration, or create one with `ebs-autoscale init`"

_AUTOMOUNT_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMount:
    """A verified mount; valid while the descriptor is open."""

    fd: int
    uuid: str


class BtrfsMount:
    """A mountpoint, bound to the filesystem that was mounted there at construction.

    Symlinks are resolved once, and an automount is triggered. Nothing is held open between calls,
    so that it can be unmounted. Raises Unfit with the cause MISSING, NOT_MOUNTED, NOT_BTRFS,
    READ_ONLY, OTHER_FILESYSTEM, COPY or UNREADABLE.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        try:
            self.path = os.path.realpath(path, strict=True)
        except OSError as error:
            raise _cannot_open(path, error) from error
        self.uuid = ""
        self._table = MountTable()
        self._verified: tuple[Mount, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._remount: Question | None = None
        self._gone: Question | None = None
        trigger_automount(self._table, self.path)
        with self.opened(read_only=read_only) as mount:
            self.uuid = mount.uuid
            self._require_own_uuid()
            self._names = _names_in(self.uuid)

    @contextmanager
    def opened(self, *, read_only: bool = False) -> Iterator[OpenMount]:
        """Verify the mount and hold it open (law 6).

        Mounted, BTRFS, this UUID, these devices, read-write; or also read-only, if so asked.
        """
        mounts = self._verify_mounted()
        fd = self._open()
        try:
            mount = self._verify_filesystem(fd)
            if not read_only:
                self._verify_writable(mount)
            if mounts is not self._verified and self._verify_devices():
                self._verified = mounts
            yield mount
        finally:
            os.close(fd)

    def verify(self) -> None:
        """Raise Unfit unless the mount is as it has to be."""
        with self.opened():
            pass

    def _verify_mounted(self) -> tuple[Mount, ...]:
        mounts = self._table.mounts()
        if mounts is self._verified:
            return mounts
        mount = self._table.at(self.path)
        if mount is None:
            raise self._not_mounted()
        if mount.kind == "autofs":
            # Opening it would wait for the automount.
            raise Unfit(
                f"nothing is mounted on {_shown(self.path)}: its automount has not mounted it",
                hint=f"run `mount {_shown(self.path)}`",
                cause=Cause.NOT_MOUNTED,
            )
        if mount.kind != "btrfs":
            raise Unfit(
                f"{_shown(self.path)} is {mount.kind} ({mount.source}), not BTRFS",
                hint=_NEEDS_BTRFS,
                cause=Cause.NOT_BTRFS,
            )
        return mounts

    def _require_own_uuid(self) -> None:
        """Raise Unfit for a copy that is mounted beside its original (Linux 6.7 and later).

        It is mounted under a temporary UUID, and the kernel adds no device to it.
        """
        try:
            temporary = (SYSFS / self.uuid / "temp_fsid").read_text("ascii").strip()
        except OSError:
            return
        if temporary == "1":
            # Only a filesystem of one device can be mounted so.
            path, name = _shown(self.path), "".join(_names_in(self.uuid))
            raise Unfit(
                f"{name}, mounted on {path}, is a copy of a filesystem that is mounted as well",
                hint=f"give it a UUID of its own with `umount {path} && btrfstune -m /dev/{name}`, "
                "then mount it again",
                cause=Cause.COPY,
            )

    def _verify_devices(self) -> bool:
        """Raise Unfit if a copy was mounted instead of the devices of the last mount.

        A device that was removed has no superblock any more. Read by another process; False while
        that waits for a device.
        """
        names = _names_in(self.uuid) if self._names else frozenset()
        if gone := sorted(self._names - names):
            wait_seconds = 0.0
            if self._gone is None:
                self._gone = Question.of_module(superblock.__name__, self.uuid, *gone)
                wait_seconds = _QUESTION_WAIT_SECONDS
            if (answer := self._gone.answer(wait_seconds=wait_seconds)) is None:
                return False
            self._gone = None
            if answer:
                raise Unfit(
                    f"{_shown(self.path)} is mounted without {', '.join(answer.split())}, which "
                    f"still belongs to {self.uuid}: a copy was mounted instead",
                    hint="unmount it, detach the copy, and mount it again",
                    cause=Cause.COPY,
                )
        self._names = names
        return True

    def _not_mounted(self) -> Unfit:
        os.close(self._open())  # raises when the folder itself is missing
        beneath = self._table.over(self.path)
        of = (
            f"the {beneath.kind} filesystem ({beneath.source}) on {beneath.point}"
            if beneath
            else "/"
        )
        # Without a line for it, there is nothing that `mount` could mount.
        path = _shown(self.path)
        is_listed = fstab.lines_at(files.read_text(fstab.FSTAB), self.path)
        return Unfit(
            f"nothing is mounted on {_shown(self.path)}: it is a directory of {of}",
            hint=mount_hint(path) if is_listed else f"run `ebs-autoscale init {path}`",
            cause=Cause.NOT_MOUNTED,
        )

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_open(self.path, error) from error

    def _verify_filesystem(self, fd: int) -> OpenMount:
        found = uuid_at(fd)
        if not found:
            raise Unfit(
                f"{_shown(self.path)} is hidden by another mount, which is not BTRFS",
                hint=f"find it with `findmnt --target {_shown(self.path)}` and unmount it",
                cause=Cause.NOT_BTRFS,
            )
        if self.uuid not in ("", found):
            raise Unfit(
                f"filesystem {found} is mounted on {_shown(self.path)} instead of {self.uuid}",
                hint="mount the right one again, or restart the service to watch this one",
                cause=Cause.OTHER_FILESYSTEM,
            )
        return OpenMount(fd=fd, uuid=found)

    def _verify_writable(self, mount: OpenMount) -> None:
        if os.fstatvfs(mount.fd).f_flag & os.ST_RDONLY:
            raise self._read_only(mount.uuid)
        if self._remount:
            self._remount.drop()
            self._remount = None
        if is_read_only(mount.fd):
            path = _shown(self.path)
            raise Unfit(
                f"the subvolume that is mounted on {path} is read-only",
                hint=f"run `btrfs property set -t subvol {path} ro false`",
                cause=Cause.READ_ONLY,
            )

    def _read_only(self, uuid: str) -> Unfit:
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
        what = f"the kernel forced {path} read-only after an error (see dmesg)"
        if not (command := self._remount_command(uuid)):
            hint = "its devices have not responded yet: once they do, run `ebs-autoscale check`"
            return Unfit(what, hint=hint, cause=Cause.READ_ONLY)
        return Unfit(
            what,
            hint=f"stop the programs that use it, then run `{command}`; "
            "remounting it read-write does not work",
            cause=Cause.READ_ONLY,
        )

    def _remount_command(self, uuid: str) -> str:
        """See `remount_command`; empty while the devices do not respond.

        Asked of another process, once as long as it stays read-only: the read of a device may take
        for ever, and each one of a dead device is another error in the kernel's log.
        """
        wait_seconds = 0.0
        if self._remount is None:
            self._remount = Question.of_module(__name__, _shown(self.path), uuid)
            wait_seconds = _QUESTION_WAIT_SECONDS
        try:
            return self._remount.answer(wait_seconds=wait_seconds) or ""
        except CommandFailed:
            return f"umount {_shown(self.path)} && mount {_shown(self.path)}"


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


def filesystem_at(path: str) -> str:
    """The UUID of the BTRFS filesystem at this path, else of the one that fstab mounts there.

    Empty when there is neither.
    """
    mount = MountTable().at(path)
    if mount and mount.kind == "btrfs":
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return uuid_at(fd)
            finally:
                os.close(fd)
    return fstab.uuid_at(files.read_text(fstab.FSTAB), path)


def _names_in(filesystem: str) -> frozenset[str]:
    try:
        return frozenset(path.name for path in (SYSFS / filesystem / "devices").iterdir())
    except OSError:
        return frozenset()


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


def _cannot_open(path: str, error: OSError) -> Unfit:
    if isinstance(error, FileNotFoundError):
        return Unfit(
            f"{_shown(path)} does not exist",
            hint=f"run `ebs-autoscale init {_shown(path)}`, or correct `mountpoint`",
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
        hint="run as root" if isinstance(error, PermissionError) else "see dmesg",
        cause=Cause.UNREADABLE,
    )


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)


if __name__ == "__main__":
    sys.stdout.write(remount_command(*sys.argv[1:]))
