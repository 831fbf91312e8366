"""The units as systemd reads them, without a running systemd."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebs_autoscale.host.paths import escape_path
from ebs_autoscale.host.systemd import UNITS, shipped
from tests.told import EXPOSURE

# `systemd-analyze security` counts in tenths.
EXPOSURE_MAX = 23


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
    """The exposure is 2.3 at most, for root with block devices and mountpoints of users."""
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
