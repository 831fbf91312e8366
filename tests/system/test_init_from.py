"""`init --from`: the older script's configuration and filesystem become ours, or all stays."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LoopFactory
from tests.signatures import SIGNATURES
from tests.system.bare import CONFIG, FSTAB, BareHost, CloudHost

pytestmark = pytest.mark.kernel

USUAL = Path(__file__).parents[1] / "unit/migration/awslabs-2.4.json"


def configuration(folder: Path, mountpoint: Path) -> Path:
    """The older script's configuration for this mountpoint."""
    found = json.loads(USUAL.read_text("utf-8")) | {"mountpoint": str(mountpoint)}
    file = folder / "ebs-autoscale.json"
    file.write_text(json.dumps(found), "utf-8")
    return file


def test_a_mounted_filesystem(cloud_host: CloudHost, loop: LoopFactory, tmp_path: Path) -> None:
    """Without MOUNTPOINT: a valid configuration that adopts, and later it is not overwritten."""
    device, point = loop(320 * 1024**2), cloud_host.mountpoint
    SIGNATURES["btrfs"](device)
    point.mkdir()
    subprocess.run(["mount", device.node, str(point)], check=True)
    file = configuration(tmp_path, point)
    ran = cloud_host.run("init", "--from", str(file))
    assert ran.returncode == 0, ran.stderr
    BareHost.assert_ready(cloud_host)
    assert "limits.max_ebs_volume_count '16' -> limits.volumes: 16" in ran.stdout
    written = CONFIG.read_text("utf-8")
    assert "\nadopt: true\n" in written
    checked = cloud_host.run("check")
    assert checked.returncode == 0, checked.stdout

    CONFIG.write_text(f"{written}# mine\n", "utf-8")
    ran = cloud_host.run("init", str(point), "--from", str(file))
    assert (ran.returncode, written in ran.stdout) == (0, True), ran.stderr
    assert CONFIG.read_text("utf-8") == f"{written}# mine\n"


def test_nothing_changes(bare_host: BareHost, tmp_path: Path) -> None:
    """While the older daemon runs, for another mountpoint, and on LVM."""
    file, before = configuration(tmp_path, bare_host.mountpoint), FSTAB.read_bytes()
    lvm = tmp_path / "lvm.json"
    lvm.write_text(file.read_text("utf-8").replace('"btrfs"', '"lvm.ext4"'), "utf-8")
    for code, told, *arguments in (
        (2, "not for /elsewhere", "/elsewhere", "--from", str(file)),
        (5, "lvm.ext4", "--from", str(lvm)),
    ):
        ran = bare_host.run("init", *arguments)
        assert (ran.returncode, told in ran.stderr, ran.stdout) == (code, True, ""), ran.stderr
    script = tmp_path / "ebs-autoscale"
    script.write_text("sleep 60\n:\n", "utf-8")
    with subprocess.Popen(["sh", script], start_new_session=True) as daemon:
        ran = bare_host.run("init", "--from", str(file))
        os.killpg(daemon.pid, signal.SIGKILL)
    assert (ran.returncode, str(daemon.pid) in ran.stderr, ran.stdout) == (5, True, "")
    assert not bare_host.mountpoint.exists()
    assert (CONFIG.exists(), FSTAB.read_bytes()) == (False, before)
