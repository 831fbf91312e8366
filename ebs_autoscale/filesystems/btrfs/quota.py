"""What the quota groups of BTRFS still allow at a mountpoint, from sysfs and ioctls."""

from collections.abc import Iterator

from ebs_autoscale.filesystems.btrfs.ioctl import parent_qgroups, subvolume_of
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.filesystems.mounted import OpenMount
from ebs_autoscale.model import Quota

_LEVEL_AT_BIT = 48


def tightest_quota(mount: OpenMount, sysfs: BtrfsSysfs) -> Quota | None:
    """The limit of the mounted subvolume's quota groups that leaves least; None without a limit.

    Without a subprocess. A subvolume below the mountpoint has limits of its own. Raises OSError.
    """
    limits = [limit for qgroup in _qgroups(mount.fd, sysfs) for limit in _limits(qgroup, sysfs)]
    return min(limits, key=lambda quota: quota.left_bytes, default=None)


def _qgroups(fd: int, sysfs: BtrfsSysfs) -> Iterator[int]:
    """The subvolume's quota group and all that it is in; none where quotas are off."""
    pending, seen = [subvolume_of(fd) or 0], set[int]()
    while pending:
        qgroup = pending.pop()
        if qgroup in seen or sysfs.qgroup(_name(qgroup, "_")) is None:
            continue
        seen.add(qgroup)
        yield qgroup
        pending += parent_qgroups(fd, qgroup)


def _limits(qgroup: int, sysfs: BtrfsSysfs) -> Iterator[Quota]:
    counted = sysfs.qgroup(_name(qgroup, "_")) or {}
    # What is written but not committed is only reserved.
    reserved = sum(counted[name] for name in counted if name.startswith("rsv_"))
    for bit, kind in ((1, "referenced"), (2, "exclusive")):
        if counted.get("limit_flags", 0) & bit:
            limit_bytes = counted[f"max_{kind}"]
            left_bytes = max(0, limit_bytes - counted[kind] - reserved)
            yield Quota(qgroup=_name(qgroup, "/"), limit_bytes=limit_bytes, left_bytes=left_bytes)


def _name(qgroup: int, separator: str) -> str:
    return f"{qgroup >> _LEVEL_AT_BIT}{separator}{qgroup & ((1 << _LEVEL_AT_BIT) - 1)}"
