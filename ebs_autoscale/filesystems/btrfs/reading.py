"""One look at a proved mount, as a Reading: counters from sysfs, devices from the kernel."""

import os

from ebs_autoscale.filesystems.btrfs import reserve as btrfs_reserve
from ebs_autoscale.filesystems.btrfs.chunks import (
    available_bytes,
    metadata_headroom_bytes,
    unallocated_bytes,
)
from ebs_autoscale.filesystems.btrfs.ioctl import (
    DeviceExtent,
    balance_progress,
    device_errors,
    devices,
)
from ebs_autoscale.filesystems.btrfs.mount import OpenMount
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.model import Device, Reading

# A chunk that is allocated between two counters would be missing from both; a look takes 0.2 ms,
# and the fastest writer needs 50 ms for a chunk.
_MOST_LOOKS = 3


def reading_of(
    mount: OpenMount,
    sysfs: BtrfsSysfs,
    statvfs: os.statvfs_result,
    *,
    mountpoint: str,
    now_seconds: float,
) -> Reading:
    """What the filesystem says now, in microseconds and without a subprocess; raises OSError."""
    names = sysfs.names()
    for _ in range(_MOST_LOOKS):
        data, metadata = sysfs.allocated()
        extents = tuple(devices(mount.fd, mount.identity))
        if sysfs.totals() == (data.total_bytes, metadata.total_bytes):
            break
    reserve_bytes = btrfs_reserve.held(mount.fd).data_bytes
    used_bytes = data.used_bytes + data.reserved_bytes + data.may_use_bytes
    present = tuple(_device(mount.fd, extent, sysfs, names) for extent in extents)
    unallocated = [device.unallocated_bytes for device in present if not device.missing]
    raw_bytes = sum(device.size_bytes for device in present)
    return Reading(
        filesystem=mount.identity.uuid,
        mountpoint=mountpoint,
        taken_at_seconds=now_seconds,
        size_bytes=statvfs.f_blocks * statvfs.f_frsize,
        available_bytes=available_bytes(data, metadata, unallocated, filesystem_bytes=raw_bytes),
        # To fill or to give up the reserve is no writing.
        used_bytes=max(0, used_bytes - reserve_bytes),
        statvfs_available_bytes=statvfs.f_bavail * statvfs.f_frsize,
        metadata_headroom_bytes=metadata_headroom_bytes(metadata, unallocated),
        metadata_profile=metadata.profile,
        devices=present,
        reserve_bytes=reserve_bytes,
    )


def exclusive_operation(mount: OpenMount, sysfs: BtrfsSysfs) -> str:
    """What keeps others from changing the devices now, in the words of Linux 5.17, or `none`.

    Before that, a paused balance too is `balance` in sysfs; only the balance itself tells. May wait
    for a commit, so that it is no part of a reading. Raises OSError.
    """
    operation = sysfs.exclusive_operation()
    if operation == "balance" and (progress := balance_progress(mount.fd)):
        return "balance" if progress.running else "balance paused"
    return operation


def _device(fd: int, extent: DeviceExtent, sysfs: BtrfsSysfs, names: frozenset[str]) -> Device:
    return Device(
        devid=extent.devid,
        name=_name_of(extent.path, sysfs, names),
        size_bytes=extent.size_bytes,
        unallocated_bytes=unallocated_bytes(
            size_bytes=extent.size_bytes, allocated_bytes=extent.allocated_bytes
        ),
        missing=not extent.path or sysfs.is_missing(extent.devid),
        errors=device_errors(fd, extent.devid),
    )


def _name_of(path: str, sysfs: BtrfsSysfs, names: frozenset[str]) -> str:
    """The kernel's name of a device, given the path it was registered by: any link or alias."""
    name = os.path.basename(path)  # noqa: PTH119 -- runs each tick
    if name in names or not path:
        return name
    try:
        number = os.stat(path).st_rdev  # noqa: PTH116 -- the same
    except OSError:
        return ""
    device = f"{os.major(number)}:{os.minor(number)}"
    return next((name for name in names if sysfs.device_number(name) == device), "")
