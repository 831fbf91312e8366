"""The Debian package on a machine that reaches no package index."""

import pytest

from tests.boxes.conftest import MakeBox
from tests.boxes.seen import configure, devices, fill, initialise, state, wait_growth
from tests.release import built

pytestmark = pytest.mark.kernel

UNIT_PATH = "/usr/lib/systemd/system/ebs-autoscale.service"


def test_a_life_with_the_package(
    make_box: MakeBox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Installed, it sets up a filesystem and grows it; removed, nothing of it runs or is left."""
    (package,) = built(tmp_path_factory).glob("*_amd64.deb")
    box = make_box()
    box.copy_in(package, "/root")
    box.exec("dpkg", "--install", f"/root/{package.name}", timeout=120)
    configure(box)
    initialise(box)
    shown = box.exec("systemctl", "show", "--value", "--property=FragmentPath", "ebs-autoscale")
    # Debian 12 knows it by /lib, which is a link.
    assert UNIT_PATH.endswith(shown.stdout.strip())
    before = devices(box)
    fill(box, left=20)
    wait_growth(box)
    assert devices(box) == before + 1
    # The same package again, as an upgrade does it: the daemon goes on.
    box.exec("dpkg", "--install", f"/root/{package.name}", timeout=120)
    assert state(box) == "active"
    box.exec("dpkg", "--remove", "ebs-autoscale", timeout=120)
    assert state(box) != "active"
    assert not box.has("/opt/ebs-autoscale")
    assert not box.has(UNIT_PATH)
    assert box.failed_units == []
