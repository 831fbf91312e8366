"""`check` where systemd really runs: its line about the unit."""

from pathlib import Path

import pytest

from tests.boxes.box import Box

pytestmark = pytest.mark.kernel

_UNITS = Path(__file__).parents[2] / "systemd"
_FOLDER = "/opt/ebs-autoscale"


def unit_line(box: Box) -> str:
    """What `check` says of the unit, verdict first."""
    said = box.exec(f"{_FOLDER}/bin/ebs-autoscale", "check", check=False).stdout
    [line] = [line for line in said.splitlines() if line.split()[1:2] == ["unit"]]
    return " ".join(line.split())


def test_the_unit_from_its_installation_to_its_failure(box: Box, wheels: Path) -> None:
    """Absent, not enabled, running, restarted, and failed for its configuration: all are told."""
    box.copy_in(wheels, "/root")
    box.exec("python3", "-m", "venv", _FOLDER, timeout=120)
    source = f"--find-links=/root/{wheels.name}"
    box.exec(f"{_FOLDER}/bin/pip", "install", "--no-index", source, "ebs-autoscale", timeout=120)
    assert unit_line(box) == "warn unit ebs-autoscale.service is not installed"
    for path in _UNITS.glob("*.service"):
        box.write(f"/etc/systemd/system/{path.name}", path.read_text("utf-8"))
    box.exec("systemctl", "daemon-reload")
    assert unit_line(box) == "warn unit ebs-autoscale.service is inactive and disabled"

    config = "/etc/ebs-autoscale/config.yaml"
    box.write(config, "mountpoint: /mnt\n")
    box.exec("systemctl", "enable", "--now", "ebs-autoscale")
    assert unit_line(box) == "ok unit ebs-autoscale.service is active and enabled"

    box.write(config, "mountpoint: mnt\n")
    box.exec("systemctl", "kill", "--signal=KILL", "ebs-autoscale")
    box.wait_until(lambda: "has failed" in unit_line(box), "the failure")
    failed = "ebs-autoscale.service has failed: exit-code, exit status 2, restarted 1 times"
    assert unit_line(box) == f"fail unit {failed}"
