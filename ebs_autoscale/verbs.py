"""What each verb does, from arguments to exit code."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ebs_autoscale import __version__, config, iam
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.child import GrowthProcess
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError
from ebs_autoscale.events import Event, EventKind
from ebs_autoscale.exits import Exit
from ebs_autoscale.growth import Outcome, grow_once, observe
from ebs_autoscale.lock import Lock
from ebs_autoscale.model import GIB, Decision, Finish, Grow, Refuse
from ebs_autoscale.monitor import Monitor
from ebs_autoscale.policy import decide, steps_for
from ebs_autoscale.report import LogSink, Sinks, StatusFile, set_up_logging
from ebs_autoscale.service import Notifier, detached, die_with_parent
from ebs_autoscale.space import Forecast, available
from ebs_autoscale.wiring import (
    daemon_lock_path,
    filesystem_of,
    growth_lock_path,
    require_fit_host,
    status_path,
    world_of,
)

# The largest volume of any type (EC2 API reference, CreateVolume).
VOLUME_MAX_BYTES = 64 * 1024 * GIB

LOG_PATH = Path("/var/log/ebs-autoscale.log")

_EXIT_OF = {
    Outcome.DONE: Exit.FINE,
    Outcome.HELD: Exit.FINE,
    Outcome.REFUSED: Exit.REFUSED,
    Outcome.STOPPED: Exit.FAILED,
    Outcome.FAILED: Exit.FAILED,
}


def run(arguments: argparse.Namespace) -> int:
    """Be the daemon until SIGTERM or SIGINT."""
    settings = config.load(arguments.config)
    set_up_logging(settings.log_format, arguments.log_level, os.environ, timed=True)
    require_fit_host()
    with ExitStack() as stack:
        lock = stack.enter_context(Lock(daemon_lock_path(_proved(settings))))
        if arguments.detach:
            pid_path = status_path(settings.mountpoint).with_suffix(".pid")
            keep = (lock.fileno(),)
            stack.enter_context(detached(pid_path=pid_path, log_path=LOG_PATH, keep=keep))
            set_up_logging(settings.log_format, arguments.log_level, os.environ, timed=True)
            lock.sign()
        clock = SystemClock()
        clock.stop_on(signal.SIGTERM, signal.SIGINT)
        return _watch(settings, filesystem_of(settings, clock), clock, arguments)


def _proved(settings: config.Settings) -> str:
    """The filesystem's UUID, once it is seen to be fit; nothing of the look stays open.

    Detaching closes descriptors, so whatever the daemon holds is opened after it.
    """
    filesystem = filesystem_of(settings, SystemClock())
    filesystem.read()
    return filesystem.uuid


def _watch(
    settings: config.Settings,
    filesystem: BtrfsFilesystem,
    clock: SystemClock,
    arguments: argparse.Namespace,
) -> int:
    sinks = Sinks(LogSink())
    notifier = Notifier()
    report = StatusFile(status_path(settings.mountpoint))

    def publish(view: Mapping[str, object]) -> None:
        notifier.feed_watchdog(clock.now_seconds())
        notifier.status(_one_line(view))
        report.write({"version": __version__, "pid": os.getpid(), **_without_reading(view)})

    monitor = Monitor(
        filesystem=filesystem,
        growths=GrowthProcess(
            config_path=arguments.config,
            lock_path=growth_lock_path(filesystem.uuid),
            clock=clock,
        ),
        policy=settings.policy,
        clock=clock,
        emit=sinks,
        publish=publish,
    )
    started = f"watching {filesystem.mountpoint}: {available(filesystem.read())}"
    fields = {"filesystem": filesystem.uuid, "version": __version__}
    sinks(Event(kind=EventKind.STARTED, sentence=started, fields=fields))
    notifier.ready()
    try:
        return monitor.run(on_stop=notifier.stopping)
    finally:
        report.remove()
        sinks(
            Event(kind=EventKind.STOPPING, sentence=f"no longer watching {filesystem.mountpoint}")
        )


def _one_line(view: Mapping[str, object]) -> str:
    conditions = view["conditions"]
    if isinstance(conditions, Mapping) and conditions:
        return "; ".join(str(sentence) for sentence in conditions.values())
    return str(view["activity"] or view["low"] or view["state"])


def _without_reading(view: Mapping[str, object]) -> dict[str, object]:
    """`status` looks for itself; a report that changed with every reading would be all writes."""
    volatile = {"reading", "fill_bytes_per_second", "next_try_in_seconds"}
    return {key: value for key, value in view.items() if key not in volatile}


def grow(arguments: argparse.Namespace) -> int:
    """Grow once: for an operator, or as the daemon's child with its events on a pipe."""
    settings = config.load(arguments.config)
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
        growth_seconds=arguments.growth_seconds or Forecast().growth_seconds,
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


def _sentence(decision: Decision) -> str:
    if isinstance(decision, Refuse):
        return f"refused by {decision.limit}: {decision.reason}; {decision.hint}"
    return f"{type(decision).__name__.lower()}: {decision.reason}"


def status(arguments: argparse.Namespace) -> int:
    """Print what is seen, decided and waited for; with or without a daemon."""
    from ebs_autoscale import status as room  # noqa: PLC0415 -- psutil is for this verb only

    settings = config.load(arguments.config)
    return room.show(settings, as_json=arguments.json, watch=arguments.watch)


def check(arguments: argparse.Namespace) -> int:
    """Rehearse everything and say what to do about what is not fit."""
    from ebs_autoscale import check as room  # noqa: PLC0415 -- loads boto3

    return room.show(arguments.config, as_json=arguments.json)


def iam_policy(arguments: argparse.Namespace) -> int:
    """Print the policy for the instance's role; asks nothing and nobody."""
    print(json.dumps(iam.policy_document(kms_key_arn=arguments.kms_key), indent=2))
    return Exit.FINE


def demo(arguments: argparse.Namespace) -> int:
    """Show the whole product on this machine."""
    try:
        from ebs_autoscale.sandbox import demo as room  # noqa: PLC0415 -- an extra
    except ImportError as error:
        print(
            f"ebs-autoscale: the demo needs {error.name}; pip install 'ebs-autoscale[sandbox]'",
            file=sys.stderr,
        )
        return Exit.UNFIT
    return room.run(rate_bytes_per_second=arguments.rate)
