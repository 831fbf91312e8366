"""`init`: from nothing to a watched filesystem; each step is taken only if it is missing."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.checks import denied_actions, refusal_to_enlarge
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import (
    Cause,
    EbsAutoscaleError,
    Reaction,
    Transient,
    Unfit,
    with_hint,
)
from ebs_autoscale.filesystems.btrfs import mkfs
from ebs_autoscale.filesystems.btrfs.scan import present_devices, scan
from ebs_autoscale.filesystems.mounted import require_mountable
from ebs_autoscale.filesystems.one_device import mkfs as one_device_mkfs
from ebs_autoscale.filesystems.sighting import filesystem_at
from ebs_autoscale.host import files, partitions, paths, systemd
from ebs_autoscale.host.fstab import FSTAB, uuid_at
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.paths import escape_path
from ebs_autoscale.model import FilesystemKind, Identity, InitStep, Reading, Volume
from ebs_autoscale.policy import describe_available, misfit_of
from ebs_autoscale.provision import config_file
from ebs_autoscale.provision.existing_device import (
    Candidate,
    inspect,
    inspect_given,
    is_source_of,
    require_no_copy,
)
from ebs_autoscale.provision.first_volume import NoFilesystem, choose_uuid, obtain
from ebs_autoscale.provision.mounting import Mounting, Source, growable_at
from ebs_autoscale.provision.own_volume import OwnVolume, adopt, volume_behind
from ebs_autoscale.resize import MAPPING_PATIENCE_SECONDS, Attached, World, protect
from ebs_autoscale.telemetry import Event, EventKind, Level
from ebs_autoscale.units import format_size
from ebs_autoscale.volumes import Ec2Volumes
from ebs_autoscale.wiring import (
    MountedFilesystem,
    cloud_of,
    filesystem_of,
    remarks_on,
    volumes_behind,
    world_of,
)

_TOOL_TIMEOUT_SECONDS = 60.0

# After these, no run uses the same volume.
_SETTING_ASIDE = {Reaction.SET_ASIDE, Reaction.SET_ASIDE_ONCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What `init` is to set up; the path in `settings.mountpoint` has no symlinks.

    `asked` is the path as it was given, `config_text` what to write if there is no configuration,
    `mode` the permissions of the filesystem's root; None leaves them. `kind` is that of the
    filesystem; None for the one that there is, or else BTRFS.
    """

    settings: config.Settings
    config_path: Path
    size_bytes: int
    asked: str
    config_text: str
    device: str | None = None
    mode: int | None = None
    kind: FilesystemKind | None = None

    @property
    def mountpoint(self) -> str:
        """The path to mount the filesystem on."""
        return self.settings.mountpoint


class Initialisation:
    """Takes each missing step and tells of it; run again after any interruption, it goes on.

    A mounted filesystem is used as it is, whoever created it; the volume of XFS or ext4 is tagged
    as ours, since such a filesystem can grow only with it. What can be refused without
    a change is refused before anything is created. Raises Unfit, Refused, Transient or Stopped.
    """

    def __init__(self, setup: Setup, clock: SystemClock, emit: Callable[[Event], None]) -> None:
        self._setup = setup
        self._clock = clock
        self._emit = emit
        self._mounting = Mounting(setup.settings, setup.asked, clock, self._tell)

    def run(self) -> None:
        """Filesystem, mount, fstab, configuration, service."""
        mountpoint, path = self._setup.mountpoint, self._setup.config_path
        self._mounting.require_trusted_path()
        systemd.require_usable_units(mountpoint=mountpoint, config_path=path)
        if not growable_at(self._setup.mountpoint):
            self._provide_filesystem()
        filesystem = filesystem_of(self._setup.settings, self._clock)
        reading = filesystem.read()
        source = Source.of_reading(reading)
        self._require_kind(reading.kind)
        self._require_only_setup(filesystem.uuid, reading.kind)
        self._warn_of_other_device(source.names)
        if not reading.kind.takes_devices:
            self._mounting.texts(source)
            self._ensure_own_volume(reading)
        self._tell_what_it_is(reading)
        self._mounting.ensure_line(source)
        self._ensure_config()
        self._set_mode(filesystem)
        paths.init_mark(mountpoint).unlink(missing_ok=True)
        self._tell(systemd.enable_service(mountpoint=mountpoint, config_path=path))
        self._tell_who_can_write(filesystem)

    def _provide_filesystem(self) -> None:
        """Find or make the filesystem, and mount it."""
        require_mountable(Path(self._setup.mountpoint))
        candidate = self._given_device() if self._setup.device else self._device_of_volume()
        uuid, name, kind = candidate.filesystem, candidate.name, candidate.kind
        node = Path("/dev", name)
        if candidate.is_formatted:
            if kind.takes_devices:
                # The kernel has to know all devices before it can mount a filesystem.
                scan(timeout_seconds=_TOOL_TIMEOUT_SECONDS)
                _require_all_devices(uuid)
            else:
                one_device_mkfs.finish(node)
            self._tell(f"found {kind} {uuid} on {name}")
        else:
            label = escape_path(self._setup.mountpoint)
            if kind.takes_devices:
                mkfs.make(node, filesystem=uuid, label=label)
            else:
                one_device_mkfs.make(node, kind=kind, filesystem=uuid, label=label)
            self._tell(f"created {kind} {uuid} on {name}", InitStep.FORMAT)
        self._mounting.mount(candidate)

    def _given_device(self) -> Candidate:
        kind = self._setup.kind
        candidate = inspect_given(
            self._setup.device or "",
            self._setup.settings,
            self._clock,
            kind=kind,
            require_usable=self._require_only_setup,
            begun=self._begun if kind and not kind.takes_devices else lambda _: "",
        )
        self._mounting.prepare(Source.of_candidate(candidate))
        if not candidate.kind.takes_devices:
            # Before anything is on it, so that its tags have the UUID (law 4).
            cloud = self._cloud
            self._adopt(volume_behind(candidate.name, cloud), candidate.filesystem, cloud)
        return candidate

    def _begun(self, name: str) -> str:
        """The UUID of a filesystem that an earlier run has tagged the volume for."""
        return volume_behind(name, self._cloud).volume.growth.filesystem

    def _ensure_own_volume(self, reading: Reading) -> None:
        """See that the volume of a filesystem that can grow in no other way is ours, and may grow.

        Whatever can be refused is refused before its tags are written.
        """
        (device,) = reading.devices
        if device.partition and (partition := partitions.partition_of(device.partition)):
            partitions.require_growable(partition)
        cloud = self._cloud
        found = volume_behind(device.name, cloud)
        self._adopt(found, reading.filesystem, cloud)
        if refusal := refusal_to_enlarge(cloud, found.volume):
            what = f"{found.volume.id} cannot be enlarged: {refusal.what}"
            self._tell(with_hint(what, refusal.hint), level=Level.WARNING)

    def _adopt(self, found: OwnVolume, filesystem: str, cloud: Ec2Volumes) -> None:
        if adopt(found, filesystem, cloud):
            self._tell(f"adopted {found.volume.id}: tagged it as a volume of this instance")

    @cached_property
    def _cloud(self) -> Ec2Volumes:
        return cloud_of(self._setup.settings, self._clock)

    def _tell_what_it_is(self, reading: Reading) -> None:
        profile = f", metadata {reading.metadata_profile}" if reading.metadata_profile else ""
        self._tell(
            f"{reading.mountpoint} is {reading.kind} {reading.filesystem}: "
            f"{describe_available(reading)}{profile}"
        )
        for remark in remarks_on(reading, volumes_behind(reading)):
            self._tell(with_hint(remark.sentence, remark.hint), level=Level.WARNING)
        if misfit := misfit_of(self._setup.settings.policy.sizing.method, reading.kind):
            self._tell(misfit.line, level=Level.WARNING)

    def _require_kind(self, kind: FilesystemKind) -> None:
        """Raise Unfit if --filesystem asks for another kind than there is."""
        wanted, point = self._setup.kind, self._setup.mountpoint
        if wanted not in (None, kind):
            raise Unfit(
                f"{point} is {kind}, and --filesystem asks for {wanted}",
                hint="omit --filesystem to use what there is, or choose another mountpoint",
                cause=Cause.OTHER_FILESYSTEM,
            )

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
        kind = self._setup.kind or FilesystemKind.BTRFS
        self._mounting.prepare(Source(kind=kind, filesystem=uuid))
        world = replace(world, filesystem=NoFilesystem(uuid, mountpoint))
        volume, name, _ = self._obtain(world, uuid)
        if volume.size_bytes != self._setup.size_bytes:
            sizes = f"{format_size(volume.size_bytes)}, not {format_size(self._setup.size_bytes)}"
            self._tell(f"{volume.id} has {sizes}", level=Level.WARNING)
        size_bytes = volume.size_bytes
        candidate = inspect(
            name,
            filesystem=uuid,
            kind=self._setup.kind,
            size_bytes=size_bytes,
            clock=self._clock,
        )
        if candidate.filesystem != uuid:
            raise Unfit(
                f"{volume.id} has {candidate.kind} {candidate.filesystem}, not {uuid}",
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
            require_no_copy(
                Candidate(name="a new volume", kind=kind, filesystem=uuid, is_formatted=False)
            )
            self._ensure_config()
            # A new volume may be missing from lists for seconds.
            files.replace(mark, uuid)

        kind = self._setup.kind or FilesystemKind.BTRFS
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

    def _require_only_setup(self, uuid: str, kind: FilesystemKind) -> None:
        """Raise Unfit if the filesystem is set up already at another path.

        Its daemon holds the lock, so that a second one would only be restarted for ever.
        """
        mountpoint, path = self._setup.mountpoint, self._setup.config_path
        table = MountTable()
        ours = table.at(mountpoint)
        for other, point in config_file.others(path):
            there = table.at(point)
            is_twice = ours and there and ours.device == there.device
            if is_twice or filesystem_at(point) == uuid:
                raise Unfit(
                    f"{kind} {uuid} is set up already, on {point} by {other}",
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

    def _set_mode(self, filesystem: MountedFilesystem) -> None:
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

    def _tell_who_can_write(self, filesystem: MountedFilesystem) -> None:
        """Say that the first write of a job may be refused, unless the mode was chosen."""
        if self._setup.mode is not None or filesystem.mountpoint == "/":
            return
        with filesystem.opened() as mount:
            root = os.fstat(mount.fd)
        if root.st_mode & stat.S_IWOTH:
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


def _require_all_devices(filesystem: str) -> None:
    """Raise Unfit unless the kernel knows all devices of the filesystem."""
    present = present_devices(filesystem, timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    if not present.complete:
        raise Unfit(
            f"BTRFS {filesystem} is incomplete: {present.sentence}",
            hint="attach its other volumes; it is never mounted degraded",
            cause=Cause.MISSING_DEVICE,
        )
