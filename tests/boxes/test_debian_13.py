"""Debian 13 with newer Python, systemd and btrfs-progs; at first without btrfs-progs."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.errors import Cause
from ebs_autoscale.telemetry import EventKind
from tests.boxes.box import Box
from tests.boxes.conftest import require_tree
from tests.boxes.seen import (
    configure,
    devices,
    fill,
    initialise,
    state,
    volumes,
    wait_event,
    wait_growth,
)
from tests.boxes.tree import Tree, cached_root
from tests.release import built

pytestmark = pytest.mark.kernel

TOOLS = ("/usr/bin/btrfs", "/usr/sbin/mkfs.btrfs")
# Where the static build of btrfs-progs is installed on a distribution that has no package of it.
BY_HAND = "/usr/local/sbin"


@pytest.fixture
def box(tree: Tree) -> Iterator[Box]:
    """A machine with Debian 13, also where the other boxes have another release."""
    settings = SandboxSettings(block_devices="nitro", instance_id=f"i-{uuid4().hex[:17]}")
    root = require_tree(lambda: cached_root("trixie"))
    with Box(Tree(root, tree.wheels), settings=settings) as box:
        yield box


def test_a_life_on_debian_13(box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Installed, it sets up a filesystem, grows it, and does so again after a boot."""
    assert_versions(box)
    (package,) = built(tmp_path_factory).glob("*_amd64.deb")
    box.copy_in(package, "/root")
    # As on a distribution that has no btrfs-progs, which a package manager would not permit here.
    for tool in TOOLS:
        box.exec("mv", tool, "/root")
    box.exec("dpkg", "--install", f"/root/{package.name}", timeout=120)
    configure(box)
    assert_refused(box, "btrfs")
    box.exec("cp", "/root/btrfs", BY_HAND)
    assert_refused(box, "mkfs.btrfs")
    box.exec("cp", "/root/mkfs.btrfs", BY_HAND)
    initialise(box)
    fill(box, left=20)
    wait_growth(box)
    boot_without_btrfs(box)
    fill(box, left=20)
    wait_growth(box, 2)
    assert devices(box) == 3
    assert box.failed_units == []


def boot_without_btrfs(box: Box) -> None:
    """The daemon watches, and says that it is missing before space is needed."""
    box.exec("mv", f"{BY_HAND}/btrfs", "/root")
    box.reboot()
    missing = {"CAUSE": Cause.NO_BTRFS_PROGS.value, "HINT": "apt-get install btrfs-progs"}
    wait_event(box, EventKind.CONDITION_BEGAN, **missing)
    assert state(box) == "active"
    box.exec("mv", "/root/btrfs", BY_HAND)


def assert_versions(box: Box) -> None:
    """It is the release with Python 3.13, systemd 257 and btrfs-progs 6.14."""
    for argv, version in (("python3", "3.13"), ("systemctl", "257"), ("btrfs", "6.14")):
        assert version in box.exec(argv, "--version").stdout.splitlines()[0]


def assert_refused(box: Box, tool: str) -> None:
    """Without this tool there is one line that says what to do, and no volume is created."""
    done = box.exec("ebs-autoscale", "init", "/scratch", "--size", "2GiB", check=False)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert f"`{tool}` is not installed" in done.stderr
    assert "apt-get install btrfs-progs" in done.stderr
    assert not volumes(box)
    checked = box.exec("ebs-autoscale", "check", check=False)
    assert checked.returncode == 5
    assert f"`{tool}` is not installed" in checked.stdout
