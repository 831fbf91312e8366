"""The device for a filesystem: blank, or with a filesystem that may be used; else refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Unfit
from ebs_autoscale.filesystems.btrfs.superblock import (
    is_left_by_mkfs,
    superblock_uuid,
    uuid_left_by_mkfs,
)
from ebs_autoscale.filesystems.copies import copies_in, devices_of
from ebs_autoscale.filesystems.one_device.mkfs import unfinished_on
from ebs_autoscale.filesystems.one_device.superblock import read_superblock
from ebs_autoscale.host import files
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from ebs_autoscale.host.fstab import FSTAB, lines_at
from ebs_autoscale.model import FilesystemKind, GrowthId, Volume
from ebs_autoscale.provision.first_volume import is_made_of, new_uuid
from ebs_autoscale.wiring import cloud_of

# A killed `init` can leave a mkfs.btrfs or mount behind that ends a moment later.
_CLAIM_PATIENCE_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.2
_FINDFS_TIMEOUT_SECONDS = 60.0
# A volume that EBS has stalled for a moment is no reason to refuse.
_COPIES_WAIT_SECONDS = 30.0
_IMDS_PATIENCE_SECONDS = 10.0

_Content = TypeVar("_Content")

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device that may be used: its kernel name, and the filesystem that it has or will have."""

    name: str
    kind: FilesystemKind
    filesystem: str
    is_formatted: bool


def inspect(
    name: str, *, filesystem: str, kind: FilesystemKind | None, size_bytes: int, clock: Clock
) -> Candidate:
    """What is on an unused device: any filesystem that can grow, or nothing.

    What a killed mkfs of `filesystem` has left counts as nothing, but has its kind. Without `kind`
    it is what there is, or else BTRFS. Raises Unfit that names any other content; Transient when
    the device cannot be read.
    """
    deadline = clock.now_seconds() + _CLAIM_PATIENCE_SECONDS
    while True:
        try:
            return _inspected(name, filesystem, kind, size_bytes)
        except Unfit as error:
            if error.cause is not Cause.CLAIMED or clock.now_seconds() > deadline:
                raise
            clock.sleep(_LOOK_EVERY_SECONDS)


def _inspected(
    name: str, filesystem: str, kind: FilesystemKind | None, size_bytes: int
) -> Candidate:
    block_devices = BlockDevices()
    found, left = _read(name, _content_of), _read(name, unfinished_on)
    if left and left[1] != filesystem:
        left = None
    if found or left:
        block_devices.require_unused(name, size_bytes=size_bytes)
    else:
        is_leftover = partial(is_left_by_mkfs, filesystem=filesystem)
        block_devices.require_blank(name, size_bytes=size_bytes, is_leftover=is_leftover)
    has, uuid = found or left or (kind or FilesystemKind.BTRFS, filesystem)
    if kind not in (None, has):
        is_there = "has" if found else "has unfinished"
        raise Unfit(
            f"{name} {is_there} {has} {uuid}, and --filesystem asks for {kind}",
            hint="omit --filesystem to use what there is, or use another device",
            cause=Cause.NOT_BLANK,
        )
    return Candidate(name=name, kind=has, filesystem=uuid, is_formatted=bool(found))


def _content_of(node: str) -> tuple[FilesystemKind, str] | None:
    """The filesystem on the device, if it is complete and of a kind that can grow."""
    if found := superblock_uuid(node):
        return FilesystemKind.BTRFS, found
    other = read_superblock(node)
    # Without extents it is ext2 or ext3.
    is_usable = other and other.is_complete and other.has_extents
    return (FilesystemKind(other.kind), other.uuid) if other and is_usable else None


def inspect_given(
    device: str,
    settings: Settings,
    clock: SystemClock,
    *,
    kind: FilesystemKind | None,
    require_usable: Callable[[str, FilesystemKind], None],
    begun: Callable[[str], str],
) -> Candidate:
    """The device that the operator named, if it is blank or its filesystem is ours.

    A filesystem is ours if it has a UUID that we have made for this device here, if fstab mounts it
    at this mountpoint, or if the tags of its volume say so, also those of the older script. EC2
    is asked only for the tags. `begun` says with which UUID an earlier run has tagged the volume of
    a blank device. Raises Unfit that says what was found, or what `require_usable` raises about its
    UUID, which comes first.
    """
    block_devices = BlockDevices()
    name = block_devices.name_of(device)
    # A device without serial number has nothing that tells it from the next one under its name:
    # so part of the UUID is random, and what a killed mkfs left keeps its UUID.
    parts = (_machine_id(), block_devices.serial_of(name), settings.mountpoint)
    unfinished = _read(name, unfinished_on)
    left = unfinished[1] if unfinished else _read(name, uuid_left_by_mkfs) or begun(name)
    uuid = left if is_made_of(left, *parts) else new_uuid(*parts)
    size_bytes = block_devices.size_of(name)
    candidate = inspect(name, filesystem=uuid, kind=kind, size_bytes=size_bytes, clock=clock)
    require_no_copy(candidate)
    require_usable(candidate.filesystem, candidate.kind)
    if not candidate.is_formatted or is_made_of(candidate.filesystem, *parts):
        return candidate
    if _is_in_fstab(candidate, settings.mountpoint):
        return candidate
    if doubt := _doubt_by_tags(candidate, settings, clock):
        raise Unfit(
            f"{device} has another {candidate.kind} filesystem, UUID {candidate.filesystem}: "
            f"{doubt}",
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


def _read(name: str, reader: Callable[[str], _Content]) -> _Content:
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
