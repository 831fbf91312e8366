"""The device that a filesystem is, or will be, on: blank, ours, or refused with what was found."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.superblock import is_left_by_mkfs, superblock_uuid
from ebs_autoscale.host import files
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.host.fstab import FSTAB, parse
from ebs_autoscale.model import GrowthId, Volume
from ebs_autoscale.provision.first_volume import name_of_filesystem
from ebs_autoscale.wiring import cloud_of

# A killed `init` can leave a mkfs.btrfs or a mount behind that is through in a moment.
_CLAIM_PATIENCE_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.2
_FINDFS_TIMEOUT_SECONDS = 60.0
_IMDS_PATIENCE_SECONDS = 5.0

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A device that may be used: the filesystem's UUID, the node's kernel name, what is on it."""

    filesystem: str
    name: str
    is_formatted: bool


def ground_of(name: str, *, filesystem: str, size_bytes: int, clock: Clock) -> Ground:
    """What is on an unused device: BTRFS, whosever, or nothing but what `filesystem` may have.

    Raises Unfit for anything else, naming it; Transient when the device cannot be read.
    """
    nodes = BlockDevices()
    is_leftover = partial(is_left_by_mkfs, filesystem=filesystem)
    deadline = clock.now_seconds() + _CLAIM_PATIENCE_SECONDS
    while True:
        try:
            found = _superblock(name)
            if found:
                nodes.require_unused(name, size_bytes=size_bytes)
            else:
                nodes.require_blank(name, size_bytes=size_bytes, is_leftover=is_leftover)
        except Unfit as error:
            if error.cause is not Cause.CLAIMED or clock.now_seconds() > deadline:
                raise
            clock.sleep(_LOOK_EVERY_SECONDS)
        else:
            return Ground(filesystem=found or filesystem, name=name, is_formatted=bool(found))


def judged(device: str, settings: Settings, clock: SystemClock) -> Ground:
    """The device that an operator named, if it is blank or its filesystem is ours.

    A filesystem is ours when it has the name that we would give it here, when the tags of its
    volume say so (also those of an older autoscaler), or when fstab mounts it at this
    mountpoint already. Needs EC2 only to ask for tags. Raises Unfit with what was found.
    """
    nodes = BlockDevices()
    name = nodes.name_of(device)
    # With the device's own serial number: the next device at this mountpoint is another filesystem.
    named = name_of_filesystem(_machine_id(), nodes.serial_of(name), settings.mountpoint)
    size_bytes = nodes.size_of(name)
    ground = ground_of(name, filesystem=named, size_bytes=size_bytes, clock=clock)
    if not ground.is_formatted or ground.filesystem == named:
        return ground
    if _is_in_fstab(ground, settings.mountpoint):
        return ground
    doubt = _why_not_tagged(ground, settings, clock)
    if doubt:
        raise Unfit(
            f"{device} carries btrfs, UUID {ground.filesystem}, which is not ours: {doubt}",
            hint=f"to use it all the same, mount it on {settings.mountpoint} by hand and repeat",
            cause=Cause.NOT_BLANK,
        )
    return ground


def leads_to(source: str, names: frozenset[str]) -> bool:
    """Whether a source of fstab (`/dev/sdf`, `LABEL=x`) is now one of these nodes."""
    if not source.startswith("/"):
        if "=" not in source:
            return False
        try:
            source = run(["findfs", source], timeout_seconds=_FINDFS_TIMEOUT_SECONDS).strip()
        except CommandFailed:
            return False
    return Path(source).resolve().name in names


def _superblock(name: str) -> str:
    try:
        return superblock_uuid(f"/dev/{name}")
    except OSError as error:
        raise Transient(f"cannot read {name}: {error}", cause=Cause.DEVICE_UNREADABLE) from error


def _is_in_fstab(ground: Ground, mountpoint: str) -> bool:
    return any(
        line.uuid == ground.filesystem or leads_to(line.source, frozenset({ground.name}))
        for line in parse(files.read_text(FSTAB))
        if line.mountpoint == mountpoint
    )


def _why_not_tagged(ground: Ground, settings: Settings, clock: SystemClock) -> str:
    """Why the tags of the device's volume do not make it ours; empty when they do."""
    from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- only a filesystem in doubt needs it

    volume_id = BlockDevices().volume_id_of(ground.name)
    if not volume_id:
        return "it is no EBS volume, and fstab does not mount it here"
    try:
        identity = Imds(clock).identity(patience_seconds=_IMDS_PATIENCE_SECONDS)
        cloud = cloud_of(settings, clock, identity)
        seen = cloud.refresh(Volume(id=volume_id, growth=GrowthId("", 0), size_bytes=0, state=""))
        if seen and seen.growth.filesystem == ground.filesystem:
            return ""
        if any(volume.id == volume_id for volume in cloud.predecessors()):
            return ""
    except EbsAutoscaleError as error:
        return f"EC2 does not tell the tags of {volume_id}: {error.what}"
    return f"{volume_id} has no tags of ours, and fstab does not mount it here"


def _machine_id() -> str:
    for path in _MACHINE_IDS:
        found = files.read_text(path).strip()
        if re.fullmatch(r"[0-9a-f]{32}", found):
            return found
    raise Unfit(
        "this machine has no id in /etc/machine-id",
        hint="make one: `systemd-machine-id-setup` or `dbus-uuidgen --ensure=/etc/machine-id`",
        cause=Cause.MACHINE_ID,
    )
