"""The cloud-init user data as text; tests/boxes boots with it."""

import email
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ebs_autoscale.units import parse_size
from tests import batch_mime
from tests.userdata import USERDATA, script, settings

# The limit of EC2 for all parts together, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html.
USERDATA_BYTES_MAX = 16 * 1024


def test_only_what_survives_beside_other_parts() -> None:
    """It has no key that others use for their own: a later part would replace it."""
    assert USERDATA.startswith("#cloud-config\n")
    assert yaml.safe_load(USERDATA).keys() == {"merge_how", "bootcmd"}
    assert len(USERDATA) < USERDATA_BYTES_MAX * 3 // 4


def test_one_place_to_edit() -> None:
    """All settings are in one marked place, and what nobody can guess is empty."""
    found = settings()
    assert found["MOUNTPOINT"] == "/scratch"
    assert parse_size(found["SIZE"]) == 20 * 1024**3
    assert {name for name, value in found.items() if not value} == {
        *("INIT_OPTIONS", "CONTAINERS", "URL", "SHA256", "BTRFS_URL", "BTRFS_SHA256")
    }
    assert USERDATA.count("EDIT HERE") == 1
    assert script().count("/scratch") == 1


def test_the_script_is_sound(tmp_path: Path) -> None:
    """Shellcheck finds nothing but the settings, which the Python in it reads; nor does ruff."""
    folder = Path(sys.executable).parent
    path = tmp_path / "install.sh"
    path.write_text(script())
    argv = [str(folder / "shellcheck"), "--exclude=SC2034", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    path = tmp_path / "install.py"
    path.write_text(script().partition("<<'PYTHON'\n")[2].removesuffix("PYTHON\n"))
    # The oldest that a host has: Amazon Linux 2023.
    argv = [
        str(folder / "ruff"),
        "check",
        "--isolated",
        "--target-version=py39",
        "--select=F,E9,B,S",
    ]
    argv += ["--ignore=S310,S202,S603,S103,B904", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_multi_part_file_is_the_same() -> None:
    """Only settings differ; `python -m tests.batch_mime` writes it."""
    assert batch_mime.FILE.read_text("utf-8") == batch_mime.text()
    message = email.message_from_bytes(batch_mime.FILE.read_bytes())
    assert message.get_content_type() == "multipart/mixed"
    parts: Any = message.get_payload()
    [part] = parts
    assert part.get_content_type() == "text/cloud-config"
    config = yaml.safe_load(part.get_payload())
    assert config.keys() == yaml.safe_load(USERDATA).keys()
    assert "CONTAINERS='move'\n" in config["bootcmd"][0][-1]
    assert not message.defects + part.defects
