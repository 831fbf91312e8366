"""User data alone install the program; the filesystem grows and survives reboots."""

from functools import partial
from pathlib import Path

import pytest

from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import devices, state, volumes

pytestmark = pytest.mark.kernel

USERDATA = (Path(__file__).parents[2] / "cloud-init/userdata.yaml").read_text("utf-8")


@pytest.fixture
def userdata(wheels: Path) -> str:
    """The shipped user data with the wheel of this checkout as the source of the program."""
    [wheel] = wheels.glob("ebs_autoscale-*.whl")
    package = f"PACKAGE=/var/lib/wheels/{wheel.name}"
    # A box cannot reach a package index.
    offline = "PIP_NO_INDEX=1\n      PIP_FIND_LINKS=/var/lib/wheels"
    return USERDATA.replace("PACKAGE=\n", f"{package}\n      {offline}\n")


def boot(make_box: MakeBox, userdata: str, wheels: Path) -> Box:
    """Boot with this user data and wait until cloud-init has finished."""
    box = make_box(user_data=userdata, folders={"var/lib/wheels": wheels})
    box.exec("cloud-init", "status", "--wait", check=False, timeout=300)
    return box


def has_grown(box: Box, count: int) -> bool:
    """Whether the filesystem has this many devices."""
    return devices(box) >= count


def test_the_whole_life(make_box: MakeBox, userdata: str, wheels: Path) -> None:
    """It is installed, mounted and watched; it grows when filled, also after reboots."""
    box = boot(make_box, userdata, wheels)
    assert "status: done" in box.exec("cloud-init", "status", "--long").stdout
    assert "/scratch" in box.exec("findmnt", "-no", "TARGET", "-t", "btrfs").stdout
    box.wait_until(lambda: state(box) == "active", "the service")
    [volume] = volumes(box)
    assert (volume.size_gib, volume.encrypted) == (20, True)
    assert "ebs-autoscale-install: /scratch" in box.read("/var/log/cloud-init-output.log")
    for count in (2, 3):
        size = int(box.exec("stat", "-f", "-c", "%b", "/scratch").stdout) * 4096
        free = int(box.exec("stat", "-f", "-c", "%a", "/scratch").stdout) * 4096
        box.exec("fallocate", "-l", str(free - size * 15 // 100), f"/scratch/filling-{count}")
        box.wait_until(partial(has_grown, box, count), "a growth", seconds=90)
        before = devices(box)
        box.reboot(renumber=True)
        box.wait_until(lambda: state(box) == "active", "the service after the boot")
        assert devices(box) >= before
    assert box.exec("ebs-autoscale", "status").returncode == 0
    assert box.failed_units == []


def test_a_failed_installation_is_seen(make_box: MakeBox, userdata: str, wheels: Path) -> None:
    """A failure is in cloud-init's status, its log and the journal; the boot continues."""
    broken = userdata.replace("ebs_autoscale-", "no_such_program-")
    box = boot(make_box, broken, wheels)
    status = box.exec("cloud-init", "status", "--long", check=False).stdout
    assert "status: error" in status
    assert "FAILED: " in box.read("/var/log/cloud-init-output.log")
    assert "FAILED: " in box.journal("-u", "cloud-final")
    assert box.exec("systemctl", "is-active", "multi-user.target").stdout.strip() == "active"
    assert not volumes(box)


def test_as_it_is_shipped(make_box: MakeBox, wheels: Path) -> None:
    """Without PACKAGE nothing is installed, and the failure names that setting."""
    box = boot(make_box, USERDATA, wheels)
    assert "status: error" in box.exec("cloud-init", "status", check=False).stdout
    log = box.read("/var/log/cloud-init-output.log")
    assert "FAILED: PACKAGE " in log
    assert not box.has("/opt/ebs-autoscale")


def test_cloud_init_accepts_it(box: Box) -> None:
    """The user data match cloud-init's schema."""
    box.write("/root/userdata.yaml", USERDATA)
    done = box.exec("cloud-init", "schema", "--config-file", "/root/userdata.yaml")
    assert "Valid" in done.stdout
