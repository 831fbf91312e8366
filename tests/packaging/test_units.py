"""The units as systemd reads them, without a running systemd."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebs_autoscale.host.paths import escape_path
from ebs_autoscale.host.systemd import CATALOG, UNITS, shipped
from ebs_autoscale.telemetry import EventKind
from ebs_autoscale.telemetry.logs import message_id
from tests.told import EXPOSURE

HEADINGS = ["Subject", "Defined-By", "Support", "Documentation"]
# What each event of a kind has, beside the hint.
FIELDS = {
    EventKind.CONDITION_BEGAN: {"CAUSE"},
    EventKind.CONDITION_LASTS: {"CAUSE"},
    EventKind.CONDITION_ENDED: {"CAUSE"},
    EventKind.GROWTH_FAILED: {"CAUSE"},
    EventKind.GROWTH_REFUSED: {"CAUSE"},
    EventKind.GROWTH_DONE: {"GROWTH", "SECONDS", "VOLUME_ID"},
}

# `systemd-analyze security` counts in tenths. One of them is for setpriority(2), which can only
# lower a priority here: the unit has no CAP_SYS_NICE.
EXPOSURE_MAX = 24


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The result of systemd-analyze."""
    argv = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit that runs this program instead of the installed one; the template with an instance."""
    text = shipped(f"systemd/{request.param}")
    program = Path(sys.executable).parent / "ebs-autoscale"
    name: str = request.param.replace("@", f"@{escape_path('/scratch/my-data')}")
    path = tmp_path / name
    path.write_text(text.replace("/opt/ebs-autoscale/bin/ebs-autoscale", str(program)))
    return path


def test_systemd_accepts_it(unit: Path) -> None:
    """Verifying prints nothing: the exit code alone is 0 for unknown keys, too."""
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verifying_can_fail(unit: Path) -> None:
    """A key that systemd does not know is printed."""
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSeconds="))
    assert "WatchDogSeconds" in analyze("verify", "--man=no", str(unit)).stderr


def test_the_exposure_is_small(unit: Path, record_property: Callable[[str, object], None]) -> None:
    """The exposure is 2.4 at most, for root with block devices and mountpoints of users."""
    offline = ("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(unit))
    done = analyze(*offline)
    last = done.stdout.strip().splitlines()[-1]
    record_property(EXPOSURE, f"{unit.name}: {last.split(': ')[-1]}")
    assert done.returncode == 0, last


def test_the_template_differs_by_its_mountpoint_alone() -> None:
    """Both units are the same, except for the names of configuration and mount."""
    plain, template = (
        [line for line in shipped(f"systemd/{name}").splitlines() if line and line[0] not in "#["]
        for name in UNITS
    )
    named = ("Description=", "After=", "Wants=")
    same = [
        line.replace(" --config /etc/ebs-autoscale/%i.yaml", "")
        for line in template
        if not line.startswith(named)
    ]
    assert same == [line for line in plain if not line.startswith(named)]


def test_the_catalogue_explains_each_kind_of_event(tmp_path: Path) -> None:
    """The file is one that journalctl takes, with one entry for each id in the journal."""
    place = tmp_path / str(CATALOG).lstrip("/")
    place.parent.mkdir(parents=True)
    place.write_text(shipped(f"systemd/{CATALOG.name}"))
    journalctl = ("journalctl", f"--root={tmp_path}")
    updated = subprocess.run(
        [*journalctl, "--update-catalog"], capture_output=True, text=True, check=True
    )
    assert (updated.stdout, updated.stderr) == ("", "")
    listed = subprocess.run(
        [*journalctl, "--list-catalog"], capture_output=True, text=True, check=True
    )
    ids = [line.split()[0] for line in listed.stdout.splitlines()]
    assert sorted(ids) == sorted(message_id(kind) for kind in EventKind)
    # A second entry for an id would win silently.
    assert place.read_text().count("\n-- ") == len(EventKind)


@pytest.mark.parametrize("kind", EventKind)
def test_an_entry_of_the_catalogue(kind: EventKind) -> None:
    """Each entry is whole, under its kind, and refers to fields that each such event has."""
    entries = shipped(f"systemd/{CATALOG.name}").split("\n# ")
    (entry,) = (each for each in entries if each.startswith(f"{kind}\n"))
    heading, _, text = entry.partition("\n\n")
    lines = heading.splitlines()
    assert lines[1] == f"-- {message_id(kind)}"
    assert [line.split(": ")[0] for line in lines[2:]] == HEADINGS
    assert text.strip()
    assert set(re.findall("@([A-Z_]+)@", text)) <= {"HINT", *FIELDS.get(kind, ())}
