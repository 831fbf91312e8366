"""`check`: run every check, each within a time limit, and print one line for each finding."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.checks import ec2, filesystem, host, service
from ebs_autoscale.checks.background import Check
from ebs_autoscale.checks.filesystem import FilesystemSeen
from ebs_autoscale.checks.line import Line, failed
from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError, Exit
from ebs_autoscale.host import paths
from ebs_autoscale.host.trusted_path import changeable_part
from ebs_autoscale.units import json_text, wrapped

# The operator waits for all of it. The host answers in milliseconds unless something hangs. EC2 and
# the instance metadata service are given up earlier than this when they are silent; a slow one is
# not silent: its five answers for identity and credentials may take 3 s each.
HOST_PATIENCE_SECONDS = 5.0
EC2_PATIENCE_SECONDS = 24.0

# What two lines are called in print; in JSON they keep the names that scripts know.
_TITLES = {"members": "devices", "leftovers": "orphans"}

# What does not exist before `init`.
_SET_UP_BY_INIT = {"fstab", "unit", "daemon"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is checked, and the line about its configuration.

    Without a configuration `settings` are the defaults, and the mountpoint in them is empty where
    it is not known; they are None where the configuration is invalid. `init` is the command that
    sets up the mountpoint, empty once there is a configuration for it.
    """

    path: Path
    line: Line
    settings: Settings | None
    init: str = ""


def show(config_path: Path, mountpoint: str, *, as_json: bool, columns: int | None) -> int:
    """Print every line; the exit code says whether the daemon could work, or `init`.

    All checks run whatever else is broken or does not exist yet: the configuration, the mount,
    EC2, systemd; only an invalid configuration says too little to look at more than the host. An
    empty mountpoint is that of the configuration.
    """
    lines = []
    for line in _lines(_subject(config_path, mountpoint)):
        lines.append(line)
        if not as_json:
            print(_text_of(line, columns), flush=True)
    if as_json:
        print(json_text([line.as_json() for line in lines], indent=1))
    failures = {line.name for line in lines if line.verdict == "fail"}
    if "config" in failures:
        return Exit.USAGE
    return Exit.UNFIT if failures else Exit.SUCCESS


def _text_of(line: Line, columns: int | None) -> str:
    title = f"{line.verdict:<5}{_TITLES.get(line.name, line.name):<12}"
    indent = " " * len(title)
    text = wrapped(line.sentence, columns, first=title, indent=indent)
    if line.hint:
        indent += "  "
        text += f"\n{wrapped(line.hint, columns, first=indent, indent=indent)}"
    # As it is to be pasted.
    return f"{text}\n{json_text(line.policy, indent=2)}" if line.policy else text


def _subject(path: Path, mountpoint: str) -> _Subject:
    """The configuration for this mountpoint, or the defaults."""
    of = "" if path == paths.CONFIG_DEFAULT else f" --config {shlex.quote(str(path))}"
    init = f"ebs-autoscale{of} init {shlex.quote(mountpoint) if mountpoint else 'MOUNTPOINT'}"
    found, settings = path, Settings(mountpoint="")
    try:
        if mountpoint:
            found, settings = config.settings_for(path, mountpoint)
        if config.exists(found):
            settings = config.load(found)
            return _Subject(path=found, line=_config_line(found, settings), settings=settings)
        what = f"there is no configuration for {mountpoint} yet, so the defaults are assumed"
        if found != path:
            what = f"{path} is for {config.load(path).mountpoint}; {what}"
    except ConfigInvalid as error:
        return _Subject(path=found, line=failed("config", error), settings=None)
    if mountpoint:
        line = Line("config", "warn", what, f"run `{init}`")
        return _Subject(path=found, line=line, settings=settings, init=init)
    what = f"{path}: no such file, so the defaults are assumed"
    line = Line("config", "fail", what, f"run `{init}`, or name another file with --config")
    return _Subject(path=path, line=line, settings=settings)


def _lines(subject: _Subject) -> Iterator[Line]:
    clock = SystemClock()
    until_seconds = clock.now_seconds() + HOST_PATIENCE_SECONDS
    settings, init = subject.settings, subject.init
    service_checks = [Check("unit", partial(service.unit, subject.path))]
    seen, mount = FilesystemSeen(mountpoint=""), None
    if settings and (mountpoint := settings.mountpoint):
        seen = filesystem.expected(mountpoint, is_set_up=not init)
        mount = Check("mount", partial(_look_at, seen, clock))
        service_checks.append(Check("daemon", partial(service.daemon, mountpoint)))
        service_checks.append(Check("reports", partial(service.reports, settings)))

    on_host = [Check(name, check) for name, check in host.checks(seen.kind)]
    yield subject.line
    yield from _lines_of(on_host, clock, until_seconds)
    if settings and mount:
        try:
            [seen] = mount.results(clock, until_seconds=until_seconds)
            yield from _led_to(init, filesystem.lines(seen))
            yield from filesystem.policy_lines(seen, settings)
        except EbsAutoscaleError as error:
            yield failed(mount.name, error)
    yield from _led_to(init, _lines_of(service_checks, clock, until_seconds))
    if settings:
        until_seconds = clock.now_seconds() + EC2_PATIENCE_SECONDS
        cloud = Check("ec2", lambda: ec2.lines(settings, seen, clock))
        yield from _lines_of([cloud], clock, until_seconds)


def _led_to(init: str, lines: Iterable[Line]) -> Iterator[Line]:
    """The lines; before `init`, it is what to do about whatever it sets up."""
    for line in lines:
        is_set_up_by_it = line.verdict == "warn" and line.name in _SET_UP_BY_INIT
        yield replace(line, hint=f"run `{init}`") if init and is_set_up_by_it else line


def _config_line(path: Path, settings: Settings) -> Line:
    """A valid configuration, and whether only root decides what it says."""
    what = f"{path}: {settings.mountpoint}"
    with suppress(OSError, EbsAutoscaleError):
        if part := changeable_part(path):
            what = f"{what}, but others than root can change {part}"
            return Line("config", "warn", what, f"run `chown root {part}; chmod go-w {part}`")
    return Line("config", "ok", what)


def _look_at(expected: FilesystemSeen, clock: SystemClock) -> list[FilesystemSeen]:
    return [filesystem.look(expected, clock)]


def _lines_of(checks: Sequence[Check[Line]], clock: Clock, until_seconds: float) -> Iterator[Line]:
    """The lines of each check, in order; an error is the last line of its check."""
    for check in checks:
        try:
            yield from check.results(clock, until_seconds=until_seconds)
        except EbsAutoscaleError as error:
            yield failed(check.name, error)
