"""`check` on the service: systemd's unit, and the daemon itself."""

from collections.abc import Iterator
from pathlib import Path

from ebs_autoscale.checks.line import Line, hint_of
from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.host import paths, systemd
from ebs_autoscale.host.command import run
from ebs_autoscale.telemetry.status_file import living_daemon

_SYSTEMCTL_TIMEOUT_SECONDS = 3.0

_UP = frozenset({"active", "reloading", "activating", "deactivating"})
_AT_BOOT = frozenset({"enabled", "enabled-runtime", "static", "generated", "indirect", "alias"})

# What we ended with, see exits.py; what systemd's Result means, see systemd.service(5).
_USAGE_STATUS = 2
_HINTS = {
    "watchdog": "the loop hung: see what the kernel says of the filesystem in `dmesg`",
    "oom-kill": "the host ran out of memory: see `journalctl -k -g oom`",
    "start-limit-hit": "correct what its log says, then `systemctl reset-failed {name}`",
}


def unit(config_path: Path) -> Iterator[Line]:
    """Whether systemd starts the daemon at boot and keeps it running; asks systemd."""
    if not systemd.is_running():
        yield Line("unit", "ok", "systemd does not run here; `run --detach` does without it")
        return
    name = systemd.unit_of_config(config_path)
    if not name:
        hint = (
            f"keep it as {paths.CONFIG_FOLDER}/config.yaml, or as NAME.yaml for ebs-autoscale@NAME"
        )
        yield Line("unit", "warn", f"no unit reads {config_path}", hint)
        return
    argv = ["systemctl", "show", f"--property={','.join(systemd.PROPERTIES)}", "--", name]
    try:
        answer = run(argv, timeout_seconds=_SYSTEMCTL_TIMEOUT_SECONDS)
    except EbsAutoscaleError as error:
        yield Line("unit", "warn", error.what, hint_of(error))
        return
    yield from map(unit_line, systemd.parse_show(answer))


def unit_line(each: systemd.Unit) -> Line:
    """The verdict on the daemon's unit."""
    if each.load_state == "loaded":
        return _loaded_line(each)
    if each.load_state == "masked":
        hint = f"`systemctl unmask {each.name}`, or remove it where it is not wanted"
        return Line("unit", "fail", f"{each.name} is masked: it cannot be started", hint)
    if each.load_state == "not-found":
        hint = "install the unit; until then nothing starts the daemon at boot"
        return Line("unit", "warn", f"{each.name} is not installed", hint)
    hint = f"see `systemctl status {each.name}` and `systemd-analyze verify {each.name}`"
    return Line("unit", "fail", f"{each.name} cannot be loaded: {each.load_state}", hint)


def _loaded_line(each: systemd.Unit) -> Line:
    log = f"see `journalctl -u {each.name} -e`"
    restarted = f", restarted {each.restarts} times" if each.restarts else ""
    if each.active_state == "failed" or each.sub_state == "auto-restart":
        state = "has failed" if each.active_state == "failed" else "fails again and again"
        hint = _HINTS.get(each.result, log).format(name=each.name)
        if each.result == "exit-code" and each.exit_status == _USAGE_STATUS:
            hint = "correct the configuration, then start it"
        status = f", exit status {each.exit_status}" if each.exit_status else ""
        what = f"{each.name} {state}: {each.result}{status}{restarted}"
        return Line("unit", "fail", what, hint)
    at_boot = each.file_state in _AT_BOOT
    if each.active_state not in _UP:
        how = "start" if at_boot else "enable --now"
        what = f"{each.name} is {each.active_state} and {each.file_state or 'not enabled'}"
        return Line("unit", "warn", what, f"`systemctl {how} {each.name}`")
    if not at_boot:
        what = f"{each.name} is {each.active_state}, but does not start at boot"
        return Line("unit", "warn", what, f"`systemctl enable {each.name}`")
    what = f"{each.name} is {each.active_state} and {each.file_state}{restarted}"
    return Line("unit", "warn" if each.restarts else "ok", what, log if each.restarts else "")


def daemon(mountpoint: str) -> Iterator[Line]:
    """Whether a daemon watches this mountpoint, and what it waits for."""
    found = living_daemon(paths.status_file(mountpoint))
    if found is None:
        hint = "start the service, or `ebs-autoscale run`"
        yield Line("daemon", "warn", f"no daemon is running for {mountpoint}", hint)
        return
    doing = found.view.activity or found.view.state
    yield Line("daemon", "ok", f"pid {found.pid}, version {found.version}: {doing}")
    for line in found.view.conditions.values():
        yield Line("daemon", "warn", f"it reports: {line}", "see `ebs-autoscale status`")
