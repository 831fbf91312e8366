"""The mountpoint of `init`: what is mounted there, its line in fstab, and the mount by it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Unfit
from ebs_autoscale.filesystems.copies import NEW_UUID
from ebs_autoscale.filesystems.mounted import trigger_automount
from ebs_autoscale.host import files, paths, systemd
from ebs_autoscale.host.command import run
from ebs_autoscale.host.fstab import FSTAB, lines_at, with_line
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.host.trusted_path import trusted_path
from ebs_autoscale.model import FilesystemKind, InitStep, Reading
from ebs_autoscale.provision.existing_device import Candidate, is_source_of
from ebs_autoscale.wiring import filesystem_of

# A mount with a log to replay takes seconds.
_MOUNT_TIMEOUT_SECONDS = 120.0
_TOOL_TIMEOUT_SECONDS = 60.0


class Tell(Protocol):
    """Tells what was done, and which step of `init` it was."""

    def __call__(self, sentence: str, step: InitStep | None = None) -> None:
        """Tell it."""


def growable_at(path: str) -> Mount | None:
    """What is mounted at this path, None for nothing; raises Unfit for a kind that cannot grow."""
    table = MountTable()
    trigger_automount(table, path)
    mount = table.at(path)
    kinds = [kind.value for kind in FilesystemKind]
    if mount and mount.kind not in kinds:
        raise Unfit(
            f"{path} is {mount.kind} ({mount.source}), not one of {', '.join(kinds)}",
            hint="choose another mountpoint, or unmount it",
            cause=Cause.NOT_BTRFS,
        )
    return mount


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A filesystem that is or will be mounted, and the kernel names of what it is on."""

    kind: FilesystemKind
    filesystem: str
    names: frozenset[str] = frozenset()

    @classmethod
    def of_candidate(cls, candidate: Candidate) -> Self:
        """That on an unused device."""
        names = frozenset({candidate.name})
        return cls(kind=candidate.kind, filesystem=candidate.filesystem, names=names)

    @classmethod
    def of_reading(cls, reading: Reading) -> Self:
        """That which is mounted, on whole devices or on a partition."""
        names = frozenset(device.partition or device.name for device in reading.devices)
        return cls(kind=reading.kind, filesystem=reading.filesystem, names=names)


class Mounting:
    """Where `init` mounts: `asked` is the path as it was given, `settings` have it without links.

    Every method raises Unfit.
    """

    def __init__(self, settings: Settings, asked: str, clock: SystemClock, tell: Tell) -> None:
        self._settings, self._asked, self._clock, self._tell = settings, asked, clock, tell
        self.point = settings.mountpoint

    def prepare(self, source: Source) -> None:
        """Refuse what contradicts fstab, and make the folder, before a volume is created."""
        self.texts(source)
        try:
            Path(self.point).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot create the directory {self.point}: {error.strerror}"
            raise Unfit(what, cause=Cause.MOUNTPOINT) from error

    def texts(self, source: Source) -> tuple[str, str]:
        """What fstab is and has to be; raises Unfit if it mounts something else here.

        A line that mounts XFS or ext4 is left as it is, since it is the distribution's or the
        operator's. The root filesystem needs none.
        """
        before = files.read_text(FSTAB)
        after = with_line(
            before,
            uuid=source.filesystem,
            mountpoint=self.point,
            is_same=lambda found: is_source_of(found, source.names),
            is_mounted=growable_at(self.point) is not None,
            kind=source.kind,
        )
        is_kept = self.point == "/" or lines_at(before, self.point)
        return before, before if is_kept and not source.kind.takes_devices else after

    def ensure_line(self, source: Source) -> None:
        """Have fstab mount it here."""
        before, after = self.texts(source)
        if before == after:
            return
        replaced = sorted(set(before.split("\n")) - set(after.split("\n")))
        if not replaced:
            self._require_no_partial_mount()
        files.replace(FSTAB, after)
        instead = f" instead of `{'`, `'.join(replaced)}`" if replaced else ""
        self._tell(f"{FSTAB} mounts {self.point} by UUID{instead}", InitStep.FSTAB)

    def mount(self, candidate: Candidate) -> None:
        """Mount it by the line that fstab is to have, verify what is mounted, write the line.

        So the mount rehearses the one at boot, and a line that mounts anything else is not written.
        """
        source = Source.of_candidate(candidate)
        _, table = self.texts(source)
        # Otherwise systemd, which still goes by an older line, may unmount it again.
        systemd.reload_units()
        self.require_trusted_path()
        try:
            self._mount_by(table)
        except CommandFailed as error:
            # The mount of a killed run, or systemd's own, may have been faster.
            if not growable_at(self.point):
                raise Unfit(
                    f"cannot mount {candidate.name}: {error}",
                    hint="see dmesg; once that is fixed, run `init` again: it continues from here",
                    cause=Cause.MOUNT,
                ) from error
        try:
            self._verify_mounted(candidate)
        except EbsAutoscaleError:
            with suppress(EbsAutoscaleError):
                run(["umount", self.point], timeout_seconds=_TOOL_TIMEOUT_SECONDS)
            raise
        self._tell(f"mounted {candidate.name} on {self.point}", InitStep.MOUNT)
        self.ensure_line(source)

    def require_trusted_path(self) -> None:
        """Raise Unfit if others could have the path lead elsewhere, now or at a boot."""
        if (found := trusted_path(self._asked)) != self.point:
            raise Unfit(
                f"{self._asked} now leads to {found}, not to {self.point}",
                hint="run `init` again",
                cause=Cause.MOUNTPOINT,
            )

    def _mount_by(self, table: str) -> None:
        """Mount as this text of fstab says."""
        proposed = paths.proposed_fstab()
        files.replace(proposed, table)
        try:
            argv = ["mount", "--fstab", str(proposed), self.point]
            run(argv, timeout_seconds=_MOUNT_TIMEOUT_SECONDS)
        finally:
            proposed.unlink(missing_ok=True)

    def _verify_mounted(self, candidate: Candidate) -> None:
        """Raise Unfit unless this device, with this UUID, is what is mounted at this path."""
        self.require_trusted_path()
        filesystem = filesystem_of(self._settings, self._clock)
        if filesystem.uuid != candidate.filesystem:
            raise Unfit(
                f"{self.point} is the filesystem {filesystem.uuid}, not {candidate.filesystem}",
                hint="check whether a copy of the volume is attached to this host",
                cause=Cause.OTHER_FILESYSTEM,
            )
        reading = filesystem.read()
        if not reading.has_device(candidate.name):
            names = ", ".join(device.name for device in reading.devices)
            raise Unfit(
                f"{self.point} is mounted from {names}, not from {candidate.name}, which has the "
                "same UUID",
                hint=f"detach the copy, or, while it is not mounted, give it a UUID of its own "
                f"with `{NEW_UUID[candidate.kind]}`",
                cause=Cause.COPY,
            )

    def _require_no_partial_mount(self) -> None:
        """Raise Unfit if a subfolder or subvolume is mounted: our line would mount all of it."""
        mount = MountTable().at(self.point)
        if mount and mount.root != "/":
            raise Unfit(
                f"{self.point} shows only {mount.root} of its filesystem, and {FSTAB} has no line "
                "for it",
                hint="add that line (by UUID, with subvol=... or bind) and run `init` again",
                cause=Cause.FSTAB,
            )
