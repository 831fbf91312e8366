"""Verify that a path is the BTRFS filesystem that is meant, mounted and writable."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.filesystems.btrfs import superblock
from ebs_autoscale.filesystems.btrfs.ioctl import is_read_only
from ebs_autoscale.filesystems.btrfs.repair import remount_command
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS, uuid_at
from ebs_autoscale.filesystems.mounted import (
    OpenMount,
    VerifiedMount,
    mount_at,
    open_folder,
    other_filesystem,
    read_only_mount,
    resolved,
    shown,
    trigger_automount,
    wrong_kind,
)
from ebs_autoscale.host.command import Question
from ebs_autoscale.host.mountinfo import Mount, MountTable

# Python starts in 0.1 s, and a device that responds does so in milliseconds.
_QUESTION_WAIT_SECONDS = 1.0


class BtrfsMount(VerifiedMount):
    """A mountpoint, bound to the filesystem that was mounted there at construction.

    Symlinks are resolved once, and an automount is triggered. Nothing is held open between calls,
    so that it can be unmounted. Raises Unfit with the cause MISSING, NOT_MOUNTED, NOT_BTRFS,
    READ_ONLY, OTHER_FILESYSTEM, COPY or UNREADABLE.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = resolved(path)
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
        fd = open_folder(self.path)
        try:
            mount = self._verify_filesystem(fd)
            if not read_only:
                self._verify_writable(mount)
            if mounts is not self._verified and self._verify_devices():
                self._verified = mounts
            yield mount
        finally:
            os.close(fd)

    def _verify_mounted(self) -> tuple[Mount, ...]:
        mounts = self._table.mounts()
        if mounts is self._verified:
            return mounts
        mount = mount_at(self._table, self.path)
        if mount.kind != "btrfs":
            raise wrong_kind(mount, "BTRFS")
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
            path, name = shown(self.path), "".join(_names_in(self.uuid))
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
                    f"{shown(self.path)} is mounted without {', '.join(answer.split())}, which "
                    f"still belongs to {self.uuid}: a copy was mounted instead",
                    hint="unmount it, detach the copy, and mount it again",
                    cause=Cause.COPY,
                )
        self._names = names
        return True

    def _verify_filesystem(self, fd: int) -> OpenMount:
        found = uuid_at(fd)
        if not found:
            raise Unfit(
                f"{shown(self.path)} is hidden by another mount, which is not BTRFS",
                hint=f"find it with `findmnt --target {shown(self.path)}` and unmount it",
                cause=Cause.NOT_BTRFS,
            )
        if self.uuid not in ("", found):
            raise other_filesystem(self.path, found, self.uuid)
        return OpenMount(fd=fd, uuid=found)

    def _verify_writable(self, mount: OpenMount) -> None:
        if os.fstatvfs(mount.fd).f_flag & os.ST_RDONLY:
            raise self._read_only(mount.uuid)
        if self._remount:
            self._remount.drop()
            self._remount = None
        if is_read_only(mount.fd):
            path = shown(self.path)
            raise Unfit(
                f"the subvolume that is mounted on {path} is read-only",
                hint=f"run `btrfs property set -t subvol {path} ro false`",
                cause=Cause.READ_ONLY,
            )

    def _read_only(self, uuid: str) -> Unfit:
        path = shown(self.path)
        mount = self._table.at(self.path)
        if mount is None or mount.read_only:
            return read_only_mount(self.path)
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
            self._remount = Question.of_module(__name__, shown(self.path), uuid)
            wait_seconds = _QUESTION_WAIT_SECONDS
        try:
            return self._remount.answer(wait_seconds=wait_seconds) or ""
        except CommandFailed:
            return f"umount {shown(self.path)} && mount {shown(self.path)}"


def _names_in(filesystem: str) -> frozenset[str]:
    try:
        return frozenset(path.name for path in (SYSFS / filesystem / "devices").iterdir())
    except OSError:
        return frozenset()


if __name__ == "__main__":
    sys.stdout.write(remount_command(*sys.argv[1:]))
