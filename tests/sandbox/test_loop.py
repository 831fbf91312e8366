"""Loop devices are owned by file descriptor, and nothing leaks out of a private namespace."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice

pytestmark = pytest.mark.kernel

MIB = 1024**2


def backing(name: str) -> str:
    """The backing file of this loop device according to the kernel; empty if there is none."""
    path = Path(f"/sys/block/{name}/loop/backing_file")
    return path.read_text() if path.exists() else ""


def test_vanishes_with_its_last_user(loop: Callable[[int], LoopDevice]) -> None:
    """A loop device detaches itself when its last user closes it."""
    device = loop(64 * MIB)
    behind = backing(device.name)
    assert "(deleted)" in behind
    device.close()
    assert backing(device.name) != behind


def test_stays_while_another_process_uses_it(loop: Callable[[int], LoopDevice]) -> None:
    """Closing a device does not affect other users of it."""
    device = loop(64 * MIB)
    behind = backing(device.name)
    with Path(device.node).open("rb"):
        device.close()
        assert backing(device.name) == behind
    assert backing(device.name) != behind


def test_closing_twice_spares_the_next_owner_of_the_name(
    loop: Callable[[int], LoopDevice],
) -> None:
    """After a close the name may belong to another process; a second close does not touch it."""
    first = loop(64 * MIB)
    first.close()
    others = [loop(96 * MIB) for _ in range(3)]
    first.close()
    assert [other.size_bytes for other in others] == [96 * MIB] * 3


def test_resize_reaches_the_kernel(loop: Callable[[int], LoopDevice]) -> None:
    """A resized device has its new size for every process, and stays sparse."""
    device = loop(64 * MIB)
    device.resize(3 * 1024 * MIB)
    sectors = int(Path(f"/sys/block/{device.name}/size").read_text())
    assert sectors * 512 == device.size_bytes == 3 * 1024 * MIB
    assert device.stored_bytes < MIB


def test_creates_its_node_in_a_private_dev(loop: Callable[[int], LoopDevice]) -> None:
    """In a private /dev, which is not a devtmpfs, the node of a new device is created."""
    for node in Path("/dev").glob("loop[0-9]*"):
        node.unlink()
    device = loop(64 * MIB)
    assert Path(device.node).is_block_device()


_IN_THE_NAMESPACE = """
import ctypes, os, pathlib, sys
from ec2_sandbox.devices.namespace import enter_private_namespace
covered, mounted = map(pathlib.Path, sys.argv[1:])
enter_private_namespace(folders=[covered])
os.symlink("/dev/null", "/dev/disk/by-id/nvme-sandbox")
os.mknod("/dev/sandbox", 0o600)
(covered / "file").touch()
assert ctypes.CDLL(None).mount(b"tmpfs", os.fsencode(mounted), b"tmpfs", 0, None) == 0
(mounted / "file").touch()
print(sorted(os.listdir(covered)), sorted(os.listdir(mounted)))
"""


def test_nothing_leaks_out_of_the_namespace(tmp_path: Path) -> None:
    """Nodes, links, mounts and files of a private namespace are invisible outside it."""
    mounts = Path("/proc/self/mountinfo").read_bytes()
    nodes = set(Path("/dev").iterdir())
    covered, mounted = tmp_path / "covered", tmp_path / "mounted"
    mounted.mkdir()
    argv = [sys.executable, "-c", _IN_THE_NAMESPACE, str(covered), str(mounted)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['file'] ['file']\n"
    assert Path("/proc/self/mountinfo").read_bytes() == mounts
    assert set(Path("/dev").iterdir()) == nodes
    assert [*covered.iterdir(), *mounted.iterdir()] == []
    assert not Path("/dev/disk/by-id/nvme-sandbox").is_symlink()


def test_threads_keep_a_process_out_of_the_namespace() -> None:
    """A process with threads is refused: they would stay outside."""
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
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert "HostUnfit" in done.stderr


_IN_A_CHROOT = """
import codecs, os, sys
from ec2_sandbox.devices import namespace
from ec2_sandbox.errors import HostUnfit
codecs.lookup("ascii")  # loads a module, which the chroot has not
os.chroot(sys.argv[1])
os.chdir("/")
print(namespace.missing_requirement())
try:
    namespace.enter_private_namespace()
except (HostUnfit, OSError) as error:
    print(getattr(error, "hint", error))
"""


def test_a_chroot_is_told_what_it_lacks(tmp_path: Path) -> None:
    """Not to run as root, which it does: first /proc, then a / whose mounts can be private."""

    def told() -> str:
        argv = [sys.executable, "-c", _IN_A_CHROOT, str(tmp_path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert "not root" not in done.stdout
        return done.stdout

    assert told().startswith("/proc is not mounted")
    (tmp_path / "proc").mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(tmp_path / "proc")], check=True)
    try:
        first, hint = told().splitlines()
    finally:
        subprocess.run(["umount", str(tmp_path / "proc")], check=True)
    assert "mount --bind" in first
    assert hint == first
