"""`init`: from nothing to a watched filesystem; each step is taken only if it is missing."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import (
    Cause,
    CommandFailed,
    EbsAutoscaleError,
    Reaction,
    Transient,
    Unfit,
    with_hint,
)
from ebs_autoscale.filesystems.btrfs import mkfs
from ebs_autoscale.filesystems.btrfs.scan import present_devices, scan
from ebs_autoscale.filesystems.mounted import require_mountable, trigger_automount
from ebs_autoscale.filesystems.sighting import filesystem_at
from ebs_autoscale.host import files, paths, systemd
from ebs_autoscale.host.command import run
from ebs_autoscale.host.fstab import FSTAB, uuid_at, with_line
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.host.paths import escape_path
from ebs_autoscale.host.trusted_path import trusted_path
from ebs_autoscale.model import Identity, InitStep, Volume
from ebs_autoscale.policy import describe_available
from ebs_autoscale.provision import config_file
from ebs_autoscale.provision.existing_device import (
    Candidate,
    inspect,
    inspect_given,
    is_source_of,
    require_no_copy,
)
from ebs_autoscale.provision.first_volume import NoFilesystem, choose_uuid, obtain
from ebs_autoscale.resize import MAPPING_PATIENCE_SECONDS, Attached, World, protect
from ebs_autoscale.telemetry import Event, EventKind, Level
from ebs_autoscale.units import format_size
from ebs_autoscale.wiring import cloud_of, remarks_on, volumes_behind, world_of

# A mount with a log to replay takes seconds.
_MOUNT_TIMEOUT_SECONDS = 120.0
_TOOL_TIMEOUT_SECONDS = 60.0

# After these, no run uses the same volume.
_SETTING_ASIDE = {Reaction.SET_ASIDE, Reaction.SET_ASIDE_ONCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What `init` is to set up; the path in `settings.mountpoint` has no symlinks.

    `asked` is the path as it was given, `config_text` what to write if there is no configuration,
    `mode` the permissions of the filesystem's root; None leaves them.
    """

    settings: config.Settings
    config_path: Path
    size_bytes: int
    asked: str
    config_text: str
    device: str | None = None
    mode: int | None = None

    @property
    def mountpoint(self) -> str:
        """The path to mount the filesystem on."""
        return self.settings.mountpoint


class Initialisation:
    """Takes each missing step and tells of it; run again after any interruption, it goes on.

    A mounted BTRFS filesystem is used as it is, whoever created it. What can be refused without
    a change is refused before anything is created. Raises Unfit, Refused, Transient or Stopped.
    """

    def __init__(self, setup: Setup, clock: SystemClock, emit: Callable[[Event], None]) -> None:
        self._setup = setup
        self._clock = clock
        self._emit = emit

    def run(self) -> None:
        """Filesystem, mount, fstab, configuration, service."""
        mountpoint, path = self._setup.mountpoint, self._setup.config_path
        self._require_trusted_path()
        systemd.require_usable_units(mountpoint=mountpoint, config_path=path)
        if not btrfs_at(mountpoint):
            self._provide_filesystem()
        filesystem = BtrfsFilesystem(mountpoint, clock=self._clock)
        reading = filesystem.read()
        self._require_only_setup(filesystem.uuid)
        self._tell(
            f"{reading.mountpoint} is BTRFS {filesystem.uuid}: {describe_available(reading)}, "
            f"metadata {reading.metadata_profile}"
        )
        for remark in remarks_on(reading, volumes_behind(reading)):
            self._tell(with_hint(remark.sentence, remark.hint), level=Level.WARNING)
        names = frozenset(device.name for device in reading.devices)
        self._warn_of_other_device(names)
        self._ensure_fstab(filesystem.uuid, names)
        self._ensure_config()
        self._set_mode(filesystem)
        paths.init_mark(mountpoint).unlink(missing_ok=True)
        self._tell(systemd.enable_service(mountpoint=mountpoint, config_path=path))
        self._tell_who_can_write(filesystem)

    def _provide_filesystem(self) -> None:
        """Find or make the filesystem, and mount it."""
        require_mountable(Path(self._setup.mountpoint))
        candidate = self._given_device() if self._setup.device else self._device_of_volume()
        uuid, name = candidate.filesystem, candidate.name
        if candidate.is_formatted:
            # The kernel has to know all devices before it can mount a filesystem.
            scan(timeout_seconds=_TOOL_TIMEOUT_SECONDS)
            _require_all_devices(uuid)
            self._tell(f"found BTRFS {uuid} on {name}")
        else:
            label = escape_path(self._setup.mountpoint)
            mkfs.make(Path("/dev", name), filesystem=uuid, label=label)
            self._tell(f"created BTRFS {uuid} on {name}", InitStep.FORMAT)
        self._mount(candidate)

    def _given_device(self) -> Candidate:
        candidate = inspect_given(
            self._setup.device or "",
            self._setup.settings,
            self._clock,
            require_usable=self._require_only_setup,
        )
        self._prepare_mountpoint(candidate.filesystem, frozenset({candidate.name}))
        return candidate

    def _device_of_volume(self) -> Candidate:
        from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- not needed with --device

        settings = self._setup.settings
        identity = Imds(self._clock).identity()
        nothing_yet = NoFilesystem("", self._setup.mountpoint)
        world = world_of(settings, nothing_yet, self._clock, self._emit, identity)
        try:
            return self._candidate_of(world, identity)
        except EbsAutoscaleError as error:
            if error.cause is Cause.DENIED:
                self._name_denials(error, identity)
            raise

    def _name_denials(self, error: EbsAutoscaleError, identity: Identity) -> None:
        """Say what else the role lacks, so that it is corrected once."""
        from ebs_autoscale.checks import denied_actions  # noqa: PLC0415 -- not needed with --device

        settings, path = self._setup.settings, self._setup.config_path
        cloud = cloud_of(settings, self._clock, identity)
        others = [each for each in denied_actions(cloud, settings) if each not in error.what]
        if others:
            error.what += f"; denied as well: {', '.join(others)}"
            by = "" if path == paths.CONFIG_DEFAULT else f"--config {path} "
            check = f"{by}check {settings.mountpoint}"
            error.hint += f"; `ebs-autoscale {check}` prints all statements to add"

    def _candidate_of(self, world: World, identity: Identity) -> Candidate:
        mountpoint = self._setup.mountpoint
        known = [files.read_text(paths.init_mark(mountpoint))]
        known += [uuid_at(files.read_text(FSTAB), mountpoint)]
        owned = world.cloud.owned()
        uuid = choose_uuid(known, owned, owner=identity.owner, mountpoint=mountpoint)
        self._prepare_mountpoint(uuid, frozenset())
        world = replace(world, filesystem=NoFilesystem(uuid, mountpoint))
        volume, name, _ = self._obtain(world, uuid)
        if volume.size_bytes != self._setup.size_bytes:
            sizes = f"{format_size(volume.size_bytes)}, not {format_size(self._setup.size_bytes)}"
            self._tell(f"{volume.id} has {sizes}", level=Level.WARNING)
        size_bytes = volume.size_bytes
        candidate = inspect(name, filesystem=uuid, size_bytes=size_bytes, clock=self._clock)
        if candidate.filesystem != uuid:
            raise Unfit(
                f"{volume.id} has a btrfs filesystem, UUID {candidate.filesystem}, not {uuid}",
                hint=f"inspect /dev/{name}; it is never overwritten",
                cause=Cause.NOT_BLANK,
            )
        require_no_copy(candidate)
        # Now it is known that nothing else is on it.
        protect(volume, world, patience_seconds=MAPPING_PATIENCE_SECONDS)
        return candidate

    def _obtain(self, world: World, uuid: str) -> Attached:
        """The volume, and before there is one that costs money, the configuration.

        With that, `status` and `uninstall` know of an `init` that died.
        """

        def before_create() -> None:
            require_no_copy(Candidate(name="a new volume", filesystem=uuid, is_formatted=False))
            self._ensure_config()
            # A new volume may be missing from lists for seconds.
            files.replace(mark, uuid)

        path, settings = self._setup.config_path, self._setup.settings
        mark = paths.init_mark(settings.mountpoint)
        existed = config.exists(path)
        try:
            return obtain(
                world, settings.policy, self._setup.size_bytes, before_create=before_create
            )
        except EbsAutoscaleError as error:
            volumes = _volumes_despite(error, world, uuid)
            if volumes and error.cause.reaction not in _SETTING_ASIDE:
                size = format_size(volumes[0].size_bytes)
                uses = f"{volumes[0].id} ({size}) exists: `init` uses it when it is run again"
                error.hint = f"{error.hint}; {uses}" if error.hint else uses
            # After a transient one the call may have had its effect.
            if volumes == [] and not existed and not isinstance(error, Transient):
                path.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)
            raise

    def _prepare_mountpoint(self, uuid: str, names: frozenset[str]) -> None:
        """Refuse what contradicts fstab, and make the folder, before a volume is created."""
        self._fstab_texts(uuid, names)
        try:
            Path(self._setup.mountpoint).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot create the directory {self._setup.mountpoint}: {error.strerror}"
            raise Unfit(what, cause=Cause.MOUNTPOINT) from error

    def _fstab_texts(self, uuid: str, names: frozenset[str]) -> tuple[str, str]:
        """What fstab is and has to be; raises Unfit if it mounts something else here."""
        before = files.read_text(FSTAB)
        after = with_line(
            before,
            uuid=uuid,
            mountpoint=self._setup.mountpoint,
            is_same=lambda source: is_source_of(source, names),
            is_mounted=btrfs_at(self._setup.mountpoint) is not None,
        )
        return before, after

    def _ensure_fstab(self, uuid: str, names: frozenset[str]) -> None:
        before, after = self._fstab_texts(uuid, names)
        if before == after:
            return
        replaced = sorted(set(before.split("\n")) - set(after.split("\n")))
        if not replaced:
            _require_no_partial_mount(self._setup.mountpoint)
        files.replace(FSTAB, after)
        instead = f" instead of `{'`, `'.join(replaced)}`" if replaced else ""
        self._tell(f"{FSTAB} mounts {self._setup.mountpoint} by UUID{instead}", InitStep.FSTAB)

    def _mount(self, candidate: Candidate) -> None:
        """Mount it by the line that fstab is to have, verify what is mounted, write the line.

        So the mount rehearses the one at boot, and a line that mounts anything else is not written.
        """
        mountpoint = self._setup.mountpoint
        _, table = self._fstab_texts(candidate.filesystem, frozenset({candidate.name}))
        # Otherwise systemd, which still goes by an older line, may unmount it again.
        systemd.reload_units()
        self._require_trusted_path()
        try:
            self._mount_by(table)
        except CommandFailed as error:
            # The mount of a killed run, or systemd's own, may have been faster.
            if not btrfs_at(mountpoint):
                raise Unfit(
                    f"cannot mount {candidate.name}: {error}",
                    hint="see dmesg; once that is fixed, run `init` again: it continues from here",
                    cause=Cause.MOUNT,
                ) from error
        try:
            self._verify_mounted(candidate)
        except EbsAutoscaleError:
            with suppress(EbsAutoscaleError):
                run(["umount", mountpoint], timeout_seconds=_TOOL_TIMEOUT_SECONDS)
            raise
        self._tell(f"mounted {candidate.name} on {mountpoint}", InitStep.MOUNT)
        self._ensure_fstab(candidate.filesystem, frozenset({candidate.name}))

    def _mount_by(self, table: str) -> None:
        """Mount as this text of fstab says."""
        proposed = paths.proposed_fstab()
        files.replace(proposed, table)
        try:
            argv = ["mount", "--fstab", str(proposed), self._setup.mountpoint]
            run(argv, timeout_seconds=_MOUNT_TIMEOUT_SECONDS)
        finally:
            proposed.unlink(missing_ok=True)

    def _verify_mounted(self, candidate: Candidate) -> None:
        """Raise Unfit unless this device, with this UUID, is what is mounted at this path."""
        mountpoint = self._setup.mountpoint
        self._require_trusted_path()
        filesystem = BtrfsFilesystem(mountpoint, clock=self._clock)
        if filesystem.uuid != candidate.filesystem:
            raise Unfit(
                f"{mountpoint} is BTRFS {filesystem.uuid}, not {candidate.filesystem}",
                hint="check whether a copy of the volume is attached to this host",
                cause=Cause.OTHER_FILESYSTEM,
            )
        reading = filesystem.read()
        if not reading.has_device(candidate.name):
            names = ", ".join(device.name for device in reading.devices)
            raise Unfit(
                f"{mountpoint} is mounted from {names}, not from {candidate.name}, which has the "
                "same UUID",
                hint="detach the copy, or, while it is not mounted, give it a UUID of its own "
                "with `btrfstune -m`",
                cause=Cause.COPY,
            )

    def _require_trusted_path(self) -> None:
        """Raise Unfit if others could have the path lead elsewhere, now or at a boot."""
        if (found := trusted_path(self._setup.asked)) != self._setup.mountpoint:
            raise Unfit(
                f"{self._setup.asked} now leads to {found}, not to {self._setup.mountpoint}",
                hint="run `init` again",
                cause=Cause.MOUNTPOINT,
            )

    def _require_only_setup(self, uuid: str) -> None:
        """Raise Unfit if the filesystem is set up already at another path.

        Its daemon holds the lock, so that a second one would only be restarted for ever.
        """
        mountpoint, path = self._setup.mountpoint, self._setup.config_path
        for other, point in config_file.others(path):
            if filesystem_at(point) == uuid:
                raise Unfit(
                    f"BTRFS {uuid} is set up already, on {point} by {other}",
                    hint=f"use {point}; to move the setup, run `ebs-autoscale --config {other} "
                    f"uninstall`, mount it on {mountpoint} instead, and run `init` again: data and "
                    "volumes stay",
                    cause=Cause.OTHER_SETUP,
                )

    def _warn_of_other_device(self, names: frozenset[str]) -> None:
        """When the filesystem was mounted already, --device may name any other device."""
        device = self._setup.device
        if device and not is_source_of(device, names):
            what = f"{device} is not a device of this filesystem and was not touched"
            self._tell(what, level=Level.WARNING)

    def _ensure_config(self) -> None:
        path = self._setup.config_path
        if path.exists():
            self._tell(f"{path} exists and was not changed")
            return
        files.create(path, self._setup.config_text)
        self._tell(f"wrote {path}", InitStep.CONFIGURE)

    def _set_mode(self, filesystem: BtrfsFilesystem) -> None:
        """Set it on the filesystem, where it survives a boot, and not on the mountpoint below."""
        wanted = self._setup.mode
        if wanted is None:
            return
        with filesystem.opened() as mount:
            before = stat.S_IMODE(os.fstat(mount.fd).st_mode)
            try:
                os.fchmod(mount.fd, wanted)
            except OSError as error:
                what = f"cannot set the mode of {filesystem.mountpoint}: {error.strerror}"
                raise Unfit(what, cause=Cause.MOUNTPOINT) from error
        became = "" if before == wanted else f", was {before:04o}"
        self._tell(f"mode of {filesystem.mountpoint}: {wanted:04o}{became}")

    def _tell_who_can_write(self, filesystem: BtrfsFilesystem) -> None:
        """Say that the first write of a job may be refused, unless the mode was chosen."""
        with filesystem.opened() as mount:
            root = os.fstat(mount.fd)
        if self._setup.mode is not None or root.st_mode & stat.S_IWOTH:
            return
        point, path = filesystem.mountpoint, self._setup.config_path
        by = "" if path == paths.CONFIG_DEFAULT else f"--config {path} "
        self._tell(
            f"not every user can write to {point} (mode {stat.S_IMODE(root.st_mode):04o}): if jobs "
            f"of other users are to, run `ebs-autoscale {by}init {point} --mode 1777`"
        )

    def _tell(self, sentence: str, step: InitStep | None = None, level: Level = Level.INFO) -> None:
        kind = EventKind.STEP_DONE if step else EventKind.TENDED
        self._emit(Event(kind=kind, sentence=sentence, step=step, level=level))


def _volumes_despite(error: EbsAutoscaleError, world: World, uuid: str) -> list[Volume] | None:
    """The volumes of the filesystem after an error; None when that is not known."""
    if error.cause in {Cause.EC2_UNREACHABLE, Cause.THROTTLED, Cause.EC2_ERROR}:
        # To ask again would take as long again.
        return None
    try:
        owned = world.cloud.owned()
    except EbsAutoscaleError:
        return None
    return [volume for volume in owned if volume.growth.filesystem == uuid]


def btrfs_at(path: str) -> Mount | None:
    """The mount of BTRFS at this path; raises Unfit if another kind of filesystem is mounted."""
    table = MountTable()
    trigger_automount(table, path)
    mount = table.at(path)
    if mount and mount.kind != "btrfs":
        raise Unfit(
            f"{path} is {mount.kind} ({mount.source}), not BTRFS",
            hint="choose another mountpoint, or unmount it",
            cause=Cause.NOT_BTRFS,
        )
    return mount


def _require_no_partial_mount(path: str) -> None:
    """Raise Unfit if a subfolder or subvolume is mounted: our line would mount all of it."""
    mount = MountTable().at(path)
    if mount and mount.root != "/":
        raise Unfit(
            f"{path} shows only {mount.root} of its filesystem, and {FSTAB} has no line for it",
            hint="add that line (by UUID, with subvol=... or bind) and run `init` again",
            cause=Cause.FSTAB,
        )


def _require_all_devices(filesystem: str) -> None:
    """Raise Unfit unless the kernel knows all devices of the filesystem."""
    present = present_devices(filesystem, timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    if not present.complete:
        raise Unfit(
            f"BTRFS {filesystem} is incomplete: {present.sentence}",
            hint="attach its other volumes; it is never mounted degraded",
            cause=Cause.MISSING_DEVICE,
        )
