"""Verify that a path is the XFS or ext4 that is meant, mounted and writable."""

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.filesystems.mounted import (
    OpenMount,
    VerifiedMount,
    cannot_open,
    mount_at,
    open_folder,
    other_filesystem,
    read_only_mount,
    resolved,
    shown,
    shut_down,
    trigger_automount,
    wrong_kind,
)
from ebs_autoscale.filesystems.one_device import superblock, xfs
from ebs_autoscale.filesystems.one_device.place import place_of, text_of
from ebs_autoscale.filesystems.one_device.superblock import Superblock
from ebs_autoscale.host.command import Question
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.model import FilesystemKind

_KINDS = {kind.value for kind in FilesystemKind if not kind.takes_devices}
# Python starts in 0.1 s, and a device that responds does so in milliseconds.
_WAIT_SECONDS = 10.0
_WAIT_SECONDS_OF_LOOP = 1.0
_WORDS = struct.Struct("<QQ")
# struct fsxattr of linux/fs.h: flags, hint, extents, project, hint.
_FSXATTR = struct.Struct("=5I8x")
_FS_IOC_FSGETXATTR = 2 << 30 | _FSXATTR.size << 16 | ord("X") << 8 | 31
_PROJECT_IS_INHERITED = 0x200
# struct fsuuid2 of linux/fs.h: its length, the UUID.
_FSUUID2 = struct.Struct("=B16s")
_FS_IOC_GETFSUUID = 2 << 30 | _FSUUID2.size << 16 | 0x15 << 8


class OneDeviceMount(VerifiedMount):
    """A mountpoint, bound to the filesystem that was mounted there at construction.

    Symlinks are resolved once, and an automount is triggered. Nothing is held open between calls,
    so that it can be unmounted. Raises Unfit as BtrfsMount does, and for a block device that is
    not an EBS volume or a partition of one.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = resolved(path)
        self.uuid = ""
        self._table = MountTable()
        self._verified: tuple[Mount, ...] = ()
        trigger_automount(self._table, self.path)
        self._mount = mount = mount_at(self._table, self.path)
        if mount.kind not in _KINDS:
            raise wrong_kind(mount, "XFS or ext4")
        self.kind = FilesystemKind(mount.kind)
        self.place = place_of(mount)
        self.device = mount.device
        # Of XFS, as of the latest look; of ext4, the superblock instead.
        self.geometry: xfs.Geometry | None = None
        self.superblock: Superblock | None = None
        self._superblock_blocks = 0
        self._asking: Question | None = None
        self._asking_former: Question | None = None
        if self.kind is FilesystemKind.EXT4:
            self._read_ext4()
        with self.opened(read_only=read_only) as opened:
            self.uuid = opened.uuid
            self._superblock_blocks = os.fstatvfs(opened.fd).f_blocks

    def _read_ext4(self) -> None:
        """The UUID, and the superblock unless this user may not read it, but can know the UUID."""
        fd = open_folder(self.path)
        try:
            self.uuid = uuid_in_kernel(fd)
        finally:
            os.close(fd)
        if os.geteuid() == 0 or not self.uuid:
            self.superblock = superblock_of(self.place.name, wait_seconds=_WAIT_SECONDS)
            self.uuid = self.superblock.uuid

    @contextmanager
    def opened(self, *, read_only: bool = False) -> Iterator[OpenMount]:
        """Verify the mount and hold it open (law 6).

        Mounted, this kind, this UUID, this device, read-write; or also read-only, if so asked.
        """
        mounts = self._verify_mounted()
        fd = open_folder(self.path)
        try:
            mount = self._verify_filesystem(fd)
            if self._mount.device != self.device:
                self._verify_other_device()
            if not read_only:
                self._verify_writable(fd)
            self._verified = mounts
            yield mount
        finally:
            os.close(fd)

    def renew(self) -> None:
        """Read the superblock of ext4 again, which was changed; raises Unfit or Transient."""
        if self.superblock:
            self.superblock = superblock_of(self.place.name, wait_seconds=_WAIT_SECONDS)

    def follow(self, blocks: int) -> None:
        """Have the superblock of ext4 read again after the blocks in statfs(2) have changed.

        Nobody waits for it: until it is read, what it said before counts.
        """
        if self.superblock is None:
            return
        if blocks != self._superblock_blocks and not self._asking:
            self._asking = question_of(self.place.name)
            self._superblock_blocks = blocks
        if self._asking:
            try:
                if (answer := self._asking.answer(wait_seconds=0)) is None:
                    return
                self.superblock = parsed(self.place.name, answer)
            except EbsAutoscaleError:
                self._superblock_blocks = -1  # Ask again: who was asked may have been killed.
            self._asking = None

    def _verify_mounted(self) -> tuple[Mount, ...]:
        mounts = self._table.mounts()
        if mounts is self._verified:
            return mounts
        mount = mount_at(self._table, self.path)
        if mount.kind != self.kind:
            raise wrong_kind(mount, self.kind)
        if mount.root != "/":
            raise Unfit(
                f"{shown(self.path)} is the folder {shown(mount.root)} of another mount of "
                f"{mount.source}",
                hint="set `mountpoint` to where the whole filesystem is mounted",
                cause=Cause.OTHER_FILESYSTEM,
            )
        root = self._table.at("/")
        if root and root.device == mount.device and self.path != "/":
            raise Unfit(
                f"{shown(self.path)} is another mount of the root filesystem",
                hint="unmount it; to have the root filesystem grow, run `ebs-autoscale init /`",
                cause=Cause.OTHER_FILESYSTEM,
            )
        self._mount = mount
        return mounts

    def _verify_other_device(self) -> None:
        """Raise Unfit if a copy was mounted instead of the device of the last mount.

        The volume may have been detached and have come back by another name.
        """
        place = place_of(self._mount)
        if self.place.bytes:
            self._asking_former = self._asking_former or question_of(self.place.name)
            with suppress(CommandFailed):
                answer = self._asking_former.answer(wait_seconds=_WAIT_SECONDS_OF_LOOP)
                if answer is None:
                    raise unresponsive(self.place.name)
                self._asking_former = None
                found = json.loads(answer)
                if found and found["uuid"] == self.uuid:
                    raise Unfit(
                        f"{place.name} is mounted on {shown(self.path)} instead of "
                        f"{self.place.name}, which also has {self.uuid}: it may be a copy",
                        hint="unmount it, detach the copy, and mount the right one again",
                        cause=Cause.COPY,
                    )
            self._asking_former = None
        self.place, self.device = place, self._mount.device
        self.renew()

    def _verify_filesystem(self, fd: int) -> OpenMount:
        try:
            number = os.fstat(fd).st_dev
            if f"{os.major(number)}:{os.minor(number)}" != self._mount.device:
                raise Unfit(
                    f"{shown(self.path)} is hidden by another mount",
                    hint=f"find it with `findmnt --target {shown(self.path)}` and unmount it",
                    cause=Cause.OTHER_FILESYSTEM,
                )
            found = self._uuid_at(fd)
        except OSError as error:
            raise cannot_open(self.path, error) from error
        if self.uuid not in ("", found):
            raise other_filesystem(self.path, found, self.uuid)
        return OpenMount(fd=fd, uuid=found)

    def _uuid_at(self, fd: int) -> str:
        """The UUID; of ext4 statfs(2) tells the two halves, folded (fs/ext4/super.c)."""
        if self.kind is FilesystemKind.XFS:
            return self._xfs_uuid(fd)
        first, second = _WORDS.unpack(UUID(self.uuid).bytes)
        return self.uuid if os.fstatvfs(fd).f_fsid == first ^ second else "another one"

    def _xfs_uuid(self, fd: int) -> str:
        self.geometry = found = xfs.geometry(fd)
        if found.realtime_blocks:
            raise Unfit(
                f"{shown(self.path)} has a real-time device, which is not grown with the other",
                hint="only XFS on one EBS volume can be grown",
                cause=Cause.NOT_GROWABLE,
            )
        # A growth between the two looks makes the second figure larger.
        if os.fstatvfs(fd).f_blocks < found.blocks - found.log_blocks:
            raise bounded_by_quota(self.path, f"xfs_io -c 'chattr -P' {shown(self.path)}")
        return found.uuid

    def _verify_writable(self, fd: int) -> None:
        is_read_only = os.fstatvfs(fd).f_flag & os.ST_RDONLY
        mount = self._table.at(self.path) if is_read_only else None
        if mount and mount.read_only:
            raise read_only_mount(self.path)
        options = self._ext4_options()
        if is_read_only or self._is_stopped(options):
            raise shut_down(self.path)
        if b"prjquota" in options and has_project(fd):
            raise bounded_by_quota(self.path, f"chattr -P {shown(self.path)}")

    def _is_stopped(self, options: set[bytes]) -> bool:
        """Whether the kernel stopped all writes after an error.

        ext4 no longer becomes read-only, which statfs(2) would show (measured on 6.18 and 6.1.176);
        only since 6.15 it has a word for it. XFS that was shut down cannot be opened.
        """
        if options & {b"emergency_ro", b"shutdown"}:
            return True
        if b"errors=remount-ro" not in options or self.superblock is None:
            return False
        failed_at = int(text_of(f"/sys/fs/ext4/{self.place.name}/last_error_time") or 0)
        if not failed_at or failed_at < self.superblock.mounted_at:
            return False
        # It may have been mounted again since the superblock was read.
        self._superblock_blocks = -1
        self.follow(0)
        return True

    def _ext4_options(self) -> set[bytes]:
        """The mount options that the kernel goes by; none of XFS."""
        if self.kind is FilesystemKind.XFS:
            return set()
        return set(text_of(f"/proc/fs/ext4/{self.place.name}/options").split())


def question_of(name: str) -> Question:
    """What `parsed` reads, asked of another process."""
    return Question.of_module(superblock.__name__, f"/dev/{name}")


def superblock_of(name: str, *, wait_seconds: float) -> Superblock:
    """The superblock on this device, read by another process; raises Unfit or Transient."""
    question = question_of(name)
    try:
        answer = question.answer(wait_seconds=wait_seconds)
    except CommandFailed as error:
        raise _unreadable(name, error.stderr.strip().rpartition("\n")[2]) from error
    if answer is None:
        question.drop()
        raise unresponsive(name)
    return parsed(name, answer)


def parsed(name: str, answer: str) -> Superblock:
    """The superblock in the answer of such a process; raises Unfit without one."""
    fields = json.loads(answer)
    if not fields:
        raise _unreadable(name, "it has no superblock")
    return Superblock(**fields)


def unresponsive(name: str) -> Transient:
    """A device of which nothing can be read now."""
    return Transient(
        f"{name} does not respond",
        hint="see `dmesg`, and the volume's status in EC2",
        cause=Cause.READING,
    )


def uuid_in_kernel(fd: int) -> str:
    """The UUID of a filesystem as any user may ask for it; empty before Linux 6.9."""
    found = bytearray(_FSUUID2.size)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, found)
    except OSError:
        return ""
    return str(UUID(bytes=_FSUUID2.unpack(found)[1]))


def has_project(fd: int) -> bool:
    """Whether what is made in this folder is of its project, so that statfs(2) shows its quota.

    Sources: fs/ext4/super.c, ext4_statfs_project; fs/xfs/xfs_qm_bhv.c.
    """
    found = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, found)
    except OSError:
        return False
    flags: int = _FSXATTR.unpack(found)[0]
    return bool(flags & _PROJECT_IS_INHERITED)


def bounded_by_quota(path: str, command: str) -> Unfit:
    """The figures of statfs(2) are not those of the filesystem (measured on XFS and 6.1)."""
    return Unfit(
        f"the quota of a project bounds all of {shown(path)}, and hides how full the filesystem is",
        hint=f"take its root out of the project with `{command}`: the folders in it stay",
        cause=Cause.NOT_GROWABLE,
    )


def _unreadable(name: str, why: str) -> EbsAutoscaleError:
    return Unfit(
        f"cannot read the superblock on {name}: {why}",
        hint="run as root; see `dmesg`",
        cause=Cause.DEVICE_UNREADABLE,
    )
