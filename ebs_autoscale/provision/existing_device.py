"""The device for a filesystem: blank, or with a filesystem that may be used; else refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Unfit
from ebs_autoscale.filesystems.btrfs.superblock import (
    is_left_by_mkfs,
    superblock_uuid,
    uuid_left_by_mkfs,
)
from ebs_autoscale.filesystems.copies import copies_in, devices_of
from ebs_autoscale.host import files
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.host.fstab import FSTAB, lines_at
from ebs_autoscale.model import GrowthId, Volume
from ebs_autoscale.provision.first_volume import is_made_of, new_uuid
from ebs_autoscale.wiring import cloud_of

# A killed `init` can leave a mkfs.btrfs or mount behind that ends a moment later.
_CLAIM_PATIENCE_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.2
_FINDFS_TIMEOUT_SECONDS = 60.0
# A volume that EBS has stalled for a moment is no reason to refuse.
_COPIES_WAIT_SECONDS = 30.0
_IMDS_PATIENCE_SECONDS = 10.0

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device that may be used: its kernel name, and the UUID its filesystem has or will have."""

    name: str
    filesystem: str
    is_formatted: bool


def inspect(name: str, *, filesystem: str, size_bytes: int, clock: Clock) -> Candidate:
    """What is on an unused device: any BTRFS filesystem, or nothing.

    What a killed mkfs.btrfs of `filesystem` has left counts as nothing. Raises Unfit that names
    any other content; Transient when the device cannot be read.
    """
    block_devices = BlockDevices()
    is_leftover = partial(is_left_by_mkfs, filesystem=filesystem)
    deadline = clock.now_seconds() + _CLAIM_PATIENCE_SECONDS
    while True:
        try:
            found = _read(name, superblock_uuid)
            if found:
                block_devices.require_unused(name, size_bytes=size_bytes)
            else:
                block_devices.require_blank(name, size_bytes=size_bytes, is_leftover=is_leftover)
        except Unfit as error:
            if error.cause is not Cause.CLAIMED or clock.now_seconds() > deadline:
                raise
            clock.sleep(_LOOK_EVERY_SECONDS)
        else:
            return Candidate(name=name, filesystem=found or filesystem, is_formatted=bool(found))


def inspect_given(
    device: str,
    settings: Settings,
    clock: SystemClock,
    *,
    require_usable: Callable[[str], None],
) -> Candidate:
    """The device that the operator named, if it is blank or its filesystem is ours.

    A filesystem is ours if it has a UUID that we have made for this device here, if fstab mounts it
    at this mountpoint, or if the tags of its volume say so, also those of the older script. EC2
    is asked only for the tags. Raises Unfit that says what was found, or what `require_usable`
    raises about its UUID, which comes first.
    """
    block_devices = BlockDevices()
    name = block_devices.name_of(device)
    # A device without serial number has nothing that tells it from the next one under its name:
    # so part of the UUID is random, and what a killed mkfs.btrfs left keeps its UUID.
    parts = (_machine_id(), block_devices.serial_of(name), settings.mountpoint)
    left = _read(name, uuid_left_by_mkfs)
    uuid = left if left and is_made_of(left, *parts) else new_uuid(*parts)
    size_bytes = block_devices.size_of(name)
    candidate = inspect(name, filesystem=uuid, size_bytes=size_bytes, clock=clock)
    require_no_copy(candidate)
    require_usable(candidate.filesystem)
    if not candidate.is_formatted or is_made_of(candidate.filesystem, *parts):
        return candidate
    if _is_in_fstab(candidate, settings.mountpoint):
        return candidate
    if doubt := _doubt_by_tags(candidate, settings, clock):
        raise Unfit(
            f"{device} has another BTRFS filesystem, UUID {candidate.filesystem}: {doubt}",
            hint=f"to use it anyway, mount it on {settings.mountpoint} and run `init` again",
            cause=Cause.NOT_BLANK,
        )
    return candidate


def require_no_copy(candidate: Candidate) -> None:
    """Raise Unfit if another block device has the UUID, and is not another device of it."""
    found = devices_of(candidate.filesystem, wait_seconds=_COPIES_WAIT_SECONDS)
    if candidate.is_formatted:
        for copy in copies_in(found, candidate.filesystem):
            raise Unfit(copy.problem.sentence, hint=copy.problem.hint, cause=Cause.COPY)
        return
    for name in found:
        raise Unfit(
            f"{name} already has the UUID {candidate.filesystem}, which {candidate.name} would get",
            hint=f"to use it, run `init` again with `--device /dev/{name}`; otherwise detach it",
            cause=Cause.COPY,
        )


def is_source_of(source: str, names: frozenset[str]) -> bool:
    """Whether a source in fstab (`/dev/sdf`, `LABEL=x`) is one of these kernel names now."""
    if not source.startswith("/"):
        if "=" not in source:
            return False
        try:
            source = run(["findfs", source], timeout_seconds=_FINDFS_TIMEOUT_SECONDS).strip()
        except CommandFailed:
            return False
    return Path(source).resolve().name in names


def _read(name: str, reader: Callable[[str], str]) -> str:
    try:
        return reader(f"/dev/{name}")
    except OSError as error:
        raise Unfit(f"cannot read {name}: {error}", cause=Cause.DEVICE_UNREADABLE) from error


def _is_in_fstab(candidate: Candidate, mountpoint: str) -> bool:
    names = frozenset({candidate.name})
    return any(
        line.uuid == candidate.filesystem or is_source_of(line.source, names)
        for line in lines_at(files.read_text(FSTAB), mountpoint)
    )


def _doubt_by_tags(candidate: Candidate, settings: Settings, clock: SystemClock) -> str:
    """Why the tags of the device's volume do not make it ours; empty if they do."""
    from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- for a doubtful filesystem only

    volume_id = BlockDevices().volume_id_of(candidate.name)
    if not volume_id:
        return "the device is not an EBS volume, and fstab does not mount it here"
    try:
        identity = Imds(clock).identity(patience_seconds=_IMDS_PATIENCE_SECONDS)
        cloud = cloud_of(settings, clock, identity)
        unknown = Volume(id=volume_id, growth=GrowthId("", 0), size_bytes=0, state="")
        tagged = cloud.refresh(unknown)
        if tagged and tagged.growth.filesystem == candidate.filesystem:
            return ""
        if any(volume.id == volume_id for volume in cloud.predecessors()):
            return ""
    except EbsAutoscaleError as error:
        return f"cannot read the tags of {volume_id}: {error.what}"
    return f"{volume_id} does not have our tags, and fstab does not mount it here"


def _machine_id() -> str:
    for path in _MACHINE_IDS:
        found = files.read_text(path).strip()
        if re.fullmatch(r"[0-9a-f]{32}", found):
            return found
    raise Unfit(
        "this machine has no ID in /etc/machine-id",
        hint="run `systemd-machine-id-setup` or `dbus-uuidgen --ensure=/etc/machine-id`",
        cause=Cause.MACHINE_ID,
    )
