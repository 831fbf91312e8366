"""From nothing to a watched filesystem: each step is taken only if it is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.filesystems.btrfs import mkfs as formatting
from ebs_autoscale.filesystems.btrfs.scan import present_devices, scan
from ebs_autoscale.host import files, systemd
from ebs_autoscale.host.command import run
from ebs_autoscale.host.fstab import FSTAB, with_line
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.systemd import escape_path
from ebs_autoscale.model import InitStep
from ebs_autoscale.policy import describe_available
from ebs_autoscale.provision import config_file as first_config
from ebs_autoscale.provision.existing_device import Ground, ground_of, judged, leads_to
from ebs_autoscale.provision.first_volume import NoFilesystem, name_of_filesystem, obtain
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.units import format_size
from ebs_autoscale.wiring import world_of

# A mount with a log to replay takes seconds.
_MOUNT_TIMEOUT_SECONDS = 120.0
_TOOL_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What shall be there in the end; `settings.mountpoint` is without symlinks."""

    settings: config.Settings
    config_path: Path
    size_bytes: int
    device: str | None = None

    @property
    def mountpoint(self) -> str:
        """Where."""
        return self.settings.mountpoint


class Initialisation:
    """Takes each step that is missing, and says so; to repeat it after any end is to go on.

    A mounted BTRFS is taken as it is, whoever made it. All that can be refused by looking is
    refused before anything is bought or changed. Raises Unfit, Refused, Transient or Stopped.
    """

    def __init__(self, setup: Setup, clock: SystemClock, emit: Callable[[Event], None]) -> None:
        self._setup = setup
        self._clock = clock
        self._emit = emit

    def run(self) -> None:
        """Filesystem, mount, fstab, configuration, service."""
        path = self._setup.config_path
        systemd.require_usable_units(mountpoint=self._setup.mountpoint, config_path=path)
        if not _is_mounted(self._setup.mountpoint):
            self._bring()
        filesystem = BtrfsFilesystem(self._setup.mountpoint, clock=self._clock)
        reading = filesystem.read()
        profile = f"metadata {reading.metadata_profile}"
        self._tell(
            f"{reading.mountpoint} is BTRFS {filesystem.uuid}: {describe_available(reading)}, {profile}"
        )
        names = frozenset(device.name for device in reading.devices)
        self._note_foreign_device(names)
        self._ensure_line(filesystem.uuid, names)
        self._ensure_config()
        self._tell(systemd.enable_service(mountpoint=self._setup.mountpoint, config_path=path))

    def _bring(self) -> None:
        """Find or make the filesystem, and mount it."""
        require_mountable(Path(self._setup.mountpoint))
        ground = self._given() if self._setup.device else self._bought()
        if ground.is_formatted:
            _require_all_devices(ground)
            self._tell(f"found BTRFS {ground.filesystem} on {ground.name}")
        else:
            node = Path("/dev", ground.name)
            label = escape_path(self._setup.mountpoint)
            formatting.make(node, filesystem=ground.filesystem, label=label)
            self._tell(f"made BTRFS {ground.filesystem} on {ground.name}", InitStep.FORMAT)
        # First the line: the mount then is a rehearsal of the one at boot.
        self._ensure_line(ground.filesystem, frozenset({ground.name}))
        self._mount(ground)

    def _given(self) -> Ground:
        ground = judged(self._setup.device or "", self._setup.settings, self._clock)
        self._prepare(ground.filesystem, frozenset({ground.name}))
        return ground

    def _bought(self) -> Ground:
        from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- not with a device given

        settings, mountpoint = self._setup.settings, self._setup.mountpoint
        identity = Imds(self._clock).identity()
        uuid = name_of_filesystem(identity.owner, mountpoint)
        self._prepare(uuid, frozenset())
        unborn = NoFilesystem(uuid, mountpoint)
        world = world_of(settings, unborn, self._clock, self._emit, identity)
        volume, node = obtain(world, settings.policy, self._setup.size_bytes)
        if volume.size_bytes != self._setup.size_bytes:
            sizes = f"{format_size(volume.size_bytes)}, not {format_size(self._setup.size_bytes)}"
            self._tell(f"{volume.id} has {sizes}", level=Level.WARNING)
        size_bytes = volume.size_bytes
        ground = ground_of(node, filesystem=uuid, size_bytes=size_bytes, clock=self._clock)
        if ground.filesystem != uuid:
            raise Unfit(
                f"{volume.id} carries btrfs, UUID {ground.filesystem}, not {uuid}",
                hint="look what is on it; nothing is ever overwritten",
                cause=Cause.NOT_BLANK,
            )
        return ground

    def _prepare(self, uuid: str, names: frozenset[str]) -> None:
        """Refuse what fstab says otherwise, and make the folder, before anything dear is done."""
        self._table(uuid, names)
        try:
            Path(self._setup.mountpoint).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make the folder {self._setup.mountpoint}: {error.strerror}"
            raise Unfit(what, cause=Cause.MOUNTPOINT) from error

    def _table(self, uuid: str, names: frozenset[str]) -> tuple[str, str]:
        before = files.read_text(FSTAB)
        after = with_line(
            before,
            uuid=uuid,
            mountpoint=self._setup.mountpoint,
            is_same=lambda source: leads_to(source, names),
        )
        return before, after

    def _ensure_line(self, uuid: str, names: frozenset[str]) -> None:
        before, after = self._table(uuid, names)
        if before == after:
            return
        gone = set(before.split("\n")) - set(after.split("\n"))
        if not gone:
            _require_whole_mount(self._setup.mountpoint)
        files.replace(FSTAB, after)
        instead = f" instead of `{'`, `'.join(sorted(gone))}`" if gone else ""
        self._tell(f"{FSTAB} mounts {self._setup.mountpoint} by UUID{instead}", InitStep.FSTAB)

    def _mount(self, ground: Ground) -> None:
        # Else systemd unmounts what it knows from a line that is no more.
        systemd.reload_units()
        try:
            run(["mount", self._setup.mountpoint], timeout_seconds=_MOUNT_TIMEOUT_SECONDS)
        except CommandFailed as error:
            # The mount of a killed run, or systemd's own, may have come first.
            if not _is_mounted(self._setup.mountpoint):
                raise Unfit(
                    f"{ground.name} cannot be mounted: {error}",
                    hint="see dmesg; nothing was undone, so repeat this when it is repaired",
                    cause=Cause.MOUNT,
                ) from error
        found = BtrfsFilesystem(self._setup.mountpoint, clock=self._clock).uuid
        if found != ground.filesystem:
            raise Unfit(
                f"{self._setup.mountpoint} is BTRFS {found}, not {ground.filesystem}",
                hint="is there a copy of the volume on this host?",
                cause=Cause.OTHER_FILESYSTEM,
            )
        self._tell(f"mounted {ground.name} on {self._setup.mountpoint}", InitStep.MOUNT)

    def _note_foreign_device(self, devices: frozenset[str]) -> None:
        """A repetition finds the filesystem mounted; a device named for it may be anything now."""
        if self._setup.device and not leads_to(self._setup.device, devices):
            self._tell(f"{self._setup.device} is not in it, and is left alone", level=Level.WARNING)

    def _ensure_config(self) -> None:
        path = self._setup.config_path
        if path.exists():
            self._tell(f"{path} is there and stays as it is")
            return
        files.create(path, first_config.text_for(self._setup.mountpoint))
        self._tell(f"wrote {path}", InitStep.CONFIGURE)

    def _tell(self, sentence: str, step: InitStep | None = None, level: Level = Level.INFO) -> None:
        kind = EventKind.STEP_DONE if step else EventKind.TENDED
        self._emit(Event(kind=kind, sentence=sentence, step=step, level=level))


def require_mountable(path: Path) -> None:
    """Raise Unfit unless there is nothing, or an empty folder, to mount on."""
    try:
        content = next(path.iterdir(), None)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unfit(
            f"{path} cannot be mounted on: {error.strerror}",
            hint="name an empty folder, or one that does not exist",
            cause=Cause.MOUNTPOINT,
        ) from error
    if content is not None:
        raise Unfit(
            f"{path} is not empty: a mount would hide {content.name!r} and what else is there",
            hint="move it away, or choose another mountpoint",
            cause=Cause.MOUNTPOINT,
        )


def _is_mounted(path: str) -> bool:
    """Whether BTRFS is mounted there; raises Unfit when something else is."""
    mount = MountTable().at(path)
    if mount is None:
        return False
    if mount.kind != "btrfs":
        raise Unfit(
            f"{path} is {mount.kind} ({mount.source}), not BTRFS",
            hint="choose another mountpoint, or unmount it",
            cause=Cause.NOT_BTRFS,
        )
    return True


def _require_whole_mount(path: str) -> None:
    """Raise Unfit when a part is mounted, which a line that says nothing of it would not mount."""
    mount = MountTable().at(path)
    if mount and mount.root != "/":
        raise Unfit(
            f"{path} is only {mount.root} of its filesystem, and no line of {FSTAB} mounts it",
            hint="write that line (by UUID, with subvol=... or bind), and repeat",
            cause=Cause.FSTAB,
        )


def _require_all_devices(ground: Ground) -> None:
    """Have the kernel know every device there is, and raise Unfit unless that makes it whole."""
    scan(timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    present = present_devices(ground.filesystem, timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    if not present.complete:
        raise Unfit(
            f"BTRFS {ground.filesystem} is not whole: {present.sentence}",
            hint="attach its other volumes; it is never mounted degraded",
            cause=Cause.MISSING_DEVICE,
        )
