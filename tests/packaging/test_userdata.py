"""The cloud-init user data as text; tests/boxes boots with it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ebs_autoscale.units import parse_size

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cloud-init/userdata.yaml").read_text("utf-8")
SETTINGS = "/etc/default/ebs-autoscale-install"
SCRIPT = "/usr/local/sbin/ebs-autoscale-install"


@pytest.fixture
def userdata() -> dict[str, Any]:
    """The parsed document."""
    found: dict[str, Any] = yaml.safe_load(TEXT)
    return found


def file_of(userdata: dict[str, Any], path: str) -> str:
    """The content of the file that is written to this path."""
    [content] = [file["content"] for file in userdata["write_files"] if file["path"] == path]
    return str(content)


def test_only_what_cloud_init_knows(userdata: dict[str, Any]) -> None:
    """It has the two expected keys: the schema of cloud-init accepts unknown ones."""
    assert TEXT.startswith("#cloud-config\n")
    assert userdata.keys() == {"write_files", "runcmd"}


def test_one_place_to_edit(userdata: dict[str, Any]) -> None:
    """Mountpoint, size and source are in one marked place, and the source is empty."""
    settings = dict(
        line.split("=", 1)
        for line in file_of(userdata, SETTINGS).splitlines()
        if not line.startswith("#")
    )
    assert settings["MOUNTPOINT"] == "/scratch"
    assert parse_size(settings["SIZE"]) == 20 * 1024**3
    assert settings["PACKAGE"] == ""
    assert TEXT.count("EDIT HERE") == 1
    assert "/scratch" not in file_of(userdata, SCRIPT)


def test_the_script_is_sound(userdata: dict[str, Any], tmp_path: Path) -> None:
    """Shellcheck finds nothing except the intended splitting of a list of packages."""
    script = tmp_path / "install.sh"
    script.write_text(file_of(userdata, SCRIPT))
    linter = Path(sys.executable).parent / "shellcheck"
    argv = [str(linter), "--exclude=SC1091,SC2086", str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_boot_never_waits_for_it(userdata: dict[str, Any]) -> None:
    """The script has a time limit at boot, and its exit status is what cloud-init reports."""
    [command] = userdata["runcmd"]
    assert command[0] == "timeout"
    assert command[-1] == SCRIPT
    assert "set -eu" in file_of(userdata, SCRIPT)
