"""A device is added whatever else happens in the filesystem, without disturbing that."""

import os
import subprocess
from contextlib import nullcontext, suppress

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Transient
from ebs_autoscale.host.command import run
from tests.kernel.fixtures import Btrfs, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3
CONTENT_MIB = 300
# M is the mountpoint, S a spare device; the last two are exclusive operations.
OPERATIONS = {
    "scrub": ("scrub", "start", "-B", "M"),
    "snapshot deletion": ("subvolume", "delete", "--commit-after", "M/snapshot"),
    "resize": ("filesystem", "resize", "1:-256m", "M"),
    "replace": ("replace", "start", "-B", "1", "S", "M"),
}
# The kernel refuses an operation that begins at the moment of the add: this exit status.
REFUSED = 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_device_is_added_beside(operation: str, loop: Loop, btrfs_at: Btrfs) -> None:
    """Another process' operation succeeds, and the new device is added, in either order."""
    path = btrfs_at(loop(GIB))
    (path / "content").write_bytes(os.urandom(MIB) * CONTENT_MIB)
    run(["btrfs", "subvolume", "snapshot", str(path), f"{path}/snapshot"], timeout_seconds=60)
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    filesystem = BtrfsFilesystem(str(path), clock=SystemClock())
    spare, new = loop(GIB), loop(GIB)
    words = [
        word.replace("M", str(path), 1) if word[0] == "M" else spare.node if word == "S" else word
        for word in OPERATIONS[operation]
    ]
    with subprocess.Popen(["btrfs", *words], stdout=subprocess.DEVNULL) as running:
        # Both may begin at the same moment; then it is tried again, as the daemon does.
        while not filesystem.read().has_device(new.name):
            with suppress(Transient):
                filesystem.add_device(new.name, verified=nullcontext)
        assert running.wait(60) in {0, REFUSED}
    reading = filesystem.read()
    assert reading.has_device(new.name)
    assert filesystem.exclusive_operation() == "none"
    assert run(["btrfs", "scrub", "start", "-B", str(path)], timeout_seconds=60).count("Error") == 1
