"""A Reading of a verified mount, from sysfs and ioctls."""

import os
from collections.abc import Sequence

from ebs_autoscale.filesystems.btrfs import reserve
from ebs_autoscale.filesystems.btrfs.chunks import (
    available_bytes,
    metadata_headroom_bytes,
    unallocated_bytes,
)
from ebs_autoscale.filesystems.btrfs.ioctl import (
    DeviceInfo,
    balance,
    device_info,
)
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount
from ebs_autoscale.filesystems.btrfs.quota import tightest_quota
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.filesystems.mounted import OpenMount
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
    for _ in range(_TRIES):
        data, metadata = sysfs.allocated()
        found = _device_infos(mount, sysfs)
        if sysfs.totals() == (data.total_bytes, metadata.total_bytes):
            break
    held = reserve.held(mount.fd)
    used_bytes = data.used_bytes + data.reserved_bytes + data.may_use_bytes
    devices = _devices(found, sysfs)
    unallocated = [d.unallocated_bytes for d in devices if d.writable and not d.missing]
    raw_bytes = sum(device.size_bytes for device in devices if device.writable)
    # What was missing at the mount has no block groups that can be written.
    torn_off = {device.devid for device in devices if device.missing and device.name}
    return Reading(
        filesystem=mount.uuid,
        mountpoint=mountpoint,
        taken_at_seconds=now_seconds,
        size_bytes=statvfs.f_blocks * statvfs.f_frsize,
        available_bytes=available_bytes(
            data,
            metadata,
            unallocated,
            filesystem_bytes=raw_bytes,
            lost_bytes=sum(info.allocated_bytes for info in found if info.devid in torn_off),
        ),
        # Taking or releasing the reserve does not count as writing.
        used_bytes=max(0, used_bytes - held.data_bytes),
        # What is dirty is only reserved until write-back allocates it.
        dirty_bytes=data.may_use_bytes,
        cache_bytes=sysfs.dirty_limit_bytes(),
        statvfs_available_bytes=statvfs.f_bavail * statvfs.f_frsize,
        metadata_headroom_bytes=metadata_headroom_bytes(metadata, unallocated),
        metadata_profile=metadata.profile,
        devices=devices,
        reserve_bytes=held.data_bytes,
        reserve_fault=held.fault,
        quota=tightest_quota(mount, sysfs),
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


def devices_of(mount: OpenMount, sysfs: BtrfsSysfs) -> tuple[Device, ...]:
    """The devices by ascending devid; also of a filesystem that is read-only. Raises OSError."""
    return _devices(_device_infos(mount, sysfs), sysfs)


def devices_at(mountpoint: str) -> tuple[Device, ...]:
    """The devices of a filesystem that may be read-only; raises Unfit or OSError."""
    mount = BtrfsMount(mountpoint, read_only=True)
    with mount.opened(read_only=True) as opened:
        return devices_of(opened, BtrfsSysfs(mount.uuid))


def _device_infos(mount: OpenMount, sysfs: BtrfsSysfs) -> list[DeviceInfo]:
    return [info for devid in sysfs.devids() if (info := device_info(mount.fd, devid))]


def _devices(found: Sequence[DeviceInfo], sysfs: BtrfsSysfs) -> tuple[Device, ...]:
    mounted = [info for info in found if info.path and not sysfs.is_missing(info.devid)]
    names: dict[int, str | None] = {info.devid: "" for info in mounted}
    names |= _names_of(mounted, sysfs)
    return tuple(_device(info, names.get(info.devid), sysfs) for info in found)


def _device(info: DeviceInfo, name: str | None, sysfs: BtrfsSysfs) -> Device:
    """The device; `name` is None for one that was missing at the mount, "" if it is not known."""
    # A block device that became smaller than the filesystem's share of it is no longer whole.
    capacity_bytes = sysfs.capacity_bytes(name) if name else 0
    is_torn_off = name and capacity_bytes < info.size_bytes
    is_writable = sysfs.is_writable(info.devid)
    unallocated = unallocated_bytes(
        size_bytes=info.size_bytes, allocated_bytes=info.allocated_bytes
    )
    return Device(
        devid=info.devid,
        name=name or "",
        size_bytes=info.size_bytes,
        unallocated_bytes=unallocated if is_writable else 0,
        missing=name is None or bool(is_torn_off),
        writable=is_writable,
        errors=sysfs.errors(info.devid),
        capacity_bytes=capacity_bytes,
    )


def _names_of(found: Sequence[DeviceInfo], sysfs: BtrfsSysfs) -> dict[int, str]:
    """The kernel name of each of these devices, which are all in sysfs.

    The kernel tells by which path each was registered. Whether that path still leads to it is no
    sign of its health: it may be a link, be gone, or belong to another mount namespace.
    """
    names: dict[int, str] = {}
    left = set(sysfs.names())
    for rule in (_named_by_path, _named_by_number, _left_over):
        for info in found:
            if info.devid not in names and (name := rule(info, left, sysfs)):
                names[info.devid] = name
                left.remove(name)
    return names


def _named_by_path(info: DeviceInfo, left: set[str], _sysfs: BtrfsSysfs) -> str:
    name = info.path.removeprefix("/dev/")
    return name if name in left else ""


def _named_by_number(info: DeviceInfo, left: set[str], sysfs: BtrfsSysfs) -> str:
    try:
        number = os.stat(info.path).st_rdev  # noqa: PTH116 -- runs each tick
    except OSError:
        return ""
    device = f"{os.major(number)}:{os.minor(number)}"
    return next((name for name in left if sysfs.device_number(name) == device), "")


def _left_over(info: DeviceInfo, left: set[str], sysfs: BtrfsSysfs) -> str:
    """The first one that is large enough; else the first, which then was torn off."""
    return min(left, key=lambda n: (sysfs.capacity_bytes(n) < info.size_bytes, n), default="")
