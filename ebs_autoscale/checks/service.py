"""Checks of the service: systemd's unit, the daemon itself, and what it is to report to."""

from collections.abc import Iterator
from pathlib import Path

from ebs_autoscale.checks.line import Line, hint_of
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import EbsAutoscaleError, Exit
from ebs_autoscale.host import paths, systemd
from ebs_autoscale.host.command import path_of, run
from ebs_autoscale.telemetry import running_daemon
from ebs_autoscale.units import counted

_SYSTEMCTL_TIMEOUT_SECONDS = 3.0

_UP = frozenset({"active", "reloading", "activating", "deactivating"})
_AT_BOOT = frozenset({"enabled", "enabled-runtime", "static", "generated", "indirect", "alias"})

# By the Result of the unit: systemd.service(5).
_HINTS = {
    "watchdog": "the daemon stopped responding: see `dmesg` for messages about the filesystem",
    "oom-kill": "the host ran out of memory: see `journalctl -k -g oom`",
    "start-limit-hit": "fix what its log reports, then run `systemctl reset-failed {name}`",
}


def unit(config_path: Path) -> Iterator[Line]:
    """Whether systemd starts the daemon at boot and keeps it running; asks systemd."""
    if not systemd.is_running():
        what = "systemd is not running; use `ebs-autoscale run --detach`"
        yield Line("unit", "ok", what)
        return
    name = systemd.unit_of_config(config_path)
    if not name:
        hint = (
            f"move it to {paths.CONFIG_FOLDER}/config.yaml, or to NAME.yaml there "
            "for ebs-autoscale@NAME.service"
        )
        yield Line("unit", "warn", f"no unit uses {config_path}", hint)
        return
    argv = ["systemctl", "show", f"--property={','.join(systemd.PROPERTIES)}", "--", name]
    try:
        answer = run(argv, timeout_seconds=_SYSTEMCTL_TIMEOUT_SECONDS)
    except EbsAutoscaleError as error:
        yield Line("unit", "warn", error.what, hint_of(error))
        return
    yield from map(unit_line, systemd.parse_show(answer))


def unit_line(shown: systemd.Unit) -> Line:
    """The verdict on the daemon's unit."""
    name = shown.name
    if shown.load_state == "masked":
        hint = f"run `systemctl unmask {name}`, or remove it if it is not wanted"
        return Line("unit", "fail", f"{name} is masked: it cannot be started", hint)
    if shown.load_state == "not-found":
        hint = "install the unit; until then nothing starts the daemon at boot"
        return Line("unit", "warn", f"{name} is not installed", hint)
    if shown.load_state != "loaded":
        hint = f"see `systemctl status {name}` and `systemd-analyze verify {name}`"
        return Line("unit", "fail", f"{name} cannot be loaded: {shown.load_state}", hint)
    if shown.active_state == "failed" or shown.sub_state == "auto-restart":
        return _failed_line(shown)
    if shown.active_state in _UP:
        return _running_line(shown)
    how = "start" if shown.file_state in _AT_BOOT else "enable --now"
    what = f"{name} is {shown.active_state} and {shown.file_state or 'not enabled'}"
    return Line("unit", "warn", what, f"run `systemctl {how} {name}`")


def _failed_line(shown: systemd.Unit) -> Line:
    state = "has failed" if shown.active_state == "failed" else "is in a restart loop"
    status = f", exit status {shown.exit_status}" if shown.exit_status else ""
    hint = _HINTS.get(shown.result, _log_of(shown)).format(name=shown.name)
    if shown.result == "exit-code" and shown.exit_status == Exit.USAGE:
        hint = "correct the configuration, then start it"
    what = f"{shown.name} {state}: {shown.result}{status}{_restarts_of(shown)}"
    return Line("unit", "fail", what, hint)


def _running_line(shown: systemd.Unit) -> Line:
    name = shown.name
    if shown.file_state not in _AT_BOOT:
        what = f"{name} is {shown.active_state}, but does not start at boot"
        return Line("unit", "warn", what, f"run `systemctl enable {name}`")
    what = f"{name} is {shown.active_state} and {shown.file_state}{_restarts_of(shown)}"
    if shown.restarts:
        return Line("unit", "warn", what, _log_of(shown))
    return Line("unit", "ok", what)


def _restarts_of(shown: systemd.Unit) -> str:
    return f", restarted {counted(shown.restarts, 'time')}" if shown.restarts else ""


def _log_of(shown: systemd.Unit) -> str:
    return f"see `journalctl -u {shown.name} -e`"


def daemon(mountpoint: str) -> Iterator[Line]:
    """Whether a daemon is running for this mountpoint, and what it reports."""
    found = running_daemon(paths.status_file(mountpoint))
    if found is None:
        hint = "start the service, or run `ebs-autoscale run`"
        yield Line("daemon", "warn", f"no daemon is running for {mountpoint}", hint)
        return
    doing = found.view.activity or found.view.state
    yield Line("daemon", "ok", f"pid {found.pid}, version {found.version}: {doing}")
    for condition in found.view.conditions.values():
        yield Line("daemon", "warn", f"reports: {condition}", "see `ebs-autoscale status`")


def reports(settings: Settings) -> Iterator[Line]:
    """Whether metrics.textfile and notify.command can work, where they are configured."""
    if textfile := settings.metrics.textfile:
        folder = textfile.parent
        if folder.is_dir():
            yield Line("metrics", "ok", f"written to {textfile}")
        else:
            what = f"metrics.textfile: there is no directory {folder}"
            yield Line("metrics", "warn", what, "create it, or correct the path")
    if command := settings.notify_command:
        if found := path_of(command[0]):
            yield Line("notify", "ok", f"events are passed to {found}")
        else:
            what = f"notify.command: {command[0]} does not exist or is not executable"
            yield Line("notify", "warn", what, "install it, or correct the path")
