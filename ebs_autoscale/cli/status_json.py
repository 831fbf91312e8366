"""`status --json`: one object for machines; docs/status.md describes every key."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from ebs_autoscale.cli.look import FilesystemStatus, Status
from ebs_autoscale.model import Device, Reading
from ebs_autoscale.policy import Limits

SCHEMA = 1
"""The version of the object; raised when a key changes its meaning or goes."""


def as_dict(statuses: Sequence[Status]) -> dict[str, Any]:
    """The first mountpoint, as if it were the only one, with all further ones in `others`."""
    first, *others = map(_as_dict, statuses)
    return {"schema": SCHEMA, **first, "others": others}


def _as_dict(status: Status) -> dict[str, Any]:
    seen = status.filesystem
    found: dict[str, Any] = {
        "config": str(status.config),
        "mountpoint": status.mountpoint,
        "daemon": None,
        "exit": int(status.exit),
        "alarms": status.alarms,
        "retry_in_seconds": _rounded(status.retry_in_seconds),
    }
    if daemon := status.daemon:
        found["daemon"] = {
            "version": daemon.version,
            "pid": daemon.pid,
            **daemon.view.report(),
            "resident_bytes": daemon.resident_bytes,
        }
    if status.daemon_unknown:
        found["daemon_unknown"] = str(status.daemon_unknown)
    if status.unfit:
        found |= {"unfit": str(status.unfit), "cause": status.unfit.cause.value}
    if status.settings:
        found["limits"] = _limits(status.settings.policy.limits)
    if status.devices:
        found["members"] = [asdict(device) for device in status.devices]
    if seen or status.devices:
        found["ailments"] = {problem.cause.value: problem.line for problem in status.problems}
    if seen:
        found |= _of_filesystem(seen)
        usd_per_month, found["cost"] = status.cost
        found["managed_usd_per_month"] = usd_per_month and round(usd_per_month, 2)
    return found


def _of_filesystem(seen: FilesystemStatus) -> dict[str, Any]:
    return {
        "filesystem": seen.reading.filesystem,
        "kind": seen.reading.kind,
        "decision": seen.decision,
        "reason": seen.reason,
        "remarks": {remark.name: remark.sentence for remark in seen.remarks},
        "exclusive_operation": seen.operation,
        "balance_progress": seen.progress,
        **_figures(seen.reading),
        "members": [_device(device, seen) for device in seen.reading.devices],
        "reserve_wanted_bytes": seen.reserve_wanted_bytes,
        "fill_bytes_per_second": _rounded(seen.fill_bytes_per_second),
        "full_in_seconds": _rounded(seen.full_in_seconds),
    }


def _figures(reading: Reading) -> dict[str, Any]:
    return {
        "size_bytes": reading.size_bytes,
        "used_bytes": reading.used_bytes,
        "available_bytes": reading.available_bytes,
        "available_percent": round(reading.available_percent, 2),
        "unallocated_bytes": reading.unallocated_bytes,
        "statvfs_available_bytes": reading.statvfs_available_bytes,
        "metadata_headroom_bytes": reading.metadata_headroom_bytes,
        "metadata_profile": reading.metadata_profile,
        "reserve_bytes": reading.reserve_bytes,
        "inodes": asdict(reading.inodes) if reading.inodes else None,
        "quota": asdict(reading.quota) if reading.quota else None,
    }


def _device(device: Device, seen: FilesystemStatus) -> dict[str, Any]:
    found = seen.throttled.of.get(device.name)
    return {
        **asdict(device),
        **({} if seen.reading.kind.takes_devices else {"unallocated_bytes": None}),
        "volume": seen.volumes.get(device.name, ""),
        "exceeded": found
        and {
            "over_seconds": _rounded(seen.throttled.over_seconds),
            "volume_iops_seconds": found.volume_iops,
            "volume_throughput_seconds": found.volume_throughput,
            "instance_iops_seconds": found.instance_iops,
            "instance_throughput_seconds": found.instance_throughput,
        },
    }


def _limits(limits: Limits) -> dict[str, Any]:
    return {
        "volumes": limits.volumes,
        "total_bytes": limits.total_bytes,
        "usd_per_month": limits.monthly_usd,
        "cooldown_seconds": limits.cooldown_seconds,
    }


def _rounded(number: float | None) -> float | None:
    """JSON has no infinity: what never happens is null, like what is not known."""
    return round(number, 1) if number is not None and isfinite(number) else None
