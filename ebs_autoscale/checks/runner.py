"""`check`: look at everything without changing anything; each line says what to do."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.checks import ec2 as check_ec2
from ebs_autoscale.checks import filesystem as check_mount
from ebs_autoscale.checks import host as check_host
from ebs_autoscale.checks import service as check_unit
from ebs_autoscale.checks.filesystem import Seen
from ebs_autoscale.checks.line import Line, Look, failed
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import ConfigInvalid, Exit

# A person waits for all of it. What this host tells comes in milliseconds, or something hangs;
# EC2 and IMDS may be silent one after the other.
HOST_PATIENCE_SECONDS = 5.0
EC2_PATIENCE_SECONDS = 9.0

Looks = Iterable[tuple[str, Callable[[], Iterable[Line]]]]


def show(config_path: Path, *, as_json: bool) -> int:
    """Print every line; the exit code says whether the daemon could work.

    Looks go on whatever else is broken: without a configuration, a mount, EC2, systemd or root.
    """
    lines = []
    for line in _lines(config_path):
        lines.append(line)
        if not as_json:
            hint = f"\n{'':17}{line.hint}" if line.hint else ""
            print(f"{line.verdict:<5}{line.name:<12}{line.sentence}{hint}", flush=True)
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    if any(line.name == "config" and line.verdict == "fail" for line in lines):
        return Exit.USAGE
    return Exit.UNFIT if any(line.verdict == "fail" for line in lines) else Exit.FINE


def _lines(config_path: Path) -> Iterator[Line]:
    clock = SystemClock()
    unit = ("unit", lambda: check_unit.unit(config_path))
    try:
        settings = config.load(config_path)
    except ConfigInvalid as error:
        yield failed("config", error)
        yield from _looked([*check_host.LOOKS, unit], clock)
        return
    yield Line("config", "ok", f"{config_path}: {settings.mountpoint}")
    seen = Seen(mountpoint=settings.mountpoint)
    looks: Looks = [
        *check_host.LOOKS,
        ("mount", lambda: check_mount.look(seen, clock)),
        unit,
        ("daemon", lambda: check_unit.daemon(settings.mountpoint)),
    ]
    yield from _looked(looks, clock)
    ec2: Looks = [("ec2", lambda: check_ec2.look(settings, seen, clock))]
    yield from _looked(ec2, clock, patience_seconds=EC2_PATIENCE_SECONDS)


def _looked(
    looks: Looks, clock: SystemClock, *, patience_seconds: float = HOST_PATIENCE_SECONDS
) -> Iterator[Line]:
    """All looks at once, their lines in order."""
    until_seconds = clock.now_seconds() + patience_seconds
    for look in [Look(name, start) for name, start in looks]:
        yield from look.lines(clock, until_seconds=until_seconds)
