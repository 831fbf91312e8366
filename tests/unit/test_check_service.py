"""What systemd says of our units, and what `check` says of them."""

import os
from pathlib import Path

import pytest

from ebs_autoscale.checks.service import reports, unit_line
from ebs_autoscale.config import MetricsSettings, Settings
from ebs_autoscale.host.systemd import Unit, parse_show, reload_command, unit_of_config

UNIT = "ebs-autoscale.service"
INSTANCE = "ebs-autoscale@scratch.service"

# As systemd 252 prints it: in its own order, an empty line between units.
SHOWN = """\
Result=success
NRestarts=0
ExecMainStatus=0
Id=ebs-autoscale.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

Result=success
NRestarts=0
ExecMainStatus=0
Id=ebs-autoscale@scratch.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
"""


def unit_of(name: str = UNIT, **changes: object) -> Unit:
    """A healthy unit with these changes."""
    found = {
        "load_state": "loaded",
        "file_state": "enabled",
        "active_state": "active",
        "sub_state": "running",
        "result": "success",
        "restarts": 0,
        "exit_status": 0,
        **changes,
    }
    return Unit(name=name, **found)  # type: ignore[arg-type]  # the changes are the test's own


def not_found(name: str) -> Unit:
    """A unit that is not installed."""
    return unit_of(name, load_state="not-found", file_state="", active_state="inactive")


def test_units_out_of_show() -> None:
    """Both units are read, each with all of its properties, whatever their order."""
    assert parse_show(SHOWN) == (
        unit_of(),
        unit_of(
            INSTANCE,
            load_state="not-found",
            file_state="",
            active_state="inactive",
            sub_state="dead",
        ),
    )


@pytest.mark.parametrize("text", ["", "\n", "Failed to connect\n", "LoadState=loaded\n"])
def test_nothing_out_of_nothing(text: str) -> None:
    """Text without a unit's name has no units."""
    assert parse_show(text) == ()


def test_an_older_systemd() -> None:
    """Properties that an older systemd does not know are empty."""
    [unit] = parse_show("Id=ebs-autoscale.service\nLoadState=loaded\nActiveState=active\n")
    assert (unit.restarts, unit.file_state) == (0, "")


@pytest.mark.parametrize(
    ("unit", "verdict", "named", "hint"),
    [
        (unit_of(), "ok", "active and enabled", ""),
        (not_found(UNIT), "warn", UNIT, "install"),
        (unit_of(restarts=3), "warn", "3 times", f"journalctl -u {UNIT}"),
        (unit_of(file_state="disabled"), "warn", UNIT, f"systemctl enable {UNIT}"),
        (unit_of(active_state="inactive"), "warn", "inactive", f"systemctl start {UNIT}"),
        (
            unit_of(active_state="inactive", file_state="disabled"),
            "warn",
            "inactive and disabled",
            f"systemctl enable --now {UNIT}",
        ),
        (
            unit_of(active_state="failed", result="exit-code", exit_status=2),
            "fail",
            "exit status 2",
            "configuration",
        ),
        (
            unit_of(active_state="failed", result="exit-code", exit_status=1),
            "fail",
            "exit status 1",
            "journalctl",
        ),
        (unit_of(active_state="failed", result="watchdog"), "fail", "watchdog", "dmesg"),
        (
            unit_of(active_state="failed", result="start-limit-hit", restarts=5),
            "fail",
            "5 times",
            f"reset-failed {UNIT}",
        ),
        (
            unit_of(active_state="activating", sub_state="auto-restart", result="exit-code"),
            "fail",
            "exit-code",
            "journalctl",
        ),
        (unit_of(load_state="masked"), "fail", "masked", "systemctl unmask"),
        (unit_of(load_state="bad-setting"), "fail", "bad-setting", "systemd-analyze verify"),
    ],
)
def test_verdicts(unit: Unit, verdict: str, named: str, hint: str) -> None:
    """Each state of the unit has its verdict, and what to do unless it is ok."""
    line = unit_line(unit)
    assert line.verdict == verdict
    assert named in line.sentence
    assert hint in line.hint
    assert bool(line.hint) == (verdict != "ok")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/etc/ebs-autoscale/config.yaml", UNIT),
        ("/etc/ebs-autoscale/scratch.yaml", INSTANCE),
        (r"/etc/ebs-autoscale/srv-my\x2down.yaml", r"ebs-autoscale@srv-my\x2down.service"),
        ("/tmp/config.yaml", ""),
    ],
)
def test_which_unit_reads_a_file(path: str, name: str) -> None:
    """The unit depends on the path alone, so that an invalid file has one, too."""
    assert unit_of_config(Path(path)) == name


@pytest.mark.parametrize(
    ("name", "is_running", "command"),
    [
        ("config", True, "systemctl reload ebs-autoscale"),
        ("scratch", True, "systemctl reload ebs-autoscale@scratch"),
        (r"srv-my\x2down", True, r"systemctl reload 'ebs-autoscale@srv-my\x2down'"),
        ("../other", True, "kill -HUP 7"),
        ("scratch", False, "kill -HUP 7"),
    ],
)
def test_how_to_reload_a_daemon(name: str, *, is_running: bool, command: str) -> None:
    """The command is for the daemon that says it, in words that a shell takes."""
    path = Path(os.path.normpath(f"/etc/ebs-autoscale/{name}.yaml"))
    assert reload_command(path, pid=7, is_running=is_running) == command


def test_reports_that_cannot_arrive(tmp_path: Path) -> None:
    """What would be dropped later is found before; what is not configured has no line."""

    def verdicts(folder: Path, *command: str) -> list[tuple[str, str]]:
        metrics = MetricsSettings(textfile=folder / "ebs.prom")
        settings = Settings(mountpoint="/scratch", metrics=metrics, notify_command=command)
        return [(line.name, line.verdict) for line in reports(settings)]

    assert list(reports(Settings(mountpoint="/scratch"))) == []
    assert verdicts(tmp_path, "sh", "-c", "x") == [("metrics", "ok"), ("notify", "ok")]
    missing = tmp_path / "missing"
    assert verdicts(missing, str(missing)) == [("metrics", "warn"), ("notify", "warn")]
    assert verdicts(tmp_path, "no-such-command")[1] == ("notify", "warn")
