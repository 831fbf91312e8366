"""`status`: what is seen, decided and waited for, with or without a daemon."""

import json
from dataclasses import asdict
from typing import Any

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config.schema import Settings
from ebs_autoscale.errors import EbsAutoscaleError, Unfit
from ebs_autoscale.exits import Exit
from ebs_autoscale.model import Reading
from ebs_autoscale.policy.health import ailments_of
from ebs_autoscale.policy.shortage import Forecast, available, shortage
from ebs_autoscale.telemetry.status_file import living_report
from ebs_autoscale.units import format_size
from ebs_autoscale.wiring import filesystem_of, status_path

WATCH_EVERY_SECONDS = 1.0


def show(settings: Settings, *, as_json: bool, watch: bool) -> int:
    """Print the status once, or every second until Ctrl-C."""
    clock = SystemClock()
    while True:
        found = look(settings, clock)
        print(json.dumps(found, indent=1) if as_json else _text(found), flush=True)
        if not watch:
            return _exit_of(found)
        clock.sleep(WATCH_EVERY_SECONDS)


def look(settings: Settings, clock: SystemClock) -> dict[str, Any]:
    """What a fresh reading and the daemon's own report say."""
    found: dict[str, Any] = {"mountpoint": settings.mountpoint, "daemon": None}
    try:
        found["daemon"] = living_report(status_path(settings.mountpoint))
    except Unfit as error:
        found["daemon_unknown"] = str(error)
    try:
        filesystem = filesystem_of(settings, clock)
        reading = filesystem.read()
        operation = filesystem.exclusive_operation()
        progress = filesystem.balance_progress() if operation.startswith("balance") else ""
    except EbsAutoscaleError as error:
        return {**found, "unfit": str(error), "cause": error.cause}
    low = shortage(reading, settings.policy, Forecast())
    return {
        **found,
        "filesystem": reading.filesystem,
        "decision": "grow" if low else "hold",
        "reason": low or available(reading),
        "ailments": ailments_of(reading),
        "exclusive_operation": operation,
        "balance_progress": progress,
        **_figures(reading),
    }


def _figures(reading: Reading) -> dict[str, Any]:
    return {
        "size_bytes": reading.size_bytes,
        "available_bytes": reading.available_bytes,
        "available_percent": round(reading.available_percent, 2),
        "statvfs_available_bytes": reading.statvfs_available_bytes,
        "metadata_headroom_bytes": reading.metadata_headroom_bytes,
        "metadata_profile": reading.metadata_profile,
        "reserve_bytes": reading.reserve_bytes,
        "members": [asdict(member) for member in reading.members],
    }


def _exit_of(found: dict[str, Any]) -> int:
    if "unfit" in found or "daemon_unknown" in found:
        return Exit.UNFIT
    daemon = found["daemon"]
    wrong = found["ailments"] or (daemon and daemon["conditions"])
    return Exit.FAILED if wrong else Exit.FINE


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['mountpoint']}: {found.get('unfit') or found['reason']}"]
    if "filesystem" in found:
        lines += [
            f"  filesystem   {found['filesystem']}",
            f"  size         {format_size(found['size_bytes'])}",
            f"  available    {format_size(found['available_bytes'])}",
            f"  shown by df  {format_size(found['statvfs_available_bytes'])}",
            f"  metadata     {found['metadata_profile']}",
            f"  headroom     {format_size(found['metadata_headroom_bytes'])} for metadata",
            f"  reserve      {format_size(found['reserve_bytes'])} held for emergencies",
            f"  members      {', '.join(_member(member) for member in found['members'])}",
            f"  decision     {found['decision']}",
        ]
        if found["exclusive_operation"] != "none":
            running = (found["exclusive_operation"], found["balance_progress"])
            lines.append(f"  running      {', '.join(filter(None, running))}")
        lines += [f"  wrong        {sentence}" for sentence in found["ailments"].values()]
    daemon = found["daemon"]
    if not daemon:
        return "\n".join([*lines, f"  daemon       {found.get('daemon_unknown', 'not running')}"])
    doing = daemon["activity"] or daemon["state"]
    lines.append(f"  daemon       pid {daemon['pid']}, {doing}")
    told = found.get("ailments", {})
    lines += [
        f"  waits for    {sentence}"
        for cause, sentence in daemon["conditions"].items()
        if cause not in told
    ]
    return "\n".join(lines)


def _member(member: dict[str, Any]) -> str:
    if member["missing"]:
        return f"devid {member['devid']} MISSING"
    return f"{member['name']} ({format_size(member['size_bytes'])})"
