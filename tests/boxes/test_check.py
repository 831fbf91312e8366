"""`check` under real systemd: its line about the unit."""

import json
from pathlib import Path

import pytest

from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox

pytestmark = pytest.mark.kernel

_UNITS = Path(__file__).parents[2] / "systemd"


def unit_line(box: Box) -> dict[str, str]:
    """The line of `check` about the unit."""
    shown = box.exec("ebs-autoscale", "check", "--json", check=False).stdout
    lines: list[dict[str, str]] = json.loads(shown)
    return next(line for line in lines if line["name"] == "unit")


def test_the_unit_from_its_installation_to_its_failure(make_host: MakeBox) -> None:
    """The unit is reported as absent, not enabled, running, and failed."""
    box = make_host()
    assert unit_line(box)["verdict"] == "warn"
    for path in _UNITS.glob("*.service"):
        box.write(f"/etc/systemd/system/{path.name}", path.read_text("utf-8"))
    box.exec("systemctl", "daemon-reload")
    line = unit_line(box)
    assert line["verdict"] == "warn"
    assert "systemctl enable --now ebs-autoscale.service" in line["hint"]

    config = "/etc/ebs-autoscale/config.yaml"
    box.write(config, "mountpoint: /mnt\n")
    box.exec("systemctl", "enable", "--now", "ebs-autoscale")
    assert unit_line(box)["verdict"] == "ok"

    box.write(config, "mountpoint: mnt\n")
    box.exec("systemctl", "restart", "ebs-autoscale", check=False)
    box.wait_until(lambda: "exit-code" in unit_line(box)["sentence"], "the failure")
    assert unit_line(box)["verdict"] == "fail"
