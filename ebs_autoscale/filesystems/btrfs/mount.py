"""The proof that a path is the BTRFS filesystem we mean, mounted and writable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.btrfs.ioctl import Identity, identity, superblock_uuid
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.mountinfo import Mount, MountTable

_ONLY_BTRFS = "correct `mountpoint` in the configuration, or make one with `ebs-autoscale init`"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMount:
    """A verified mount, for as long as it is held open."""

    fd: int
    identity: Identity


class BtrfsMount:
    """A mountpoint, bound to the filesystem that was mounted there at construction.

    Symlinks are resolved once. Between looks nothing is held open that would keep anybody
    from unmounting it. Raises Unfit whose `cause` is one of: missing, not mounted,
    not btrfs, read-only, other filesystem, unreadable.
    """

    def __init__(self, path: str) -> None:
        try:
            self.path = os.path.realpath(path, strict=True)
        except OSError as error:
            raise _missing(path, error) from error
        self.uuid = ""
        self._table = MountTable()
        self._verified: tuple[Mount, ...] = ()
        with self.opened() as mount:
            self.uuid = mount.identity.uuid

    @contextmanager
    def opened(self) -> Iterator[OpenMount]:
        """Verify the mount and hold it open: BTRFS, this UUID, mounted, read-write (law 6)."""
        self._verify_mounted()
        fd = self._open()
        try:
            yield self._verify_writable(fd)
        finally:
            os.close(fd)

    def verify(self) -> None:
        """Raise Unfit unless the mount is what it has to be."""
        with self.opened():
            pass

    def _verify_mounted(self) -> None:
        mounts = self._table.mounts()
        if mounts is self._verified:
            return
        mount = self._table.at(self.path)
        if mount is None:
            self._explain_unmounted()
        elif mount.kind != "btrfs":
            raise Unfit(
                f"{_shown(self.path)} is {mount.kind} ({mount.source}), not BTRFS",
                hint=_ONLY_BTRFS,
                cause=Cause.NOT_BTRFS,
            )
        self._verified = mounts

    def _explain_unmounted(self) -> None:
        os.close(self._open())
        beneath = self._table.over(self.path)
        raise Unfit(
            f"{_shown(self.path)} is not mounted: a look at it would measure {beneath.kind} "
            f"({beneath.source}), mounted on {beneath.point}",
            hint=f"mount it: `mount {_shown(self.path)}`",
            cause=Cause.NOT_MOUNTED,
        )

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _missing(self.path, error) from error

    def _verify_writable(self, fd: int) -> OpenMount:
        found = identity(fd)
        if found is None:
            raise Unfit(
                f"{_shown(self.path)} is hidden by a filesystem that is not BTRFS",
                hint=f"see what `findmnt --target {_shown(self.path)}` says and unmount it",
                cause=Cause.NOT_BTRFS,
            )
        if self.uuid not in ("", found.uuid):
            raise Unfit(
                f"{_shown(self.path)} is now filesystem {found.uuid}, not {self.uuid}",
                hint="mount the right one again, or restart the service to watch this one",
                cause=Cause.OTHER_FILESYSTEM,
            )
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            raise self._read_only()
        return OpenMount(fd=fd, identity=found)

    def _read_only(self) -> Unfit:
        path = _shown(self.path)
        mount = self._table.at(self.path)
        if mount is None or mount.read_only:
            return Unfit(
                f"{path} is mounted read-only",
                hint=f"`mount -o remount,rw {path}`",
                cause=Cause.READ_ONLY,
            )
        # Mounted read-write, yet read-only: the kernel did that, and refuses a remount
        # (measured on 6.18: remount,rw exits 32).
        way = f"umount {path} && {forgetting(self.uuid)}mount {path}"
        return Unfit(
            f"{path} was forced read-only by the kernel after an error (see dmesg)",
            hint=f"a remount does not help: stop its users, `{way}`",
            cause=Cause.READ_ONLY,
        )


def forgetting(uuid: str) -> str:
    """The command before a mount that makes the kernel forget what never became a device.

    After an add that failed half-way it goes on listing the device, and takes it for the latest:
    "failed to read devices" (measured on 6.18: no mount of 6 without, 6 of 6 with it).
    """
    try:
        nodes = [f"/dev/{path.name}" for path in (SYSFS / uuid / "devices").iterdir()]
        strangers = [node for node in sorted(nodes) if superblock_uuid(node) != uuid]
    except OSError:
        return ""
    return f"btrfs device scan --forget {' '.join(strangers)} && " if strangers else ""


def _missing(path: str, error: OSError) -> Unfit:
    if isinstance(error, FileNotFoundError):
        return Unfit(
            f"{_shown(path)} does not exist",
            hint="create the folder and mount the filesystem there, or correct `mountpoint`",
            cause=Cause.MISSING,
        )
    if isinstance(error, NotADirectoryError):
        return Unfit(f"{_shown(path)} is not a folder", hint=_ONLY_BTRFS, cause=Cause.NOT_MOUNTED)
    if isinstance(error, PermissionError) and os.geteuid() == 0:
        return Unfit(
            f"cannot open {_shown(path)}: only its owner may look into it",
            hint=f"`chmod o+rx {_shown(path)}`, or `systemctl edit ebs-autoscale` and add to "
            "[Service] CapabilityBoundingSet=CAP_DAC_OVERRIDE",
            cause=Cause.UNREADABLE,
        )
    return Unfit(
        f"cannot open {_shown(path)}: {error.strerror}",
        hint="run as root, and see dmesg for errors of the filesystem",
        cause=Cause.UNREADABLE,
    )


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
