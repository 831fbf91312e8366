"""`status`: space, the next decision and pending retries, with or without a daemon."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.volume_types import price_of
from ebs_autoscale.errors import EbsAutoscaleError, Exit, Problem, Unfit, with_hint
from ebs_autoscale.filesystems.btrfs.reading import devices_despite
from ebs_autoscale.host import paths
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.model import DecisionKind, Device, Reading
from ebs_autoscale.policy import (
    Forecast,
    Remark,
    Shortage,
    describe_available,
    device_problems,
    missing_reserve,
    problems_of,
    shortage_of,
    wanted_reserve_bytes,
)
from ebs_autoscale.telemetry import RunningDaemon, running_daemon
from ebs_autoscale.units import format_size, json_text, printable
from ebs_autoscale.wiring import filesystem_of, remarks_on

WATCH_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemStatus:
    """What a fresh look at the filesystem says; `progress` is of a balance, else empty.

    `reserve_wanted_bytes` is what `reading.reserve_bytes` would be if it could be held. `cost` is
    of the volumes on this host, as if each had the configured type: only EC2 knows better.
    """

    reading: Reading
    reserve_wanted_bytes: int
    shortage: Shortage | None
    problems: tuple[Problem, ...]
    operation: str
    progress: str
    remarks: tuple[Remark, ...] = ()
    usd_per_month: float | None = None
    cost: str = ""

    @property
    def decision(self) -> DecisionKind:
        """What the policy would do, EC2 and its limits left out."""
        return DecisionKind.GROW if self.shortage else DecisionKind.HOLD

    @property
    def reason(self) -> str:
        """Why."""
        return self.shortage.sentence if self.shortage else describe_available(self.reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The filesystem and its daemon; `unfit` and `daemon_unknown` are why either is not known.

    `devices` are known of a filesystem that is unfit for being read-only.
    """

    mountpoint: str
    daemon: RunningDaemon | None = None
    daemon_unknown: EbsAutoscaleError | None = None
    filesystem: FilesystemStatus | None = None
    unfit: EbsAutoscaleError | None = None
    devices: tuple[Device, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the filesystem, as far as it is known."""
        if self.filesystem:
            return self.filesystem.problems
        return tuple(device_problems(self.mountpoint, self.devices))

    @property
    def cost(self) -> tuple[float | None, str]:
        """What the volumes cost, in USD a month and in words: what EC2 told the daemon, if any."""
        if self.daemon and self.daemon.view.managed.cost:
            managed = self.daemon.view.managed
            return managed.usd_per_month, managed.cost
        return (
            (self.filesystem.usd_per_month, self.filesystem.cost) if self.filesystem else (None, "")
        )

    @property
    def exit(self) -> Exit:
        """SUCCESS if nothing is wrong, UNFIT if that cannot be known, else FAILED."""
        if self.unfit or self.daemon_unknown:
            return Exit.UNFIT
        is_waiting = self.daemon and self.daemon.view.conditions
        return Exit.FAILED if self.problems or is_waiting else Exit.SUCCESS


def show(settings: Settings, *, as_json: bool, watch: bool) -> int:
    """Print the status once, or every second until Ctrl-C."""
    clock = SystemClock()
    while True:
        status = look(settings, clock)
        print(json_text(as_dict(status), indent=1) if as_json else as_text(status), flush=True)
        if not watch:
            return status.exit
        clock.sleep(WATCH_EVERY_SECONDS)


def look(settings: Settings, clock: SystemClock) -> Status:
    """What a fresh reading and the daemon's own report say."""
    daemon, unknown = None, None
    try:
        daemon = running_daemon(paths.status_file(settings.mountpoint))
    except Unfit as error:
        unknown = error
    # With the daemon's forecast both judge alike.
    forecast = daemon.view.forecast if daemon else Forecast()
    status = Status(mountpoint=settings.mountpoint, daemon=daemon, daemon_unknown=unknown)
    try:
        return replace(status, filesystem=_look_at(settings, clock, forecast))
    except EbsAutoscaleError as error:
        return replace(status, unfit=error, devices=devices_despite(error, settings.mountpoint))


def _look_at(settings: Settings, clock: SystemClock, forecast: Forecast) -> FilesystemStatus:
    filesystem = filesystem_of(settings, clock)
    reading = filesystem.read()
    problems = list(problems_of(reading))
    try:
        filesystem.verify_devices()
    except Unfit as error:
        problems.append(Problem.of_error(error))
    operation = filesystem.exclusive_operation()
    configured = settings.reserve_bytes
    missing = missing_reserve(configured, reading, settings.policy, forecast)
    # Without such a file, the daemon may only not have made it yet.
    if missing and reading.reserve_fault:
        problems.append(missing)
    usd_per_month, cost = _cost(settings, reading)
    return FilesystemStatus(
        usd_per_month=usd_per_month,
        cost=cost,
        reading=reading,
        reserve_wanted_bytes=wanted_reserve_bytes(configured, reading),
        shortage=shortage_of(reading, settings.policy, forecast),
        problems=tuple(problems),
        operation=operation,
        remarks=tuple(remarks_on(reading)),
        progress=filesystem.balance_progress() if operation.startswith("balance") else "",
    )


def _cost(settings: Settings, reading: Reading) -> tuple[float | None, str]:
    """What the EBS volumes among the devices cost a month, and the same in words."""
    names = {device.name: device.size_bytes for device in reading.devices if device.name}
    sizes = [size for name, size in names.items() if BlockDevices().volume_id_of(name)]
    if not sizes:
        return None, ""
    price = price_of(settings.volume)
    usd = sum(map(price.usd_per_month, sizes))
    return usd, f"about {usd:.2f} USD a month {price.basis}, if all are as configured now"


def as_dict(status: Status) -> dict[str, Any]:
    """The status for machines."""
    seen = status.filesystem
    found: dict[str, Any] = {"mountpoint": status.mountpoint, "daemon": None}
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
    if status.devices:
        found["members"] = [asdict(device) for device in status.devices]
    if seen or status.devices:
        found["ailments"] = {problem.cause.value: problem.line for problem in status.problems}
    if seen:
        found |= {
            "filesystem": seen.reading.filesystem,
            "decision": seen.decision,
            "reason": seen.reason,
            "remarks": {remark.name: remark.sentence for remark in seen.remarks},
            "exclusive_operation": seen.operation,
            "balance_progress": seen.progress,
            **_figures(seen.reading),
            "reserve_wanted_bytes": seen.reserve_wanted_bytes,
        }
        usd_per_month, found["cost"] = status.cost
        found["managed_usd_per_month"] = usd_per_month and round(usd_per_month, 2)
    return found


def _figures(reading: Reading) -> dict[str, Any]:
    return {
        "size_bytes": reading.size_bytes,
        "available_bytes": reading.available_bytes,
        "available_percent": round(reading.available_percent, 2),
        "statvfs_available_bytes": reading.statvfs_available_bytes,
        "metadata_headroom_bytes": reading.metadata_headroom_bytes,
        "metadata_profile": reading.metadata_profile,
        "reserve_bytes": reading.reserve_bytes,
        "quota": asdict(reading.quota) if reading.quota else None,
        "members": [asdict(device) for device in reading.devices],
    }


def as_text(status: Status) -> str:
    """The status for people."""
    return "\n".join(map(printable, _lines_for_people(status)))


def _lines_for_people(status: Status) -> list[str]:
    seen, daemon = status.filesystem, status.daemon
    lines = [f"{status.mountpoint}: {seen.reason}" if seen else str(status.unfit)]
    if seen:
        lines += _lines_of(seen)
    if words := status.cost[1]:
        lines.append(f"  volumes      {words}")
    lines += [f"  problem      {problem.line}" for problem in status.problems]
    if daemon is None:
        return [*lines, f"  daemon       {status.daemon_unknown or 'not running'}"]
    doing = daemon.view.activity or daemon.view.state
    lines.append(f"  daemon       pid {daemon.pid}, {doing}")
    told = {problem.cause.value for problem in status.problems}
    return lines + [
        f"  condition    {line}" for key, line in daemon.view.conditions.items() if key not in told
    ]


def _lines_of(seen: FilesystemStatus) -> list[str]:
    reading = seen.reading
    held, wanted = format_size(reading.reserve_bytes), format_size(seen.reserve_wanted_bytes)
    lines = [
        f"  filesystem   {reading.filesystem}",
        f"  size         {format_size(reading.size_bytes)}",
        f"  available    {format_size(reading.available_bytes)}",
        f"  shown by df  {format_size(reading.statvfs_available_bytes)}",
        f"  metadata     {reading.metadata_profile}",
        f"  headroom     {format_size(reading.metadata_headroom_bytes)} for metadata",
        f"  reserve      {held} of {wanted} held for emergencies",
        f"  devices      {', '.join(_device(device) for device in reading.devices)}",
        f"  decision     {seen.decision}",
    ]
    if quota := reading.quota:
        left, limit = format_size(quota.left_bytes), format_size(quota.limit_bytes)
        lines.append(f"  quota        {left} of {limit} left to quota group {quota.qgroup}")
    if seen.operation != "none":
        lines.append(f"  running      {', '.join(filter(None, (seen.operation, seen.progress)))}")
    return lines + [
        f"  remark       {with_hint(remark.sentence, remark.hint)}" for remark in seen.remarks
    ]


def _device(device: Device) -> str:
    if device.missing:
        name = f" ({device.name})" if device.name else ""
        return f"devid {device.devid} MISSING{name}"
    kind = "" if device.writable else ", no room"
    return f"{device.label} ({format_size(device.size_bytes)}{kind})"
