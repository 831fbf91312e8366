"""Loop devices are owned by descriptor, and nothing leaks out of the private namespace."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.errors import CommandFailed
from ebs_autoscale.host.command import run

pytestmark = pytest.mark.kernel

MIB = 1024**2


def backing(name: str) -> str:
    """What the kernel says is behind this loop device, empty when nothing is."""
    path = Path(f"/sys/block/{name}/loop/backing_file")
    return path.read_text() if path.exists() else ""


def test_vanishes_with_its_last_holder(loop: Callable[[int], LoopDevice]) -> None:
    """A loop device detaches itself once nobody holds it any more."""
    device = loop(64 * MIB)
    behind = backing(device.name)
    assert "(deleted)" in behind
    device.close()
    assert backing(device.name) != behind


def test_stays_while_another_holds_it(loop: Callable[[int], LoopDevice]) -> None:
    """Letting go of a device takes nothing from those who still use it."""
    device = loop(64 * MIB)
    behind = backing(device.name)
    with Path(device.node).open("rb"):
        device.close()
        assert backing(device.name) == behind
    assert backing(device.name) != behind


def test_closing_twice_spares_the_next_owner_of_the_name(
    loop: Callable[[int], LoopDevice],
) -> None:
    """A name belongs to somebody else after close, and a second close leaves it alone."""
    first = loop(64 * MIB)
    first.close()
    others = [loop(96 * MIB) for _ in range(3)]
    first.close()
    assert [other.size_bytes for other in others] == [96 * MIB] * 3


def test_resize_reaches_the_kernel(loop: Callable[[int], LoopDevice]) -> None:
    """A resized device has its new size for everybody, and takes no space for it."""
    device = loop(64 * MIB)
    device.resize(3 * 1024 * MIB)
    sectors = int(Path(f"/sys/block/{device.name}/size").read_text())
    assert sectors * 512 == device.size_bytes == 3 * 1024 * MIB
    assert device.stored_bytes < MIB


def test_makes_its_node_where_nobody_does(loop: Callable[[int], LoopDevice]) -> None:
    """In a private /dev without devtmpfs the node of a new device is made by us."""
    for node in Path("/dev").glob("loop[0-9]*"):
        node.unlink()
    device = loop(64 * MIB)
    assert Path(device.node).is_block_device()


def test_nothing_leaks_out_of_the_namespace(tmp_path: Path) -> None:
    """Nodes, links, mounts and lock files of a private namespace are invisible outside of it."""
    mounts = Path("/proc/self/mountinfo").read_bytes()
    nodes = set(Path("/dev").iterdir())
    script = """
import ctypes, os, sys
from ec2_sandbox.devices.namespace import enter_private_namespace
enter_private_namespace()
os.symlink("/dev/null", "/dev/disk/by-id/nvme-sandbox")
os.mknod("/dev/sandbox", 0o600)
open("/run/ebs-autoscale/sandbox.lock", "w").close()
libc = ctypes.CDLL(None)
assert libc.mount(b"tmpfs", os.fsencode(sys.argv[1]), b"tmpfs", 0, None) == 0
open(os.path.join(sys.argv[1], "inside"), "w").close()
print(sorted(os.listdir("/run/ebs-autoscale")))
"""
    output = run([sys.executable, "-c", script, str(tmp_path)], timeout_seconds=60)
    assert output.strip() == "['sandbox.lock']"
    assert Path("/proc/self/mountinfo").read_bytes() == mounts
    assert set(Path("/dev").iterdir()) == nodes
    assert not list(tmp_path.iterdir())
    assert not Path("/run/ebs-autoscale/sandbox.lock").exists()
    assert not Path("/dev/disk/by-id/nvme-sandbox").is_symlink()


def test_threads_keep_a_process_out_of_the_namespace() -> None:
    """A process with threads is refused: they would go on seeing the host's mounts."""
    script = """
import threading
from ec2_sandbox.devices.namespace import enter_private_namespace
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
try:
    enter_private_namespace()
finally:
    done.set()
"""
    with pytest.raises(CommandFailed, match="first thread"):
        run([sys.executable, "-c", script], timeout_seconds=60)
