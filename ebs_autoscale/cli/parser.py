"""The command line: verbs, options, and errors as exit codes."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from io import FileIO, TextIOWrapper
from itertools import takewhile
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from ebs_autoscale import __version__
from ebs_autoscale.cli import verbs
from ebs_autoscale.errors import EbsAutoscaleError, Exit, Stopped
from ebs_autoscale.host import paths
from ebs_autoscale.model import FilesystemKind
from ebs_autoscale.telemetry import last_words, set_up_logging
from ebs_autoscale.units import parse_size, quoted

if TYPE_CHECKING:
    _Verbs = argparse._SubParsersAction["Parser"]  # noqa: SLF001 -- has no other name

_EPILOG = """\
exit status:
  0  success
  1  failed
  2  usage or configuration error
  3  another process holds the lock
  4  refused by a limit
  5  environment unfit
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; an expected failure is one line on stderr and an exit code."""
    _open_standard_streams()
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    parser.require_known_options(words)
    arguments = parser.parse_args(words)
    set_up_logging("auto", arguments.log_level, os.environ)
    verb: Callable[[argparse.Namespace], int] = arguments.verb
    try:
        code = verb(arguments)
    except EbsAutoscaleError as error:
        last_words(f"ebs-autoscale: {error}")
        code = error.cause.exit
    except (Stopped, KeyboardInterrupt):
        last_words("ebs-autoscale: stopped")
        code = Exit.FAILED
    except Exception as error:  # noqa: BLE001 -- told, unless stdout is what failed: see below
        if isinstance(error, OSError) and (code_of_output := _finish_output()) is not None:
            return code_of_output
        last_words(format_exc())
        code = Exit.FAILED
    return _finish_output() or code


def _open_standard_streams() -> None:
    """Have all three, else the next device or lock that is opened is taken for one of them."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        # It was closed, and Python looked before us; what asks it for its width needs a stream.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- lasts
    if isinstance(sys.stdout, TextIOWrapper):
        if isinstance(sys.stdout.buffer, FileIO):
            # With PYTHONUNBUFFERED, every `print` could fail; with a buffer, it is the last flush.
            fd, encoding = sys.stdout.fileno(), sys.stdout.encoding
            sys.stdout = open(fd, "w", encoding=encoding, closefd=False)  # noqa: SIM115 -- lasts
        # File names and mount sources have any byte.
        sys.stdout.reconfigure(errors="backslashreplace")


def _finish_output() -> int | None:
    """Write what is left of the output; returns an exit code if that fails, else None."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe has ended, as in `ebs-autoscale status | head`: no failure.
            return Exit.SUCCESS
        last_words(f"ebs-autoscale: cannot write the output: {error.strerror}")
        return Exit.FAILED
    return None


class Parser(argparse.ArgumentParser):
    """Suggests the nearest verb or option instead of a wrong one."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.verbs: dict[str, Parser] = {}

    def options(self) -> dict[str, str]:
        """Each option of this verb, with its help text."""
        return {
            each: action.help or "" for action in self._actions for each in action.option_strings
        }

    def require_known_options(self, words: Sequence[str]) -> None:
        """Exit for an option that no verb has, before its value is taken for the verb.

        Also for abbreviations, which would reach the options between our own processes.
        """
        parsers = (self, *self.verbs.values())
        known = {option for parser in parsers for option in parser.options()}
        for word in takewhile(lambda word: word != "--", words):
            option = word.partition("=")[0]
            if option.startswith("--") and option not in known:
                parser = next((self.verbs[each] for each in words if each in self.verbs), self)
                offered = [k for k, told in parser.options().items() if told != argparse.SUPPRESS]
                parser.error(f"unknown option {quoted(option)}{_near(option, offered)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = list(action.choices or ())
        if action.choices is None or value in choices:
            return
        name = action.option_strings[-1] if action.option_strings else "verb"
        raise argparse.ArgumentError(None, f"unknown {name} {quoted(value)}{_near(value, choices)}")


def _near(word: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; choose from {', '.join(choices)}"


def build_parser() -> Parser:
    """The parser of the command line, from which the shell completion is generated too."""
    parser = Parser(
        prog="ebs-autoscale",
        description="Grow a mounted filesystem on EC2 before it is full.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common_options(parser)
    config = os.environ.get("EBS_AUTOSCALE_CONFIG") or paths.CONFIG_DEFAULT
    parser.set_defaults(config=config, log_level="info")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_init(commands)
    _add_run(commands)
    _add_inspecting_verbs(commands)
    _add_history(commands)
    _add_grow(commands)
    _add_uninstall(commands)
    _add_iam_policy(commands)
    _add_demo(commands)
    parser.verbs = dict(commands.choices)
    for verb in parser.verbs.values():
        _add_common_options(verb)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    # No defaults here: the verb's own would overwrite what is given before the verb.
    parser.add_argument(
        "--config",
        metavar="PATH",
        type=_absolute,
        default=argparse.SUPPRESS,
        # The path last, which argparse else breaks at its hyphen on 80 columns.
        help=f"configuration file (default: $EBS_AUTOSCALE_CONFIG, else {paths.CONFIG_DEFAULT})",
    )
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        choices=("debug", "info", "warning", "error"),
        default=argparse.SUPPRESS,
        help="minimum log level: debug, info, warning or error (default: info)",
    )


def _add_verb(
    commands: "_Verbs", name: str, summary: str, description: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=summary, description=description or f"{summary[0].upper()}{summary[1:]}."
    )


def _add_init(commands: "_Verbs") -> None:
    init = _add_verb(
        commands,
        "init",
        "set up volume, filesystem, mount, fstab, configuration and service",
        "Set up what is missing: volume, filesystem, mount, a line in /etc/fstab, configuration "
        "and service. Keeps what exists, never overwrites data, and is safe to repeat.",
    )
    init.add_argument(
        "mountpoint",
        metavar="MOUNTPOINT",
        nargs="?",
        help="where to mount the filesystem, or where one is mounted, such as / (with --from, the "
        "default is the one in that file)",
    )
    init.add_argument(
        "--filesystem",
        metavar="KIND",
        choices=[kind.value for kind in FilesystemKind],
        help="btrfs, which grows by volumes, or xfs or ext4, which grow with their only volume "
        "(default: what there is, else btrfs)",
    )
    init.add_argument(
        "--from",
        metavar="FILE",
        type=_absolute,
        dest="from_file",
        help="translate the configuration of the older script, such as /etc/ebs-autoscale.json, "
        "and report what became of each key",
    )
    init.add_argument(
        "--device",
        metavar="DEV",
        help="use this device instead of creating a volume; it must be blank or have a "
        "filesystem of ebs-autoscale or of the older script",
    )
    init.add_argument(
        "--size",
        metavar="SIZE",
        type=_size,
        help="size of the volume to create (default: 20GiB, or growth.max or limits.total if less)",
    )
    init.add_argument(
        "--mode",
        metavar="MODE",
        type=_mode,
        help="set the permissions of the filesystem's root, in octal, such as 1777 for every user "
        "to write (default: unchanged, which for a new filesystem is 0755)",
    )
    init.set_defaults(verb=verbs.init)


def _add_run(commands: "_Verbs") -> None:
    run = _add_verb(
        commands, "run", "run the daemon", "Watch the filesystem and grow it before it is full."
    )
    how = run.add_mutually_exclusive_group()
    how.add_argument(
        "--detach",
        action="store_true",
        help="run in the background, with a PID file and a log file, on hosts without systemd",
    )
    how.add_argument(
        "--wait",
        action="store_true",
        help="wait for the filesystem to be mounted, and mount it once all its devices are present",
    )
    how.add_argument("--test", action="store_true", help="validate the configuration and exit")
    run.set_defaults(verb=verbs.run)


def _add_inspecting_verbs(commands: "_Verbs") -> None:
    status = _add_verb(commands, "status", "show space, the next decision and pending retries")
    _add_json(status)
    status.add_argument("--watch", action="store_true", help="redraw every second until Ctrl-C")
    # What a daemon that waits for its mount asks; see daemon/await_mount.py.
    status.add_argument("--missing-volumes", metavar="UUID", help=argparse.SUPPRESS)
    status.set_defaults(verb=verbs.status)
    check = _add_verb(
        commands,
        "check",
        "find out what is wrong, without changing anything",
        "Find out what is wrong and what to do about it, without changing anything. Before `init`, "
        "`check MOUNTPOINT` finds out whether it can work here.",
    )
    check.add_argument(
        "mountpoint",
        metavar="MOUNTPOINT",
        nargs="?",
        help="check this mountpoint, set up or not (default: the one in the configuration file)",
    )
    _add_json(check)
    check.set_defaults(verb=verbs.check)
    plan = _add_verb(
        commands, "plan", "show the next decision, its reason and its steps, without executing them"
    )
    _add_json(plan)
    plan.add_argument(
        "--simulate",
        metavar="KEY=VALUE",
        nargs="+",
        help="simulate a steady writer: when the filesystem would grow, by how much, and the list "
        "price; rate=500MiB/s hours=2 [size=100GiB] [filesystem=xfs]; without a configuration "
        "file the defaults",
    )
    plan.set_defaults(verb=verbs.plan)


def _add_history(commands: "_Verbs") -> None:
    history = _add_verb(
        commands,
        "history",
        "show past growths, refusals and alarms, from the journal or the log",
        "Show growths, refusals and alarms since a given time, with their causes, the duration of "
        "each step, sizes and costs, from the journal or, without systemd, from the log.",
    )
    # `-2h`, as journalctl takes it, looks like an option to argparse.
    history._negative_number_matcher = re.compile(r"-[0-9]")  # noqa: SLF001 -- has no other name
    history.add_argument(
        "--since",
        metavar="T",
        default="7 days ago",
        help="from when on: 2 days ago, 12h, 90s, yesterday, 2026-11-27 or '2026-11-27 10:00' "
        "(default: 7 days ago)",
    )
    _add_json(history)
    history.add_argument(
        "--plot", metavar="FILE", type=_absolute, help="also draw the added capacity as an SVG"
    )
    history.set_defaults(verb=verbs.history)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_grow(commands: "_Verbs") -> None:
    grow = _add_verb(
        commands,
        "grow",
        "grow now, within the configured limits",
        "Add one volume now, within the configured limits, and wait for it to complete.",
    )
    grow.add_argument(
        "--size", metavar="SIZE", type=_size, help="size of the volume (default: as configured)"
    )
    # The daemon's growth process reads its request from stdin; see daemon/worker.py.
    grow.add_argument("--request", action="store_true", help=argparse.SUPPRESS)
    grow.set_defaults(verb=verbs.grow)


def _add_uninstall(commands: "_Verbs") -> None:
    uninstall = _add_verb(
        commands,
        "uninstall",
        "undo init, keeping volumes and data",
        "Stop the daemon and remove service, fstab line and configuration. Volumes and data stay.",
    )
    uninstall.add_argument(
        "--purge-empty",
        action="store_true",
        help="if the filesystem is empty, also unmount it and delete its volumes",
    )
    uninstall.set_defaults(verb=verbs.uninstall)


def _add_iam_policy(commands: "_Verbs") -> None:
    policy = _add_verb(
        commands,
        "iam-policy",
        "print the least-privilege IAM policy for the instance's role",
        "Print the least-privilege IAM policy for the instance's role. It allows volumes of the "
        "type, size, IOPS and encryption that the configuration asks for; without a configuration "
        "file, of the default ones.",
    )
    policy.add_argument(
        "--kms-key",
        metavar="ARN",
        help="include the statements for volumes encrypted with this KMS key",
    )
    policy.add_argument(
        "--adopt",
        action="store_true",
        help="include the statement that `adopt: true` needs; with --enlarge also the one with "
        "which `init` tags the volume of XFS or ext4 that is mounted already",
    )
    policy.add_argument(
        "--enlarge",
        action="store_true",
        help="include the statements with which volumes are enlarged: that of XFS or ext4, and "
        "those of BTRFS where no other can be added",
    )
    policy.set_defaults(verb=verbs.iam_policy)


def _add_demo(commands: "_Verbs") -> None:
    demo = _add_verb(
        commands,
        "demo",
        "run a demonstration without an AWS account (as root)",
        "Fill and grow a real BTRFS filesystem on this machine, with a simulated EC2. Needs root.",
    )
    demo.add_argument(
        "--rate",
        metavar="SIZE",
        type=_size,
        help="write rate per second, such as 40MiB (default: what this machine can sustain)",
    )
    demo.set_defaults(verb=verbs.demo)


def _absolute(text: str) -> Path:
    """The absolute path: a unit is found by it, and a detached daemon runs in /."""
    try:
        return Path(os.path.abspath(text))  # noqa: PTH100 -- Path.absolute() keeps `..`
    except FileNotFoundError as error:
        what = f"{text}: the working directory no longer exists; use an absolute path"
        raise argparse.ArgumentTypeError(what) from error


def _size(text: str) -> int:
    try:
        size_bytes = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return size_bytes


def _mode(text: str) -> int:
    if not re.fullmatch(r"[0-3]?[0-7]{3}", text, re.ASCII):
        what = f"{quoted(text)} is no mode: use octal digits, such as 1777, 2775 or 0755"
        raise argparse.ArgumentTypeError(what)
    return int(text, 8)
