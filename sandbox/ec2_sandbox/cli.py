"""The command line: a sandbox in the foreground, or around one command."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import get_args

from ec2_sandbox import __version__
from ec2_sandbox.client import client_environment
from ec2_sandbox.errors import InputInvalid, SandboxError
from ec2_sandbox.http.server import SandboxServer
from ec2_sandbox.settings import BlockDevices, SandboxSettings

_EXIT_USAGE = 2
_EXIT_UNFIT = 5
# What shells and env(1) return for a command that they cannot run.
_EXIT_NOT_RUN = 127
_SIGNALLED = 128
# They would win over the credentials of the simulated instance.
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)


def main(argv: list[str] | None = None) -> int:
    """Run until a signal, the end of the command or the end of stdin; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        server = SandboxServer(
            _settings(arguments), directory=arguments.directory, port=arguments.port
        )
    except InputInvalid as error:
        return _report(error, _EXIT_USAGE)
    except (SandboxError, OSError) as error:
        return _report(error, _EXIT_UNFIT)
    with server:
        if arguments.command:
            return _run_command(arguments.command, _environment(server))
        _serve_until_stopped(server, until_stdin_closes=arguments.until_stdin_closes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ec2-sandbox",
        usage="%(prog)s [options] [-- COMMAND [ARGUMENT ...]]",
        description="A simulated EC2 and instance metadata service for testing programs that use "
        "EBS. No AWS account is needed; with --block-devices, attached volumes are real block "
        "devices in /dev. COMMAND is run with the sandbox as its EC2, and the sandbox ends with "
        "it; without COMMAND, the sandbox prints what to export and runs until Ctrl-C.",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: any free one)")
    parser.add_argument(
        "--block-devices",
        choices=get_args(BlockDevices),
        help="how attached volumes appear in /dev: not at all (none, the default), as a link by "
        "volume id (nitro), or under the requested name (xen); nitro and xen need root",
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help='JSON object, for example {"preset": "realistic", "create_seconds": [1, 5]}; - reads '
        "one line from stdin; http://127.0.0.1:PORT/_sandbox/settings lists all keys",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the sparse files behind the volumes are stored (default: %(default)s)",
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when stdin closes, for programs that start a sandbox",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _settings(arguments: argparse.Namespace) -> SandboxSettings:
    settings = SandboxSettings.from_json(_settings_text(arguments.settings))
    if arguments.block_devices:
        settings = replace(settings, block_devices=arguments.block_devices)
    return settings


def _settings_text(source: str | None) -> str:
    if source is None:
        return '{"preset": "realistic"}'
    if source == "-":
        return sys.stdin.readline()
    try:
        return Path(source).read_text()
    except OSError as error:
        raise InputInvalid(f"cannot read the settings: {error}") from error


def _environment(server: SandboxServer) -> dict[str, str]:
    region = server.world.settings.region
    # Before release 2, the AWS CLI knows the second name only.
    return {**client_environment(server.url), "AWS_REGION": region, "AWS_DEFAULT_REGION": region}


def _run_command(argv: list[str], environment: Mapping[str, str]) -> int:
    inherited = {name: value for name, value in os.environ.items() if name not in _CREDENTIALS}
    # Ctrl-C reaches the command as well, and the sandbox ends after it. A handler, unlike
    # SIG_IGN, is not inherited by the command.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(argv, env={**inherited, **environment})
    except OSError as error:
        return _report(error, _EXIT_NOT_RUN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    return status if status >= 0 else _SIGNALLED - status


def _serve_until_stopped(server: SandboxServer, *, until_stdin_closes: bool) -> None:
    end = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    if until_stdin_closes:
        Thread(target=_wait_for_end_of_stdin, args=(end,), daemon=True).start()
    _print_environment(server)
    end.wait()


def _print_environment(server: SandboxServer) -> None:
    settings = server.world.settings
    lines = [f"export {name}={value}" for name, value in _environment(server).items()]
    lines += [
        f"unset {' '.join(_CREDENTIALS)}",
        f"# instance {settings.instance_arn}, block devices: {settings.block_devices}",
        f"# control: {server.url}/_sandbox/state, also journal, faults, clock and settings",
        "# press Ctrl-C to stop",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _wait_for_end_of_stdin(end: Event) -> None:
    while sys.stdin.read(4096):
        pass
    end.set()


def _report(error: Exception, exit_code: int) -> int:
    sys.stderr.write(f"ec2-sandbox: {error}\n")
    return exit_code
