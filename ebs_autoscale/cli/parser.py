"""Verbs, exit codes, and the wiring of everything."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ebs_autoscale import __version__
from ebs_autoscale.cli import verbs
from ebs_autoscale.errors import (
    EbsAutoscaleError,
    Exit,
    Stopped,
)
from ebs_autoscale.host import paths
from ebs_autoscale.telemetry import set_up_logging
from ebs_autoscale.units import parse_size

_EPILOG = """\
exit status:
  0  fine
  1  failed
  2  usage or configuration
  3  another instance holds the lock
  4  refused by a limit
  5  environment unfit
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; every expected failure is one sentence on stderr and an exit code."""
    arguments = _parser().parse_args(argv)
    set_up_logging("auto", arguments.log_level, os.environ)
    verb: Callable[[argparse.Namespace], int] = arguments.verb
    try:
        return verb(arguments)
    except EbsAutoscaleError as error:
        print(f"ebs-autoscale: {error}", file=sys.stderr)
        return error.cause.exit
    except (Stopped, KeyboardInterrupt):
        print("ebs-autoscale: stopped", file=sys.stderr)
        return Exit.FAILED
    except BrokenPipeError:
        # `ebs-autoscale status | head`: nobody reads on, which is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FINE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ebs-autoscale",
        description="Grow a mounted BTRFS filesystem on EC2 by adding EBS volumes in time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common_options(parser)
    config = os.environ.get("EBS_AUTOSCALE_CONFIG") or str(paths.CONFIG_DEFAULT)
    parser.set_defaults(config=config, log_level="info")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="VERB", required=True)
    _add_daemon_verbs(commands)
    _add_looking_verbs(commands)
    _add_host_verbs(commands)
    for verb in commands.choices.values():
        _add_common_options(verb)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    # Without a default: that of the verb would undo what stands before it.
    parser.add_argument(
        "--config",
        metavar="PATH",
        type=_absolute,
        default=argparse.SUPPRESS,
        help=f"configuration file ($EBS_AUTOSCALE_CONFIG, {paths.CONFIG_DEFAULT})",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=argparse.SUPPRESS,
        help="least level that is logged (info)",
    )


def _add_daemon_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="watch the filesystem and grow it: the daemon")
    how = run.add_mutually_exclusive_group()
    how.add_argument(
        "--detach",
        action="store_true",
        help="go to the background, with a pid file and a log file (hosts without systemd)",
    )
    how.add_argument(
        "--wait",
        action="store_true",
        help="wait for the filesystem to be mounted, and say what keeps it from being so",
    )
    how.add_argument(
        "--test", action="store_true", help="only read the configuration: 0 when it is good, else 2"
    )
    run.set_defaults(verb=verbs.run)
    grow = commands.add_parser("grow", help="one growth now, within the same limits; waits for it")
    grow.add_argument(
        "--size", metavar="SIZE", type=_size, help="size of the volume (as configured)"
    )
    grow.set_defaults(verb=verbs.grow)
    # A growth of the daemon reads its request from stdin; see daemon/worker.py.
    grow.add_argument("--request", action="store_true", help=argparse.SUPPRESS)


def _add_looking_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = commands.add_parser("status", help="what it sees, decides, has and waits for")
    status.add_argument("--json", action="store_true", help="for machines")
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    status.set_defaults(verb=verbs.status)
    plan = commands.add_parser("plan", help="the decision, its reason and steps; executes none")
    plan.add_argument("--json", action="store_true", help="for machines")
    plan.add_argument(
        "--simulate",
        metavar="WORD=VALUE",
        nargs="+",
        help="what it would do to a steady writer and cost: rate=500MiB/s hours=2 [size=100GiB]",
    )
    plan.set_defaults(verb=verbs.plan)
    check = commands.add_parser("check", help="rehearse everything; changes nothing")
    check.add_argument("--json", action="store_true", help="for machines")
    check.set_defaults(verb=verbs.check)
    policy = commands.add_parser("iam-policy", help="the least rights that the instance needs")
    policy.add_argument(
        "--kms-key", metavar="ARN", help="also what volumes encrypted with this key need"
    )
    policy.add_argument(
        "--adopt", action="store_true", help="also what `adopt: true` needs, while it is set"
    )
    policy.set_defaults(verb=verbs.iam_policy)
    uninstall = commands.add_parser(
        "uninstall", help="remove unit, line of fstab and configuration; volumes and data stay"
    )
    uninstall.add_argument(
        "--purge-empty",
        action="store_true",
        help="if the filesystem is empty, also unmount it and delete its volumes",
    )
    uninstall.set_defaults(verb=verbs.uninstall)
    # What the daemon asks while a device is missing; see mounting.py.
    absent = commands.add_parser("absent")
    absent.add_argument("filesystem")
    absent.set_defaults(verb=verbs.absent)
    demo = commands.add_parser(
        "demo", help="the whole product on this machine, without an AWS account (as root)"
    )
    demo.add_argument(
        "--rate", metavar="SIZE", type=_size, help="bytes written per second (adapts to the disk)"
    )
    demo.set_defaults(verb=verbs.demo)


def _add_host_verbs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    init = commands.add_parser(
        "init", help="first volume, filesystem, mount, fstab, configuration, service; repeatable"
    )
    init.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the filesystem shall be")
    init.add_argument(
        "--device",
        metavar="DEV",
        help="use this blank device, or the filesystem of ours on it, and buy none",
    )
    init.add_argument(
        "--size", metavar="SIZE", type=_size, help="size of the volume to buy (20GiB)"
    )
    init.set_defaults(verb=verbs.init)


def _absolute(text: str) -> Path:
    """The path in one form: its unit is told by it, and a daemon that goes to / finds it again."""
    try:
        return Path(os.path.abspath(text))  # noqa: PTH100 -- Path.absolute() keeps `..`
    except FileNotFoundError as error:
        what = f"{text}: the working directory is gone, so name it from /"
        raise argparse.ArgumentTypeError(what) from error


def _size(text: str) -> int:
    try:
        size_bytes = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return size_bytes
