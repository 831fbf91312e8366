"""What `status` shows of a mountpoint: a fresh look, and what the daemon reports."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ebs_autoscale.cli.throttled import Throttled, Throttling
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.volume_types import price_of
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError, Exit, Problem, Unfit
from ebs_autoscale.host import files, paths, systemd
from ebs_autoscale.model import DecisionKind, Device, Reading
from ebs_autoscale.policy import (
    Forecast,
    Remark,
    Shortage,
    describe_available,
    device_problems,
    missing_reserve,
    problems_of,
    seconds_until_full,
    shortage_of,
    wanted_reserve_bytes,
)
from ebs_autoscale.telemetry import RunningDaemon, State, running_daemon
from ebs_autoscale.wiring import devices_despite, filesystem_of, remarks_on, volumes_behind

# A writer that pauses shorter than this still shows; a change of its rate soon counts.
RATE_OVER_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemStatus:
    """What a fresh look at the filesystem says; `progress` is of a balance, else empty.

    `reserve_wanted_bytes` is what `reading.reserve_bytes` would be if it could be held. `cost` is
    of the volumes on this host, as if each had the configured type: only EC2 knows better.
    `volumes` are the ids of EBS volumes by the kernel's name of the device, where they are known.
    `forecast` is what the daemon judges by, `fill_bytes_per_second` None after a single look.
    """

    reading: Reading
    reserve_wanted_bytes: int
    shortage: Shortage | None
    problems: tuple[Problem, ...]
    operation: str
    progress: str
    remarks: tuple[Remark, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    fill_bytes_per_second: float | None = None
    throttled: Throttled = field(default_factory=Throttled)
    usd_per_month: float | None = None
    cost: str = ""

    @property
    def decision(self) -> DecisionKind:
        """What the policy would do, EC2 and its limits left out."""
        if not self.shortage:
            return DecisionKind.HOLD
        takes_devices = self.reading.kind.takes_devices
        return DecisionKind.GROW if takes_devices else DecisionKind.ENLARGE

    @property
    def reason(self) -> str:
        """Why."""
        return self.shortage.sentence if self.shortage else describe_available(self.reading)

    @property
    def full_in_seconds(self) -> float | None:
        """When it would be full; infinite while nothing fills it, None if that is not known."""
        if self.fill_bytes_per_second is None:
            return None
        forecast = Forecast(fill_bytes_per_second=self.fill_bytes_per_second)
        return seconds_until_full(self.reading, forecast)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The filesystem and its daemon; `unfit` and `daemon_unknown` are why either is not known.

    `settings` are None where the configuration is invalid, `devices` known of a filesystem that is
    unfit for being read-only. `at_seconds` is when this was seen, in seconds of the epoch.
    `reload_command` has the daemon try again at once.
    """

    config: Path
    at_seconds: float
    settings: Settings | None = None
    daemon: RunningDaemon | None = None
    daemon_unknown: EbsAutoscaleError | None = None
    reload_command: str = ""
    filesystem: FilesystemStatus | None = None
    unfit: EbsAutoscaleError | None = None
    devices: tuple[Device, ...] = ()

    @property
    def mountpoint(self) -> str:
        """The path; empty where the configuration is invalid."""
        return self.settings.mountpoint if self.settings else ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the filesystem, as far as it is known."""
        if self.filesystem:
            return self.filesystem.problems
        return tuple(device_problems(self.mountpoint, self.devices))

    @property
    def alarms(self) -> list[str]:
        """All that is wrong and what to do about it: what was seen now, then what the daemon says.

        The daemon repeats what was seen, in the words of an earlier moment. Only one that waits for
        the mount knows better why there is none, such as a volume that is missing.
        """
        told = self.daemon.view.conditions if self.daemon else {}
        seen = {}
        if self.unfit and not (told and self.is_waiting_for_mount):
            seen[self.unfit.cause.value] = str(self.unfit)
        seen |= {problem.cause.value: problem.line for problem in self.problems}
        return [*seen.values(), *(line for key, line in told.items() if key not in seen)]

    @property
    def is_waiting_for_mount(self) -> bool:
        """Whether there is a daemon that mounts it once it can be mounted."""
        return self.daemon is not None and self.daemon.view.state is State.WAITING

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
    def retry_in_seconds(self) -> float | None:
        """How long the daemon still waits before its next try, 0 when it is due; None if not."""
        if self.daemon is None or self.daemon.view.retry_at is None:
            return None
        return max(0.0, self.daemon.view.retry_at - self.at_seconds)

    @property
    def exit(self) -> Exit:
        """SUCCESS if nothing is wrong, UNFIT if that cannot be known, else FAILED."""
        if isinstance(self.unfit, ConfigInvalid):
            return Exit.USAGE
        if self.unfit or self.daemon_unknown:
            return Exit.UNFIT
        is_waiting = self.daemon and self.daemon.view.conditions
        return Exit.FAILED if self.problems or is_waiting else Exit.SUCCESS


class Looker:
    """Looks at one mountpoint, again and again; the looks of some seconds show the fill rate."""

    def __init__(
        self, config: Path, settings: Settings | ConfigInvalid, clock: SystemClock
    ) -> None:
        self._config = config
        self._settings = settings
        self._clock = clock
        self._readings: list[Reading] = []
        self._throttling = Throttling()

    def look(self) -> Status:
        """What a fresh reading and the daemon's own report say."""
        settings, at = self._settings, self._clock.wall_seconds()
        if isinstance(settings, ConfigInvalid):
            return Status(config=self._config, at_seconds=at, unfit=settings)
        daemon, unknown = None, None
        try:
            daemon = running_daemon(paths.status_file(settings.mountpoint))
        except Unfit as error:
            unknown = error
        status = Status(
            config=self._config,
            at_seconds=at,
            settings=settings,
            daemon=daemon,
            daemon_unknown=unknown,
            reload_command=_reload_command(self._config, daemon.pid) if daemon else "",
        )
        # With the daemon's forecast both judge alike.
        forecast = daemon.view.forecast if daemon else Forecast()
        try:
            seen = _look_at(settings, self._clock, forecast)
        except EbsAutoscaleError as error:
            self._readings.clear()
            return replace(status, unfit=error, devices=devices_despite(error, settings.mountpoint))
        reading = seen.reading
        rate = self._fill_rate(reading, forecast)
        throttled = self._throttling.look(reading.devices, reading.taken_at_seconds)
        seen = replace(seen, fill_bytes_per_second=rate, throttled=throttled)
        return replace(status, filesystem=seen)

    def _fill_rate(self, reading: Reading, forecast: Forecast) -> float | None:
        """The daemon's rate while it reports one, else that of the latest looks."""
        since = reading.taken_at_seconds - RATE_OVER_SECONDS
        self._readings = [r for r in self._readings if r.taken_at_seconds >= since] + [reading]
        if forecast.fill_bytes_per_second:
            return forecast.fill_bytes_per_second
        first = self._readings[0]
        seconds = reading.taken_at_seconds - first.taken_at_seconds
        if not seconds:
            return None
        return max(0.0, (reading.used_bytes - first.used_bytes) / seconds)


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
    volumes = volumes_behind(reading)
    usd_per_month, cost = _cost(settings, reading, volumes)
    return FilesystemStatus(
        usd_per_month=usd_per_month,
        cost=cost,
        reading=reading,
        reserve_wanted_bytes=wanted_reserve_bytes(configured, reading),
        shortage=shortage_of(reading, settings.policy, forecast),
        problems=tuple(problems),
        operation=operation,
        remarks=tuple(remarks_on(reading, volumes)),
        volumes=volumes,
        progress=filesystem.balance_progress() if operation.startswith("balance") else "",
    )


def _reload_command(config: Path, pid: int) -> str:
    is_service = False
    with suppress(Unfit):
        is_service = "/ebs-autoscale" in files.read_text(Path("/proc", str(pid), "cgroup"))
    return systemd.reload_command(config, pid=pid, is_running=is_service)


def _cost(
    settings: Settings, reading: Reading, volumes: Mapping[str, str]
) -> tuple[float | None, str]:
    """What the EBS volumes among the devices cost a month, and the same in words."""
    sizes = [device.size_bytes for device in reading.devices if device.name in volumes]
    if not sizes:
        return None, ""
    price = price_of(settings.volume)
    usd = sum(map(price.usd_per_month, sizes))
    return usd, f"about {usd:.2f} USD a month {price.basis}, if all are as configured now"
