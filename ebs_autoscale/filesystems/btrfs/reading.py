"""A Reading of a verified mount, from sysfs and ioctls."""

import os

from ebs_autoscale.filesystems.btrfs import reserve
from ebs_autoscale.filesystems.btrfs.chunks import (
    available_bytes,
    metadata_headroom_bytes,
    unallocated_bytes,
)
from ebs_autoscale.filesystems.btrfs.ioctl import (
    DeviceInfo,
    balance,
    device_errors,
    devices,
)
from ebs_autoscale.filesystems.btrfs.mount import OpenMount
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.model import Device, Reading

# A chunk that is allocated between two counters is in neither. Reading takes 0.2 ms, and the
# fastest writer fills a chunk in 50 ms, so that the second try succeeds.
_TRIES = 3


def reading_of(
    mount: OpenMount,
    sysfs: BtrfsSysfs,
    statvfs: os.statvfs_result,
    *,
    mountpoint: str,
    now_seconds: float,
) -> Reading:
    """The current state, in microseconds and without a subprocess; raises OSError."""
    names = sysfs.names()
    for _ in range(_TRIES):
        data, metadata = sysfs.allocated()
        found = tuple(devices(mount.fd, mount.info))
        if sysfs.totals() == (data.total_bytes, metadata.total_bytes):
            break
    reserve_bytes = reserve.held_bytes(mount.fd)
    used_bytes = data.used_bytes + data.reserved_bytes + data.may_use_bytes
    listed = tuple(_device(mount.fd, info, sysfs, names) for info in found)
    unallocated = [device.unallocated_bytes for device in listed if not device.missing]
    raw_bytes = sum(device.size_bytes for device in listed)
    return Reading(
        filesystem=mount.info.uuid,
        mountpoint=mountpoint,
        taken_at_seconds=now_seconds,
        size_bytes=statvfs.f_blocks * statvfs.f_frsize,
        available_bytes=available_bytes(data, metadata, unallocated, filesystem_bytes=raw_bytes),
        # Taking or releasing the reserve does not count as writing.
        used_bytes=max(0, used_bytes - reserve_bytes),
        statvfs_available_bytes=statvfs.f_bavail * statvfs.f_frsize,
        metadata_headroom_bytes=metadata_headroom_bytes(metadata, unallocated),
        metadata_profile=metadata.profile,
        devices=listed,
        reserve_bytes=reserve_bytes,
    )


def exclusive_operation(mount: OpenMount, sysfs: BtrfsSysfs) -> str:
    """The running exclusive operation, as Linux 5.17 and later name it in sysfs, or `none`.

    Older kernels call a paused balance `balance`, too; its state is asked by ioctl. That may wait
    for a commit, which is why it is not part of a reading. Raises OSError.
    """
    operation = sysfs.exclusive_operation()
    if operation == "balance" and (found := balance(mount.fd)):
        return "balance" if found.running else "balance paused"
    return operation


def _device(fd: int, info: DeviceInfo, sysfs: BtrfsSysfs, names: frozenset[str]) -> Device:
    return Device(
        devid=info.devid,
        name=_name_of(info.path, sysfs, names),
        size_bytes=info.size_bytes,
        unallocated_bytes=unallocated_bytes(
            size_bytes=info.size_bytes, allocated_bytes=info.allocated_bytes
        ),
        missing=not info.path or sysfs.is_missing(info.devid),
        errors=device_errors(fd, info.devid),
    )


def _name_of(path: str, sysfs: BtrfsSysfs, names: frozenset[str]) -> str:
    """The kernel's name of a device that was registered by this path, which may be a link."""
    name = os.path.basename(path)  # noqa: PTH119 -- runs each tick
    if name in names or not path:
        return name
    try:
        number = os.stat(path).st_rdev  # noqa: PTH116 -- the same
    except OSError:
        return ""
    device = f"{os.major(number)}:{os.minor(number)}"
    return next((name for name in names if sysfs.device_number(name) == device), "")
