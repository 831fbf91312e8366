"""What each verb does, from arguments to exit code."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import schema as config
from ebs_autoscale.ec2 import iam
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError
from ebs_autoscale.exits import Exit
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.service import die_with_parent
from ebs_autoscale.model import GIB, Decision, Finish, Grow, Refuse
from ebs_autoscale.policy.decision import DEAD_STATES, decide, steps_for
from ebs_autoscale.policy.shortage import Forecast
from ebs_autoscale.resize.growth import Outcome, grow_once, observe
from ebs_autoscale.simulation import steady_writer as simulation
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.logs import LogSink
from ebs_autoscale.wiring import (
    cloud_of,
    filesystem_of,
    growth_lock_path,
    require_fit_host,
    world_of,
)

# The largest volume of any type (EC2 API reference, CreateVolume).
VOLUME_MAX_BYTES = 64 * 1024 * GIB

_EXIT_OF = {
    Outcome.DONE: Exit.FINE,
    Outcome.HELD: Exit.FINE,
    Outcome.REFUSED: Exit.REFUSED,
    Outcome.STOPPED: Exit.FAILED,
    Outcome.FAILED: Exit.FAILED,
    Outcome.UNFIT: Exit.UNFIT,
}


def grow(arguments: argparse.Namespace) -> int:
    """Grow once: for an operator, or as the daemon's child with its events on a pipe."""
    settings = _settings_of_growth(arguments)
    wanted = _wanted_bytes(arguments)
    require_fit_host()
    clock = SystemClock()
    if arguments.events_fd is not None:
        die_with_parent(signal.SIGTERM)
    clock.stop_on(signal.SIGTERM, signal.SIGINT)
    filesystem = filesystem_of(settings, clock)
    emit = _pipe(arguments.events_fd) if arguments.events_fd is not None else LogSink()
    forecast = Forecast(
        fill_bytes_per_second=arguments.fill_rate or 0.0,
        sustained_bytes_per_second=arguments.fill_trend or 0.0,
        growth_seconds=arguments.growth_seconds or Forecast().growth_seconds,
        used_bytes=arguments.used_bytes,
    )
    # The daemon's child inherits the lock; see child.py.
    lock = None if arguments.lock_fd is not None else Lock(growth_lock_path(filesystem.uuid))
    try:
        world = world_of(settings, filesystem, clock, emit)
        return _EXIT_OF[grow_once(world, settings.policy, forecast, wanted)]
    except EbsAutoscaleError as error:
        if arguments.events_fd is None:
            raise
        fields = {"cause": error.cause}
        emit(Event(kind=EventKind.GROWTH_FAILED, sentence=str(error), fields=fields))
        return Exit.FAILED
    finally:
        if lock:
            lock.close()


def _settings_of_growth(arguments: argparse.Namespace) -> config.Settings:
    """The daemon hands its child the configuration it goes by itself; see child.py."""
    if arguments.config_fd is None:
        return config.load(arguments.config)
    with os.fdopen(arguments.config_fd, encoding="utf-8") as file:
        return config.parse(file.read(), name=str(arguments.config))


def _wanted_bytes(arguments: argparse.Namespace) -> int | None:
    """Whole GiB, rounded up; 0 stands for the usual size, None for only if needed."""
    if arguments.if_needed:
        return None
    size: int = arguments.size or 0
    if size > VOLUME_MAX_BYTES:
        raise ConfigInvalid(f"--size {size // GIB} GiB: no EBS volume is larger than 64 TiB")
    return -(-size // GIB) * GIB


def _pipe(events_fd: int) -> Callable[[Event], None]:
    os.set_inheritable(events_fd, False)  # noqa: FBT003 -- the tools we run have no business with it

    def emit(event: Event) -> None:
        try:
            os.write(events_fd, event.to_json().encode() + b"\n")
        except BrokenPipeError:
            # The daemon is gone; what was begun is told by whoever comes next.
            return

    return emit


def plan(arguments: argparse.Namespace) -> int:
    """Print the decision, its reason and its steps."""
    settings = config.load(arguments.config)
    if arguments.simulate:
        return _simulate(settings, arguments)
    require_fit_host()
    clock = SystemClock()
    filesystem = filesystem_of(settings, clock)
    world = world_of(settings, filesystem, clock, LogSink())
    reading, inventory = observe(world)
    decision = decide(reading, inventory, settings.policy, forecast=Forecast())
    steps = steps_for(decision)
    size = decision.size_bytes if isinstance(decision, Grow) else None
    if arguments.json:
        found = {
            "decision": type(decision).__name__.lower(),
            "reason": decision.reason,
            "growth": str(decision.growth) if isinstance(decision, Grow | Finish) else None,
            "size_bytes": size,
            "limit": decision.limit if isinstance(decision, Refuse) else None,
            "steps": [{"step": type(s).__name__, "title": s.title} for s in steps],
        }
        print(json.dumps(found, indent=1))
    else:
        print(_sentence(decision))
        for number, step in enumerate(steps, start=1):
            print(f"  {number}. {step.title}")
    return Exit.REFUSED if isinstance(decision, Refuse) else Exit.FINE


def _simulate(settings: config.Settings, arguments: argparse.Namespace) -> int:
    """Print what the policy would do to a steady writer; asks the filesystem at most."""
    scenario = simulation.parse_scenario(arguments.simulate)
    if scenario.size_bytes:
        start = simulation.empty(scenario.size_bytes)
    else:
        start = filesystem_of(settings, SystemClock()).read()
    course = simulation.simulate(scenario, start, settings.policy)
    if arguments.json:
        print(json.dumps(simulation.as_json(scenario, course, settings.volume), indent=1))
    else:
        print("\n".join(simulation.told(scenario, course, settings.volume)))
    return Exit.FINE


def _sentence(decision: Decision) -> str:
    if isinstance(decision, Refuse):
        return f"refused by {decision.limit}: {decision.reason}; {decision.hint}"
    return f"{type(decision).__name__.lower()}: {decision.reason}"


def status(arguments: argparse.Namespace) -> int:
    """Print what is seen, decided and waited for; with or without a daemon."""
    from ebs_autoscale.cli import status as room  # noqa: PLC0415 -- psutil is for this verb only

    settings = config.load(arguments.config)
    return room.show(settings, as_json=arguments.json, watch=arguments.watch)


def check(arguments: argparse.Namespace) -> int:
    """Rehearse everything and say what to do about what is not fit."""
    from ebs_autoscale.checks import runner as room  # noqa: PLC0415 -- loads boto3

    return room.show(arguments.config, as_json=arguments.json)


def absent(arguments: argparse.Namespace) -> int:
    """Name the filesystem's volumes that this host does not show: for the daemon that waits."""
    settings = config.load(arguments.config)
    clock = SystemClock()
    cloud, nodes = cloud_of(settings, clock), BlockDevices()
    for volume in cloud.inventory(arguments.filesystem).volumes:
        if volume.state not in DEAD_STATES and not nodes.node_of(volume):
            where = f"attached to {volume.attached_to}" if volume.attached_to else volume.state
            print(f"{volume.id} of growth {volume.growth} is not here: {where}")
    return Exit.FINE


def uninstall(arguments: argparse.Namespace) -> int:
    """Take away what `init` put on this host."""
    from ebs_autoscale.provision import uninstall as room  # noqa: PLC0415 -- for this verb only

    return room.uninstall(arguments)


def iam_policy(arguments: argparse.Namespace) -> int:
    """Print the policy for the instance's role; asks nothing and nobody."""
    document = iam.policy_document(kms_key_arn=arguments.kms_key, adopt=arguments.adopt)
    print(json.dumps(document, indent=2))
    return Exit.FINE


def demo(arguments: argparse.Namespace) -> int:
    """Show the whole product on this machine."""
    try:
        from ebs_autoscale_demo import demo as room  # noqa: PLC0415 -- an extra
    except ImportError as error:
        print(
            f"ebs-autoscale: the demo needs {error.name}; pip install ebs-autoscale-sandbox",
            file=sys.stderr,
        )
        return Exit.UNFIT
    return room.run(rate_bytes_per_second=arguments.rate)
