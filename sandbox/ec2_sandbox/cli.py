"""Run a sandbox in the foreground: `python -m ec2_sandbox`."""

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import get_args

from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError
from ec2_sandbox.client import client_environment
from ec2_sandbox.http.server import SandboxServer
from ec2_sandbox.settings import BlockDevices, SandboxSettings

_EXIT_CONFIG = 2
_EXIT_UNFIT = 5


def main(argv: list[str] | None = None) -> int:
    """Run until a signal, or until the standard input ends where asked for; give the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        server = SandboxServer(
            _settings(arguments), directory=arguments.directory, port=arguments.port
        )
    except ConfigInvalid as error:
        return _complain(error, _EXIT_CONFIG)
    except (EbsAutoscaleError, OSError) as error:
        return _complain(error, _EXIT_UNFIT)
    end = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    if arguments.until_stdin_closes:
        Thread(target=_wait_for_end_of_input, args=(end,), daemon=True).start()
    with server:
        _say_where(server)
        end.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ec2_sandbox",
        description="A small EC2 and instance metadata service for tools that use EBS: no AWS "
        "account, and with --block-devices real devices in /dev. Every setting can be given as "
        "JSON; http://127.0.0.1:PORT/_sandbox/settings shows them all.",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--block-devices",
        choices=get_args(BlockDevices),
        help="what attached volumes look like in /dev: nothing (the default), a link by volume "
        "id as on Nitro instances, or the requested name as on Xen instances; needs root",
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help='JSON object, such as {"preset": "realistic", "create_seconds": [1, 5]}; - reads one '
        "line from the standard input",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the sparse files live; default %(default)s",
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end when the standard input does, so with the process that started this one",
    )
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
        raise ConfigInvalid(f"cannot read the settings: {error}") from error


def _say_where(server: SandboxServer) -> None:
    settings = server.world.settings
    variables = {**client_environment(server.url), "AWS_REGION": settings.region}
    lines = [f"export {name}={value}" for name, value in variables.items()]
    lines += [
        "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE",
        f"# instance {settings.owner_arn}, devices: {settings.block_devices}",
        f"# look and steer: {server.url}/_sandbox/state, also journal, faults, clock, settings",
        "# Ctrl-C ends it",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _wait_for_end_of_input(end: Event) -> None:
    while sys.stdin.read(4096):
        pass
    end.set()


def _complain(error: Exception, exit_code: int) -> int:
    sys.stderr.write(f"sandbox: {error}\n")
    return exit_code
