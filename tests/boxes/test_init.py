"""`init` and its undoing where systemd really runs, on hosts that are not quite bare."""

import subprocess
from pathlib import Path

import pytest

from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import (
    UNIT,
    configure,
    devices,
    fill,
    initialise,
    shown,
    state,
    volumes,
    wait_for,
)

pytestmark = pytest.mark.kernel

SHIPPED = f"/opt/ebs-autoscale/share/ebs-autoscale/systemd/{UNIT}"
OURS = f"/etc/systemd/system/{UNIT}"
PACKAGED = f"/lib/systemd/system/{UNIT}"
# As the installer of the amazon-ebs-autoscale family copies it; its program is a loop in bash.
OLDER_UNIT = """\
[Unit]
Description=Amazon EBS Autoscale
[Service]
ExecStart=/usr/local/bin/ebs-autoscale
Restart=always
[Install]
WantedBy=multi-user.target
"""
OLDER_PROGRAM = "#!/bin/bash\ntouch /run/older-runs\nwhile true; do sleep 1; done\n"


@pytest.fixture
def box(make_host: MakeBox) -> Box:
    """A machine with the program and a configuration, and nothing else."""
    box = make_host()
    configure(box)
    return box


@pytest.mark.parametrize("masked", [UNIT, "ebs-autoscale@.service"])
def test_a_masked_unit(box: Box, masked: str) -> None:
    """A unit that is masked stays so, nothing is bought, and /dev/null stays a device."""
    box.exec("systemctl", "mask", masked)
    done = box.exec("ebs-autoscale", "init", "/scratch", "--size", "2GiB", check=False)
    assert box.exec("stat", "-c", "%F", "/dev/null").stdout == "character special file\n"
    assert done.returncode == 5
    assert f"{masked} is masked; `systemctl unmask {masked}`" in done.stderr
    assert not volumes(box)
    box.exec("systemctl", "unmask", masked)
    initialise(box)


@pytest.fixture
def older(box: Box) -> Box:
    """A machine on which a daemon of the older family runs; ours is installed beside it."""
    box.exec("rm", "/usr/local/bin/ebs-autoscale")
    box.write("/usr/local/bin/ebs-autoscale", OLDER_PROGRAM, 0o755)
    box.write(PACKAGED, OLDER_UNIT)
    box.exec("systemctl", "daemon-reload")
    box.exec("systemctl", "enable", "--now", UNIT)
    # Not before bash has opened what is replaced now.
    box.wait_until(
        lambda: box.exec("test", "-e", "/run/older-runs", check=False).returncode == 0, "it"
    )
    box.exec("ln", "-sfn", "/opt/ebs-autoscale/bin/ebs-autoscale", "/usr/local/bin/")
    return box


@pytest.mark.parametrize("is_hidden", [False, True], ids=["alone", "below ours"])
def test_an_older_autoscaler(older: Box, *, is_hidden: bool) -> None:
    """While it runs nothing is bought; when it is stopped, ours takes its place for good."""
    if is_hidden:
        older.exec("cp", SHIPPED, OURS)
        older.exec("systemctl", "daemon-reload")
    done = older.exec("ebs-autoscale", "init", "/scratch", "--size", "2GiB", check=False)
    assert done.returncode == 5
    assert "another autoscaler: `/bin/bash /usr/local/bin/ebs-autoscale`" in done.stderr
    assert f"`systemctl disable --now {UNIT}`" in done.stderr
    assert not volumes(older)

    older.exec("systemctl", "disable", "--now", UNIT)
    initialise(older)
    older.reboot()
    older.wait_until(lambda: state(older) == "active", "the service after the boot")
    assert shown(older, "FragmentPath") == OURS
    assert "run --wait" in shown(older, "ExecStart")


def test_an_older_autoscaler_that_is_enabled(older: Box) -> None:
    """One that does not run is no matter: ours hides its unit, now and after a boot."""
    older.exec("systemctl", "stop", UNIT)
    initialise(older)
    older.reboot()
    older.wait_until(lambda: state(older) == "active", "the service after the boot")
    assert shown(older, "FragmentPath") == OURS


def test_repeated_under_our_daemon(box: Box) -> None:
    """Our own daemon is in nobody's way: `init` leaves it running."""
    initialise(box)
    pid = shown(box, "MainPID")
    initialise(box)
    assert shown(box, "MainPID") == pid


def test_the_unit_of_a_package(box: Box) -> None:
    """A unit of ours that a package brings is not hidden by another."""
    box.exec("cp", SHIPPED, PACKAGED)
    initialise(box)
    assert shown(box, "FragmentPath") == PACKAGED
    assert not box.has(OURS)


@pytest.mark.parametrize("folder", ["/home", "/tmp", "/var/tmp", "/usr/local"])
def test_a_mountpoint_that_the_unit_is_kept_from(make_host: MakeBox, folder: str) -> None:
    """Wherever the filesystem is, its unit sees it, writes to it and grows it, as after a boot."""
    mountpoint = f"{folder}/work"
    box = make_host()
    configure(box, mountpoint)
    initialise(box, mountpoint)
    wait_for(box, "took a reserve")
    for count in (1, 2):
        fill(box, left=20, mountpoint=mountpoint)
        wait_for(box, f"-{count} is complete")
        box.reboot()
        box.wait_until(lambda: state(box) == "active", "the service after the boot")
        assert devices(box, mountpoint) == count + 1


@pytest.mark.parametrize("uninstalled", [True, False])
def test_make_uninstall(box: Box, *, uninstalled: bool) -> None:
    """With `ebs-autoscale uninstall` before it or without, program and units go, and twice."""
    initialise(box)
    if uninstalled:
        box.exec("ebs-autoscale", "uninstall")
    else:
        box.exec("systemctl", "enable", "ebs-autoscale@srv.service")
    # A box has no make: what it would run is run there, and ends where it would end.
    argv = ["make", "--dry-run", "uninstall"]
    checkout = Path(__file__).parents[2]
    recipe = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for _ in range(2):
        box.exec("sh", "-e", input=recipe)
    assert state(box) == "inactive"
    assert not box.has("/opt/ebs-autoscale")
    found = box.exec("find", "/etc/systemd", "/usr/local", "-name", "*autoscale*").stdout.split()
    assert found == ([] if uninstalled else [f"{OURS}.d"])
