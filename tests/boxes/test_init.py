"""`init` and its undoing where systemd really runs, on hosts that are not quite bare."""

import pytest

from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import UNIT, configure, initialise, volumes

pytestmark = pytest.mark.kernel


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
