"""What each verb does, from arguments to exit code.

Each verb imports what it needs when it runs: the daemon, which is a verb too, stays without boto3.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ebs_autoscale import __version__, config
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES, usd_per_month
from ebs_autoscale.errors import Cause, ConfigInvalid, EbsAutoscaleError, Exit, with_hint
from ebs_autoscale.host import paths
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.requirements import require_root, require_tools_of
from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    GIB,
    Enlarge,
    FilesystemKind,
    Grow,
    Hold,
    Refuse,
    VolumeSpec,
)
from ebs_autoscale.policy import (
    NOTHING_TRIED,
    Forecast,
    GrowthMethod,
    describe,
    managed,
    steps_for,
)
from ebs_autoscale.telemetry import Event, EventKind, Level, LogSink, Sinks, record, running_daemon
from ebs_autoscale.units import format_size, json_text
from ebs_autoscale.wiring import cloud_of, filesystem_of, world_of

if TYPE_CHECKING:
    from ebs_autoscale.model import Reading
    from ebs_autoscale.provision import Setup
    from ebs_autoscale.provision.translate import Older
    from ebs_autoscale.resize import World
    from ebs_autoscale.simulation import Scenario

# The largest volume of any type (EC2 API reference, CreateVolume).
VOLUME_MAX_BYTES = 64 * 1024 * GIB

FIRST_SIZE_BYTES = 20 * GIB


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon."""
    from ebs_autoscale import daemon

    return daemon.run(arguments)


def grow(arguments: argparse.Namespace) -> int:
    """Grow once, for an operator or for the daemon."""
    if arguments.request:
        return _grow_for_daemon(arguments)
    settings = config.load(arguments.config)
    # 0 stands for the usual size.
    wanted = _whole_gib(arguments.size or 0)
    require_root()
    clock = _stoppable_clock()
    filesystem = filesystem_of(settings, clock)
    with Lock(paths.growth_lock(filesystem.uuid)):
        record(paths.LOG_FILE)
        emit = Sinks(LogSink(), mountpoint=settings.mountpoint)
        world = world_of(settings, filesystem, clock, emit)
        return _grow_once(world, settings, Forecast(), wanted)


def _grow_for_daemon(arguments: argparse.Namespace) -> int:
    """Grow if that is needed, as the daemon's child; every failure is an event."""
    from ebs_autoscale.daemon import EventPipe, GrowthRequest
    from ebs_autoscale.host.process import die_with_parent

    die_with_parent(signal.SIGTERM)
    clock = _stoppable_clock()
    try:
        request = GrowthRequest.read(sys.stdin.buffer)
    except (ValueError, KeyError, TypeError) as error:
        what = f"the request of the daemon is not of version {__version__}: {error}"
        hint = "restart the daemon, which is of another version"
        raise ConfigInvalid(what, hint=hint, cause=Cause.USAGE) from error
    emit = EventPipe(request.events_fd)
    try:
        settings = config.parse(request.config_text, name=str(arguments.config))
        require_root()
        filesystem = filesystem_of(settings, clock)
        known = (request.identity, request.credentials)
        world = world_of(settings, filesystem, clock, emit, *known)
        return _grow_once(world, settings, request.forecast)
    except EbsAutoscaleError as error:
        emit(Event.of_error(EventKind.GROWTH_FAILED, error, level=Level.ERROR))
        return Exit.FAILED


def _grow_once(
    world: "World",
    settings: config.Settings,
    forecast: Forecast,
    wanted_bytes: int | None = None,
) -> int:
    from ebs_autoscale.resize import Outcome, grow_once

    match grow_once(world, settings.policy, forecast, wanted_bytes):
        case Outcome.DONE | Outcome.HELD:
            return Exit.SUCCESS
        case Outcome.REFUSED:
            return Exit.REFUSED
        case Outcome.UNFIT:
            return Exit.UNFIT
        case Outcome.STOPPED | Outcome.FAILED:
            return Exit.FAILED


def _stoppable_clock() -> SystemClock:
    clock = SystemClock()
    clock.stop_on(signal.SIGTERM, signal.SIGINT)
    return clock


def _whole_gib(size_bytes: int) -> int:
    """Rounded up. Raises ConfigInvalid for more than any volume can have."""
    if size_bytes > VOLUME_MAX_BYTES:
        raise ConfigInvalid(
            f"--size {size_bytes // GIB} GiB: no EBS volume is larger than 64 TiB",
            cause=Cause.USAGE,
        )
    return -(-size_bytes // GIB) * GIB


def plan(arguments: argparse.Namespace) -> int:
    """Print the decision, its reason and its steps."""
    if arguments.simulate:
        return _simulate(arguments)
    from ebs_autoscale.resize import decide_on, observe

    settings = config.load(arguments.config)
    require_root()
    clock = SystemClock()
    world = world_of(settings, filesystem_of(settings, clock), clock, LogSink())
    forecast = _forecast_of_daemon(settings)
    seen, decision = decide_on(
        observe(world),
        settings.policy,
        world,
        forecast=forecast,
        wanted_bytes=None,
        tried=NOTHING_TRIED,
    )
    cost = managed(seen).cost
    steps = steps_for(decision, seen.reading.kind)
    if arguments.json:
        found = {
            "decision": decision.kind,
            "reason": decision.reason,
            "growth": None if isinstance(decision, Hold | Refuse) else str(decision.growth),
            "size_bytes": decision.size_bytes if isinstance(decision, Grow | Enlarge) else None,
            "usd_per_month": (
                decision.usd_per_month if isinstance(decision, Grow | Enlarge) else None
            ),
            "volume": decision.volume.id if isinstance(decision, Enlarge) else None,
            "target_bytes": decision.target_bytes if isinstance(decision, Enlarge) else None,
            "managed_usd_per_month": round(cost.usd_per_month, 2),
            "cost": cost.words,
            "limit": decision.limit.value if isinstance(decision, Refuse) else None,
            "steps": [{"step": step.kind, "title": step.title} for step in steps],
        }
        print(json_text(found, indent=1))
    else:
        hint = decision.hint if isinstance(decision, Refuse) else ""
        print(with_hint(describe(decision), hint))
        for number, step in enumerate(steps, start=1):
            print(f"  {number}. {step.title}")
        print(f"managed volumes now cost {cost.words}")
    return Exit.REFUSED if isinstance(decision, Refuse) else Exit.SUCCESS


def _forecast_of_daemon(settings: config.Settings) -> Forecast:
    """What a running daemon forecasts, so that it and this verb judge alike."""
    daemon = running_daemon(paths.status_file(settings.mountpoint))
    return daemon.view.forecast if daemon else Forecast()


def _simulate(arguments: argparse.Namespace) -> int:
    """Print what the policy would do for a steady writer; asks the filesystem at most."""
    from ebs_autoscale import simulation

    scenario = simulation.parse_scenario(arguments.simulate)
    path: Path = arguments.config
    settings, assumed = _settings_or_default(path), f"the configuration in {path}"
    if not settings.mountpoint:
        assumed = f"the default configuration, since there is no {path}"
    start, origin = _start_of(scenario, settings, path)
    found = simulation.report(scenario, start, settings.policy, settings.volume, (assumed, origin))
    if arguments.json:
        print(json.dumps(simulation.as_json(found), indent=1))
    else:
        print(simulation.as_text(found))
    return Exit.SUCCESS if found.course.full_at_seconds is None else Exit.REFUSED


def _start_of(scenario: "Scenario", settings: config.Settings, path: Path) -> tuple["Reading", str]:
    """The filesystem that the simulation starts from, and what there is to say about it."""
    from ebs_autoscale import simulation

    volume, mountpoint = settings.volume, settings.mountpoint
    if scenario.size_bytes is None and scenario.kind is None and mountpoint:
        try:
            reading = filesystem_of(settings, SystemClock()).read()
        except EbsAutoscaleError as error:
            error.hint += "; or simulate an empty filesystem of your own: size=100GiB"
            raise
        if reading.kind.takes_devices:
            return reading, f"the devices of {mountpoint} are volumes as configured, of no growth"
        return reading, f"{mountpoint} is {reading.kind} on one volume, as configured and ours"
    if scenario.size_bytes is not None:
        _require_offered("--simulate: size", scenario.size_bytes, volume, path)
    size_bytes = _first_size_bytes(scenario.size_bytes, settings)
    size = format_size(size_bytes)
    usd = usd_per_month(volume, size_bytes)
    kind = scenario.kind or FilesystemKind.BTRFS
    what = "an empty filesystem" if kind.takes_devices else f"an empty {kind}"
    origin = f"{what} on one volume of {size}, which itself costs {usd:.2f} USD a month"
    if scenario.size_bytes is None:
        origin += "; size=100GiB for another"
    return simulation.empty(size_bytes, kind), origin


def status(arguments: argparse.Namespace) -> int:
    """Print space, the next decision and pending retries; with or without a daemon."""
    from ebs_autoscale.cli import status as printed

    path: Path = arguments.config
    if arguments.missing_volumes:
        return _show_missing_volumes(config.load(path), arguments.missing_volumes)
    # Nobody has named a configuration: the parser's default itself.
    given = None if path is paths.CONFIG_DEFAULT else path
    configurations = printed.configured(given)
    return printed.show(configurations, as_json=arguments.json, watch=arguments.watch)


def _show_missing_volumes(settings: config.Settings, filesystem: str) -> int:
    """Print the volumes of this filesystem that have no block device on this host."""
    from ebs_autoscale.host.block_devices import BlockDevices

    cloud, block_devices = cloud_of(settings, SystemClock()), BlockDevices()
    for volume in cloud.inventory(filesystem).volumes:
        if volume.state not in DEAD_VOLUME_STATES and not block_devices.node_of(volume):
            where = f"attached to {volume.attached_to}" if volume.attached_to else volume.state
            print(f"{volume.id} of growth {volume.growth} is missing: {where}")
    return Exit.SUCCESS


def history(arguments: argparse.Namespace) -> int:
    """Print what has happened, from the journal and the log."""
    from ebs_autoscale.cli import history as printed

    since, plot = arguments.since, arguments.plot
    return printed.show(arguments.config, since, as_json=arguments.json, plot=plot)


def check(arguments: argparse.Namespace) -> int:
    """Run every check, and print what to do about each problem."""
    from ebs_autoscale import checks
    from ebs_autoscale.cli.terminal import columns

    mountpoint = "" if arguments.mountpoint is None else _mountpoint(arguments.mountpoint)
    width = None if arguments.json else columns()
    return checks.show(arguments.config, mountpoint, as_json=arguments.json, columns=width)


def init(arguments: argparse.Namespace) -> int:
    """Set up one filesystem, from the volume to the service; what exists is left as it is."""
    from ebs_autoscale.provision import Initialisation

    wanted = _setup_of(arguments)
    mounted = _kind_at(wanted.mountpoint)
    require_tools_of(mounted or wanted.kind or FilesystemKind.BTRFS, makes=mounted is None)
    clock = _stoppable_clock()
    with Lock(paths.init_lock()):
        Initialisation(wanted, clock, LogSink()).run()
    return Exit.SUCCESS


def _setup_of(arguments: argparse.Namespace) -> "Setup":
    from ebs_autoscale.provision import Setup, read_older, text_for

    older = read_older(arguments.from_file) if arguments.from_file else None
    asked = arguments.mountpoint or (older.mountpoint if older else "")
    if not asked:
        what = "init: name a MOUNTPOINT such as /scratch"
        raise ConfigInvalid(what, cause=Cause.USAGE)
    mountpoint = _mountpoint(asked, is_named=arguments.mountpoint is not None)
    if mountpoint == "/" and arguments.mode is not None:
        raise ConfigInvalid("--mode is not for the root filesystem", cause=Cause.USAGE)
    path, settings = config.settings_for(arguments.config, mountpoint)
    config_text = text_for(mountpoint)
    if older:
        config_text = _translate(older, mountpoint, path)
        if not config.exists(path):
            settings = config.parse(config_text, name=older.name)
    if arguments.device and arguments.size:
        what = "--size cannot be used with --device, which creates no volume"
        raise ConfigInvalid(what, cause=Cause.USAGE)
    size_bytes = _first_size_bytes(arguments.size, settings)
    # What is too large is refused by growth.max, with its price.
    if not arguments.device and size_bytes < settings.policy.sizing.sold_min_bytes:
        _require_offered("--size", size_bytes, settings.volume, path)
    return Setup(
        # As the kernel's mount table has it.
        settings=replace(settings, mountpoint=mountpoint),
        config_path=path,
        config_text=config_text,
        size_bytes=size_bytes,
        asked=config.mountpoint(asked),
        device=arguments.device,
        mode=arguments.mode,
        kind=FilesystemKind(arguments.filesystem) if arguments.filesystem else None,
    )


def _translate(older: "Older", mountpoint: str, path: Path) -> str:
    """Our configuration instead of the older script's, and a report of both on stdout."""
    from ebs_autoscale.provision import translation_for

    if older.mountpoint and _mountpoint(older.mountpoint) != mountpoint:
        raise ConfigInvalid(
            f"{older.name} is for {older.mountpoint}, not for {mountpoint}",
            hint="omit MOUNTPOINT, or correct the mountpoint in a copy of the file",
            cause=Cause.USAGE,
        )
    translation = translation_for(mountpoint, older)
    print(f"{older.name} -> {path}\n{translation.report}", flush=True)
    if config.exists(path):
        would = f"{path} exists and is not changed; without it, it would have become:"
        print(f"{would}\n\n{translation.text}", flush=True)
    return translation.text


def _first_size_bytes(wanted_bytes: int | None, settings: config.Settings) -> int:
    """Whole GiB, rounded up; the default is within the limits, as is what the role may create."""
    if wanted_bytes is not None:
        return _whole_gib(wanted_bytes)
    policy = settings.policy
    allowed_bytes = min(policy.sizing.max_bytes, policy.limits.total_bytes)
    return min(FIRST_SIZE_BYTES, allowed_bytes // GIB * GIB)


def _require_offered(option: str, size_bytes: int, volume: VolumeSpec, path: Path) -> None:
    """Raise ConfigInvalid for a size that EC2 does not have with this type and these IOPS."""
    offer = VOLUME_TYPES[volume.type]
    min_gib, max_gib = offer.min_gib_with(volume.iops), offer.max_gib
    if min_gib <= size_bytes // GIB <= max_gib:
        return
    kind, keys = f"a {volume.type} volume", "volume.type"
    if volume.iops:
        kind, keys = f"{kind} with volume.iops: {volume.iops}", "volume.iops or volume.type"
    raise ConfigInvalid(
        f"{option} {format_size(size_bytes)}: {kind} can have {min_gib} to {max_gib} GiB",
        hint=f"choose a size in that range, or change {keys} in {path}",
        cause=Cause.USAGE,
    )


def _mountpoint(text: str, *, is_named: bool = True) -> str:
    """The path without symlinks; raises ConfigInvalid for what cannot be a mountpoint.

    The root filesystem is meant only where an operator has named it, and by no other name: a link
    that leads there, or a variable that is empty, is a mistake. It is never BTRFS.
    """
    try:
        path = config.mountpoint(text)
    except ValueError as error:
        raise ConfigInvalid(f"MOUNTPOINT: {error}", cause=Cause.USAGE) from error
    real = os.path.realpath(path)
    if real == "/" and (text != "/" or not is_named):
        raise ConfigInvalid(
            f"MOUNTPOINT {text} leads to the root filesystem",
            hint="to have that grow, name it: `ebs-autoscale init /`",
            cause=Cause.USAGE,
        )
    if real == "/" and (_kind_at(real) or FilesystemKind.BTRFS).takes_devices:
        what = f"MOUNTPOINT {text}: / is mounted already, and neither XFS nor ext4"
        raise ConfigInvalid(what, cause=Cause.USAGE)
    if not real.isprintable():
        what = f"MOUNTPOINT {text!r}: fstab cannot contain control characters"
        raise ConfigInvalid(what, cause=Cause.USAGE)
    return real


def _kind_at(path: str) -> FilesystemKind | None:
    """The kind of what is mounted at this path, if it can grow."""
    mount = MountTable().at(os.path.realpath(path))
    return next((kind for kind in FilesystemKind if mount and kind == mount.kind), None)


def uninstall(arguments: argparse.Namespace) -> int:
    """Remove what `init` put on this host."""
    from ebs_autoscale import provision

    return provision.uninstall(arguments.config, purge=arguments.purge_empty)


def iam_policy(arguments: argparse.Namespace) -> int:
    """Print the policy for the instance's role; asks neither EC2 nor the filesystem.

    Where XFS or ext4 is mounted at the configured mountpoint, no volume is ever created.
    """
    from ebs_autoscale.ec2 import iam

    path: Path = arguments.config
    settings = _settings_or_default(path)
    volume, key = settings.volume, arguments.kms_key
    if key is None and volume.kms_key_id not in {None, "alias/aws/ebs"}:
        if iam.is_key_arn(volume.kms_key_id):
            key = volume.kms_key_id
        else:
            print(
                f"ebs-autoscale: volume.kms_key_id in {path} is not the ARN of a key: the policy "
                "is without that key; name it with --kms-key ARN",
                file=sys.stderr,
            )
    kind = _kind_at(settings.mountpoint) if settings.mountpoint else None
    adds = kind is None or kind.takes_devices
    always_enlarges = settings.policy.sizing.method is GrowthMethod.ENLARGE or not adds
    options = ["--adopt"] if arguments.adopt or settings.adopt else []
    options += ["--enlarge"] if arguments.enlarge or always_enlarges else []
    document = iam.policy_document(
        volume,
        max_bytes=settings.policy.sizing.max_bytes,
        kms_key_arn=key if adds else None,
        options=options,
        adds=adds,
    )
    print(json.dumps(document, indent=2))
    return Exit.SUCCESS


def _settings_or_default(path: Path) -> config.Settings:
    """The defaults, without a mountpoint, where there is no file: most workstations have none."""
    return config.load(path) if config.exists(path) else config.Settings(mountpoint="")


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo; it is a distribution of its own, which no production host has."""
    try:
        from ebs_autoscale_demo.demo import run
    except ModuleNotFoundError:
        print(
            "ebs-autoscale: the demo is not installed; in a clone of the repository, run "
            "`make demo`, or `pip install './sandbox[demo]'`",
            file=sys.stderr,
        )
        return Exit.UNFIT
    return run(rate_bytes_per_second=arguments.rate)
