"""The packages on a machine that reaches no package index."""

import json
import subprocess
from pathlib import Path

import pytest

from ebs_autoscale import __version__
from ebs_autoscale.model import StepKind
from ebs_autoscale.telemetry import EventKind
from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import (
    CONFIG_PATH,
    configure,
    count_events,
    devices,
    fill,
    initialise,
    shown,
    state,
    wait_event,
    wait_growth,
)
from tests.release import built, next_packages, unpack

pytestmark = pytest.mark.kernel

APP = "/opt/ebs-autoscale"
UNIT_PATH = "/usr/lib/systemd/system/ebs-autoscale.service"
LINK = "/usr/local/bin/ebs-autoscale"
NEXT = "99.0.0"
# Of the unpacked release, and in no package.
OLD_LIBRARY = f"{APP}/lib/botocore-0.0.1.dist-info"


def test_a_life_with_packages(make_box: MakeBox, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From an unpacked release to the .deb, another version and back, and on with the .rpm."""
    release, folder = built(tmp_path_factory), tmp_path_factory.mktemp("packages")
    (old_deb,) = release.glob("*_amd64.deb")
    (old_rpm,) = release.glob("*.x86_64.rpm")
    new_deb, new_rpm = next_packages(release, folder, NEXT)
    box = make_box(create_seconds=(3.0, 3.5))
    box.copy_in(unpack(release, folder / "tree"), "/opt")
    box.exec("ln", "-s", f"{APP}/bin/ebs-autoscale", LINK)
    box.write(f"{OLD_LIBRARY}/METADATA", "Name: botocore\nVersion: 0.0.1\n")
    configure(box)
    initialise(box)
    replace_in_mid_growth(box, new_deb)
    install(box, old_deb)
    assert version(box) == __version__
    # It may be restarting: its program was replaced.
    box.wait_until(lambda: state(box) == "active", "the daemon")
    box.exec("dpkg", "--remove", "ebs-autoscale", timeout=120)
    assert_removed(box)
    refuse_over_make_install(box, old_deb, old_rpm)
    live_with_the_rpm(box, old_rpm, new_rpm)
    assert_removed(box)
    assert box.failed_units == []


def replace_in_mid_growth(box: Box, package: Path) -> None:
    """The growth is finished, and the daemon restarts as the new program under its new unit."""
    fill(box, left=20)
    wait_event(box, EventKind.STEP_STARTED, STEP=StepKind.CREATE_VOLUME)
    install(box, package)
    wait_growth(box)
    assert devices(box) == 2
    for kind in (EventKind.GROWTH_FAILED, EventKind.GROWTH_STOPPED):
        assert count_events(box, kind) == 0
    # Debian 12 knows it by /lib, which is a link.
    assert UNIT_PATH.endswith(shown(box, "FragmentPath"))
    assert shown(box, "UnitFileState") == "enabled"
    assert not box.has(LINK)
    assert not box.has(OLD_LIBRARY)
    assert version(box) == NEXT

    def daemon() -> str:
        status = box.exec("ebs-autoscale", "status", "--json", check=False).stdout
        return str((json.loads(status)["daemon"] or {}).get("version"))

    box.wait_until(lambda: daemon() == NEXT, "the daemon of the new version", seconds=60)


def refuse_over_make_install(box: Box, *packages: Path) -> None:
    """Neither package is installed over the files of `make install`, and these stay."""
    # Older versions of it have only the second.
    for package, note in zip(packages, ("made-by-install", "pyvenv.cfg"), strict=True):
        box.write(f"{APP}/{note}", "")
        done = install(box, package, check=False)
        assert done.returncode != 0
        assert "make uninstall" in done.stdout + done.stderr
        assert not box.has(f"{APP}/bin")
        assert not box.has(UNIT_PATH)
        box.exec("rm", "-r", APP)


def live_with_the_rpm(box: Box, old: Path, new: Path) -> None:
    """Installed after a removal it says how to go on; then growth, upgrade, and removal."""
    hint = "systemctl enable --now ebs-autoscale"
    assert hint in install(box, old).stdout
    before = devices(box)
    box.exec(*hint.split())
    fill(box, left=20)
    wait_growth(box, before)
    assert hint not in install(box, new).stdout
    assert version(box) == NEXT
    box.wait_until(lambda: state(box) == "active", "the daemon")
    assert box.exec("ebs-autoscale", "check", check=False).stdout
    # What somebody has removed by hand is no reason to keep the rest.
    box.exec("rm", "-r", APP)
    rpm(box, "--erase", "ebs-autoscale")


def install(box: Box, package: Path, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Install a package, or replace one by it, whatever its version."""
    if package.suffix == ".rpm":
        return rpm(box, "--upgrade", "--oldpackage", "--nodeps", str(package), check=check)
    box.copy_in(package, "/root")
    return box.exec("dpkg", "--install", f"/root/{package.name}", timeout=120, check=check)


def rpm(box: Box, *options: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run this host's rpm in the root folder of the box, which has none."""
    # From another pid namespace, systemctl sometimes loses its connection.
    argv = ["nsenter", f"--target={box.pid_of_systemd}", "--pid"]
    argv += ["rpm", f"--root={box.root}", "--dbpath=/var/lib/rpm", "--force-debian", *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=check)


def version(box: Box) -> str:
    """The version of the installed program."""
    return box.exec("ebs-autoscale", "--version").stdout.split()[-1]


def assert_removed(box: Box) -> None:
    """Nothing of it runs or is left but the configuration."""
    assert state(box) != "active"
    for path in (APP, UNIT_PATH, "/usr/bin/ebs-autoscale"):
        assert not box.has(path)
    assert box.has(CONFIG_PATH)
