"""A Reading of a verified mount of XFS or ext4."""

import os

from ebs_autoscale.filesystems.mounted import OpenMount
from ebs_autoscale.filesystems.one_device.mount import OneDeviceMount
from ebs_autoscale.filesystems.one_device.place import text_of
from ebs_autoscale.filesystems.page_cache import dirty_limit_bytes
from ebs_autoscale.model import Device, Inodes, Reading


def reading_of(
    mount: OneDeviceMount, opened: OpenMount, statvfs: os.statvfs_result, *, now_seconds: float
) -> Reading:
    """The current state, in microseconds and without a subprocess; raises OSError.

    Delayed allocation counts as used at once (measured on 6.18 and 6.1). How much of it the page
    cache already has is not known.
    """
    mount.follow(statvfs.f_blocks)
    unit = statvfs.f_frsize
    available_bytes = statvfs.f_bavail * unit
    return Reading(
        filesystem=opened.uuid,
        mountpoint=mount.path,
        taken_at_seconds=now_seconds,
        size_bytes=statvfs.f_blocks * unit,
        available_bytes=available_bytes,
        used_bytes=(statvfs.f_blocks - statvfs.f_bfree) * unit,
        statvfs_available_bytes=available_bytes,
        metadata_headroom_bytes=None,
        metadata_profile="",
        devices=(device_of(mount),),
        kind=mount.kind,
        inodes=_inodes(mount, statvfs),
        cache_bytes=dirty_limit_bytes(lambda path: int(text_of(path) or 0)),
    )


def _inodes(mount: OneDeviceMount, statvfs: os.statvfs_result) -> Inodes | None:
    """XFS, too, has a most for its size, of which statvfs(3) says nothing while space is nearer.

    1 to 25 % of its blocks: empty files and links were measured to reach that with 61 % available,
    and a filesystem that was made with a TiB or more reaches it with files of 4 KiB.
    """
    total = mount.geometry.inodes_max if mount.geometry else statvfs.f_files
    used = statvfs.f_files - statvfs.f_favail
    return Inodes(total=total, available=max(0, total - used)) if total else None


def device_of(mount: OneDeviceMount) -> Device:
    """The one device as of the latest look, also of a filesystem that is read-only."""
    place = mount.place
    if mount.geometry:
        size_bytes = mount.geometry.size_bytes
    else:
        # Without the superblock, which only root may read, it is not known to lack anything.
        size_bytes = mount.superblock.size_bytes if mount.superblock else place.bytes
    capacity_bytes = place.disk_bytes
    # A block device that became smaller than the filesystem is no longer whole.
    return Device(
        devid=1,
        name=place.disk,
        partition=place.partition.name if place.partition else "",
        size_bytes=place.start_bytes + size_bytes,
        unallocated_bytes=0,
        missing=place.bytes < size_bytes,
        capacity_bytes=capacity_bytes,
    )


def devices_at(mountpoint: str) -> tuple[Device, ...]:
    """The device of a filesystem that may be read-only; raises Unfit or OSError."""
    mount = OneDeviceMount(mountpoint, read_only=True)
    with mount.opened(read_only=True):
        return (device_of(mount),)
