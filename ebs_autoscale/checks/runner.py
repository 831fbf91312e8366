"""`check`: run every check, each within a time limit, and print one line for each finding."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.checks import ec2, filesystem, host, service
from ebs_autoscale.checks.background import Check
from ebs_autoscale.checks.filesystem import FilesystemSeen
from ebs_autoscale.checks.line import Line, failed
from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError, Exit
from ebs_autoscale.host.trusted_path import changeable_part
from ebs_autoscale.units import json_text

# The operator waits for all of it. The host answers in milliseconds unless something hangs. EC2 and
# the instance metadata service are given up earlier than this when they are silent; a slow one is
# not silent: its five answers for identity and credentials may take 3 s each.
HOST_PATIENCE_SECONDS = 5.0
EC2_PATIENCE_SECONDS = 24.0

# What two lines are called in print; in JSON they keep the names that scripts know.
_TITLES = {"members": "devices", "leftovers": "orphans"}


def show(config_path: Path, *, as_json: bool) -> int:
    """Print every line; the exit code says whether the daemon could work.

    All checks run whatever else is broken: the configuration, the mount, EC2, systemd.
    """
    lines = []
    for line in _lines(config_path):
        lines.append(line)
        if not as_json:
            hint = f"\n{'':17}{line.hint}" if line.hint else ""
            title = _TITLES.get(line.name, line.name)
            print(f"{line.verdict:<5}{title:<12}{line.sentence}{hint}", flush=True)
    if as_json:
        print(json_text([asdict(line) for line in lines], indent=1))
    failures = {line.name for line in lines if line.verdict == "fail"}
    if "config" in failures:
        return Exit.USAGE
    return Exit.UNFIT if failures else Exit.SUCCESS


def _lines(config_path: Path) -> Iterator[Line]:
    clock = SystemClock()
    until_seconds = clock.now_seconds() + HOST_PATIENCE_SECONDS
    on_host = [Check(name, check) for name, check in host.CHECKS]
    unit = Check("unit", partial(service.unit, config_path))
    try:
        settings = config.load(config_path)
    except ConfigInvalid as error:
        yield failed("config", error)
        yield from _lines_of([*on_host, unit], clock, until_seconds)
        return
    mountpoint = settings.mountpoint
    seen = filesystem.expected(mountpoint)
    mount = Check("mount", partial(_look_at, seen, clock))
    daemon = Check("daemon", partial(service.daemon, mountpoint))

    yield _config_line(config_path, mountpoint)
    yield from _lines_of(on_host, clock, until_seconds)
    try:
        [seen] = mount.results(clock, until_seconds=until_seconds)
        yield from filesystem.lines(seen)
        yield from filesystem.reserve_lines(seen, settings)
    except EbsAutoscaleError as error:
        yield failed(mount.name, error)
    yield from _lines_of([unit, daemon], clock, until_seconds)
    until_seconds = clock.now_seconds() + EC2_PATIENCE_SECONDS
    cloud = Check("ec2", lambda: ec2.lines(settings, seen, clock))
    yield from _lines_of([cloud], clock, until_seconds)


def _config_line(path: Path, mountpoint: str) -> Line:
    """A valid configuration, and whether only root decides what it says."""
    with suppress(OSError, EbsAutoscaleError):
        if part := changeable_part(path):
            what = f"{path}: {mountpoint}, but others than root can change {part}"
            return Line("config", "warn", what, f"run `chown root {part}; chmod go-w {part}`")
    return Line("config", "ok", f"{path}: {mountpoint}")


def _look_at(expected: FilesystemSeen, clock: SystemClock) -> list[FilesystemSeen]:
    return [filesystem.look(expected, clock)]


def _lines_of(checks: Sequence[Check[Line]], clock: Clock, until_seconds: float) -> Iterator[Line]:
    """The lines of each check, in order; an error is the last line of its check."""
    for check in checks:
        try:
            yield from check.results(clock, until_seconds=until_seconds)
        except EbsAutoscaleError as error:
            yield failed(check.name, error)
