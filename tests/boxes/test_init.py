"""`init` and `uninstall` under real systemd, also where older units are installed."""

import subprocess
from pathlib import Path

import pytest

from ebs_autoscale.telemetry import EventKind
from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import (
    CONFIG_PATH,
    UNIT,
    configure,
    count_events,
    devices,
    fill,
    has_reserve,
    initialise,
    shown,
    state,
    volumes,
)

pytestmark = pytest.mark.kernel

SHIPPED = f"/opt/ebs-autoscale/share/ebs-autoscale/systemd/{UNIT}"
OURS = f"/etc/systemd/system/{UNIT}"
PACKAGED = f"/lib/systemd/system/{UNIT}"
# The unit and the program of amazon-ebs-autoscale.
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


def test_a_masked_unit(box: Box) -> None:
    """A masked unit stays masked, no volume is created, and /dev/null stays a device."""
    for masked in (UNIT, "ebs-autoscale@.service"):
        box.exec("systemctl", "mask", masked)
        done = box.exec("ebs-autoscale", "init", "/scratch", "--size", "2GiB", check=False)
        assert box.exec("stat", "-c", "%F", "/dev/null").stdout == "character special file\n"
        assert done.returncode == 5
        assert f"`systemctl unmask {masked}`" in done.stderr
        assert not volumes(box)
        box.exec("systemctl", "unmask", masked)
    initialise(box)
    assert_repeated_under_our_daemon(box)


def assert_repeated_under_our_daemon(box: Box) -> None:
    """A second `init` leaves our daemon running."""
    pid = shown(box, "MainPID")
    initialise(box)
    assert shown(box, "MainPID") == pid


@pytest.fixture
def older(box: Box) -> Box:
    """A machine on which amazon-ebs-autoscale runs, and ours is installed."""
    box.exec("rm", "/usr/local/bin/ebs-autoscale")
    box.write("/usr/local/bin/ebs-autoscale", OLDER_PROGRAM, 0o755)
    box.write(PACKAGED, OLDER_UNIT)
    box.exec("systemctl", "daemon-reload")
    box.exec("systemctl", "enable", "--now", UNIT)
    # Not before bash has opened the script that is replaced now.
    box.wait_until(
        lambda: box.exec("test", "-e", "/run/older-runs", check=False).returncode == 0, "it"
    )
    box.exec("ln", "-sfn", "/opt/ebs-autoscale/bin/ebs-autoscale", "/usr/local/bin/")
    return box


@pytest.mark.parametrize("is_hidden", [False, True], ids=["alone", "below ours"])
def test_an_older_autoscaler(older: Box, *, is_hidden: bool) -> None:
    """While it runs no volume is created; once it is stopped, ours replaces it."""
    if is_hidden:
        older.exec("cp", SHIPPED, OURS)
        older.exec("systemctl", "daemon-reload")
    done = older.exec("ebs-autoscale", "init", "/scratch", "--size", "2GiB", check=False)
    assert done.returncode == 5
    assert "/bin/bash /usr/local/bin/ebs-autoscale" in done.stderr
    assert f"`systemctl disable --now {UNIT}`" in done.stderr
    assert not volumes(older)

    older.exec("systemctl", "disable", "--now", UNIT)
    initialise(older)
    older.reboot()
    older.wait_until(lambda: state(older) == "active", "the service after the boot")
    assert shown(older, "FragmentPath") == OURS
    assert "run --wait" in shown(older, "ExecStart")


def test_an_older_autoscaler_that_is_enabled(older: Box) -> None:
    """One that does not run is replaced: our unit overrides its, now and after a boot."""
    older.exec("systemctl", "stop", UNIT)
    initialise(older)
    older.reboot()
    older.wait_until(lambda: state(older) == "active", "the service after the boot")
    assert shown(older, "FragmentPath") == OURS


def test_the_unit_of_a_package(box: Box) -> None:
    """A unit from a distribution's package is used and not overridden."""
    box.exec("cp", SHIPPED, PACKAGED)
    initialise(box)
    assert shown(box, "FragmentPath") == PACKAGED
    assert not box.has(OURS)


def test_mountpoints_in_protected_folders(make_host: MakeBox) -> None:
    """Wherever a mountpoint is, its service can write to it and grow it, also after a boot.

    Each further one has its own configuration, unit, filesystem and growths.
    """
    box = make_host()
    places = {
        "/home/work": (UNIT, CONFIG_PATH),
        "/tmp/my data": (
            r"ebs-autoscale@tmp-my\x20data.service",
            r"/etc/ebs-autoscale/tmp-my\x20data.yaml",
        ),
    }
    for mountpoint, (unit, path) in places.items():
        configure(box, mountpoint, path)
        initialise(box, mountpoint, unit)
        box.wait_until(lambda at=mountpoint: has_reserve(box, at), mountpoint)  # type: ignore[misc] # a default
    for ordinal in (1, 2):
        # One after the other, and each leaves the other alone.
        for grown, (mountpoint, (_, path)) in enumerate(places.items(), start=1):
            fill(box, left=20, mountpoint=mountpoint, path=path)
            box.wait_until(
                lambda count=grown, at=ordinal: (  # type: ignore[misc] # the same
                    count_events(box, EventKind.GROWTH_DONE, containing=f"-{at}") == count
                ),
                f"growth {ordinal} of {mountpoint}",
                seconds=60,
            )
            expected = [ordinal + 1] * grown + [ordinal] * (len(places) - grown)
            assert [devices(box, each) for each in places] == expected
        box.reboot(renumber=True)
        for unit, _ in places.values():
            box.wait_until(lambda each=unit: state(box, each) == "active", unit)  # type: ignore[misc] # the same
        assert [devices(box, each) for each in places] == [ordinal + 1] * len(places)


@pytest.mark.parametrize("uninstalled", [True, False])
def test_make_uninstall(box: Box, *, uninstalled: bool) -> None:
    """`make uninstall` removes program and units, after `ebs-autoscale uninstall` or without."""
    initialise(box)
    if uninstalled:
        box.exec("ebs-autoscale", "uninstall")
    else:
        box.exec("systemctl", "enable", "ebs-autoscale@srv.service")
    # A box has no make, so the commands that it would run are run there.
    argv = ["make", "--dry-run", "uninstall"]
    checkout = Path(__file__).parents[2]
    box.copy_in(checkout / "release/install.sh", "/root/release")
    recipe = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for _ in range(2):
        box.exec("sh", "-e", input=f"cd /root\n{recipe}")
    assert state(box) == "inactive"
    assert not box.has("/opt/ebs-autoscale")
    found = box.exec("find", "/etc/systemd", "/usr/local", "-name", "*autoscale*").stdout.split()
    assert found == ([] if uninstalled else [f"{OURS}.d"])
