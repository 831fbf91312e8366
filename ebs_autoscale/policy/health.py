"""What is wrong with the filesystem itself, and what to do about it. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.model import MIB, Device, FilesystemKind, Reading
from ebs_autoscale.policy.settings import AVAILABLE_MIN_BYTES, Threshold
from ebs_autoscale.units import counted, format_size

# Ordinary writers get ENOSPC with this much metadata free (measured: 3.73 MiB in each case); with
# less data than that any file of some size does.
FULL_BYTES = 4 * MIB

MISSING_DEVICE_HINT = (
    "no volume will be created; unmount it and attach the volume again, or restore the data"
)

NEEDS_DEVICES = frozenset({Cause.MISSING_DEVICE, Cause.DEVICE_ERRORS})
"""The problems that only a look at the devices can find, or find to be over."""

NEEDS_READING = frozenset({Cause.FULL, Cause.QGROUP_LIMIT})
"""The problems that only a reading can find, or find to be over."""

_ERROR_NAMES = (
    ("failed write", "failed writes"),
    ("failed read", "failed reads"),
    ("failed flush", "failed flushes"),
    ("corrupted block", "corrupted blocks"),
    ("generation error", "generation errors"),
)


def missing_device(reading: Reading) -> Problem | None:
    """The devices that the kernel has lost; None while all are present.

    Data with the `single` profile is on them: no new volume can repair that.
    """
    return _missing_device(reading.mountpoint, reading.devices)


def _missing_device(path: str, devices: Iterable[Device]) -> Problem | None:
    lost = [device for device in devices if device.missing]
    if not lost:
        return None
    noun = "device" if len(lost) == 1 else "devices"
    named = (f"{d.devid} ({d.name})" if d.name else str(d.devid) for d in lost)
    what = f"{path} is missing the {noun} with devid {', '.join(named)}"
    return Problem(Cause.MISSING_DEVICE, what, MISSING_DEVICE_HINT)


def problems_of(reading: Reading) -> Iterator[Problem]:
    """Everything that is wrong with a mounted, writable filesystem.

    One that is read-only, unmounted or another one has no reading: see
    `filesystems.btrfs.mount`, and `device_problems` for what is known of it.
    """
    yield from device_problems(reading.mountpoint, reading.devices)
    if what := _full(reading):
        hint = "delete files; `ebs-autoscale status` shows why it does not grow"
        yield Problem(Cause.FULL, what, hint)
    if limited := _nearly_used(reading):
        yield limited


def _nearly_used(reading: Reading) -> Problem | None:
    """The quota, once it leaves less than the default threshold of space and than there is."""
    quota, default = reading.quota, Threshold()
    if quota is None or quota.left_bytes >= reading.available_bytes:
        return None
    enough = quota.limit_bytes * default.available_percent / 100
    if quota.left_bytes >= max(enough, AVAILABLE_MIN_BYTES):
        return None
    return Problem(
        Cause.QGROUP_LIMIT,
        f"the limit of quota group {quota.qgroup}, {format_size(quota.limit_bytes)}, leaves "
        f"{format_size(quota.left_bytes)} of what is available on {reading.mountpoint}: writes "
        "beyond it fail with EDQUOT",
        f"run `btrfs qgroup limit SIZE {quota.qgroup} {reading.mountpoint}` with a larger SIZE, or "
        "delete files; no volume is created for it",
    )


def device_problems(path: str, devices: Sequence[Device]) -> Iterator[Problem]:
    """What is wrong with the devices of the filesystem on this path, read-only or not."""
    if lost := _missing_device(path, devices):
        yield lost
    if failing := [_errors_of(device) for device in devices if any(device.errors)]:
        yield Problem(
            Cause.DEVICE_ERRORS,
            f"{path} has devices with errors: {'; '.join(failing)}",
            f"see dmesg, find the damaged files with `btrfs scrub start {path}`, "
            f"then `btrfs device stats --reset {path}`",
        )


def _errors_of(device: Device) -> str:
    counts = zip(device.errors, _ERROR_NAMES, strict=False)
    errors = ", ".join(counted(count, *names) for count, names in counts if count)
    return f"{device.name or 'unknown device'} (devid {device.devid}): {errors}"


def _full(reading: Reading) -> str:
    path = reading.mountpoint
    if reading.metadata_room_bytes < FULL_BYTES:
        return f"{path} has no space left for metadata: writes fail with ENOSPC"
    if reading.available_bytes < FULL_BYTES:
        return f"{path} has no space left for data: writes fail with ENOSPC"
    if reading.inodes and not reading.inodes.available:
        return f"{path} has no inodes left: new files fail with ENOSPC"
    return ""


def _extending(device: Device, reading: Reading) -> str:
    """The commands by which an operator has the filesystem use all of the block device."""
    match reading.kind:
        case FilesystemKind.BTRFS:
            command = f"`btrfs filesystem resize {device.devid}:max {reading.mountpoint}`"
        case FilesystemKind.XFS:
            command = f"`xfs_growfs {reading.mountpoint}`"
        case FilesystemKind.EXT4:
            command = f"`resize2fs /dev/{device.partition or device.name}`"
    if not device.partition:
        return command
    number = re.sub(r"^.*\D", "", device.partition)
    return f"`growpart /dev/{device.name} {number}` and {command}"


class Remark(NamedTuple):
    """Something about the devices that is not wrong, but that an operator may not expect."""

    name: str
    sentence: str
    hint: str


def remarks_of(
    reading: Reading,
    *,
    volumes: Mapping[str, str],
    encrypted: Collection[str],
) -> Iterator[Remark]:
    """What to know about the devices, by their kernel names.

    `volumes` are their EBS volumes where known, `encrypted` those that this host encrypts itself.
    """
    for device in reading.devices:
        if device.unused_bytes:
            volume = volumes.get(device.name, "")
            shown = f"{volume} ({device.name})" if volume else device.name
            size = format_size(device.unused_bytes)
            yield Remark(
                "slack",
                f"{size} of {shown} are not used: the filesystem ends before the volume does",
                "the daemon uses them, and `ebs-autoscale grow` does so at once, if the volume has "
                f"the tags of ebs-autoscale; else run {_extending(device, reading)}",
            )
    if names := [device.name for device in reading.devices if device.name in encrypted]:
        yield Remark(
            "encryption",
            f"{', '.join(names)} is encrypted by this host (LUKS), but the volumes that are added "
            "are not: what is written to them is encrypted by EBS only",
            "keep `volume.encrypted` on, or choose a filesystem without LUKS",
        )
