"""A block device fails as it is told to, keeps its content, and works again."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from ec2_sandbox.devices.failing import DeviceFault, FailingDevice
from ec2_sandbox.errors import InputInvalid

from tests.sandbox.conftest import Rig, Start

pytestmark = pytest.mark.kernel

MIB = 1024**2
BLOCK = 4096
Failing = Callable[[int], FailingDevice]


@contextmanager
def direct(node: str) -> Iterator[tuple[int, mmap.mmap]]:
    """The device, past the page cache."""
    fd = os.open(node, os.O_RDWR | os.O_DIRECT)
    try:
        yield fd, mmap.mmap(-1, BLOCK)
    finally:
        os.close(fd)


def write(node: str, at: int = MIB) -> None:
    """Write a block; raises OSError."""
    with direct(node) as (fd, buffer):
        buffer[:] = b"x" * BLOCK
        os.pwritev(fd, [buffer], at)


def read(node: str, at: int = MIB) -> bytes:
    """Read a block; raises OSError."""
    with direct(node) as (fd, buffer):
        os.preadv(fd, [buffer], at)
        return bytes(buffer)


def outcome(act: Callable[[str], object], device: FailingDevice) -> str:
    """How it ends: done, refused, or hanging for half a second, which then goes on."""
    found = ["hangs"]

    def attempt() -> None:
        found[0] = "refused"
        with suppress(OSError):
            act(device.node)
            found[0] = "done"

    thread = Thread(target=attempt)
    thread.start()
    thread.join(0.5)
    how = "hangs" if thread.is_alive() else found[0]
    device.fail(DeviceFault.NONE)
    thread.join(10)
    assert not thread.is_alive()
    return how


@pytest.mark.parametrize(
    ("fault", "written", "read_back"),
    [
        (DeviceFault.WRITES_REFUSED, "refused", "done"),
        (DeviceFault.REFUSED, "refused", "refused"),
        (DeviceFault.WRITES_HANG, "hangs", "done"),
        (DeviceFault.READS_HANG, "done", "hangs"),
    ],
)
def test_fails_as_told(
    failing_loop: Failing, fault: DeviceFault, written: str, read_back: str
) -> None:
    """Reads and writes fail as the fault says; afterwards both work, on the same content."""
    device = failing_loop(64 * MIB)
    write(device.node)
    device.fail(fault)
    assert outcome(write, device) == written
    device.fail(fault)
    assert outcome(read, device) == read_back
    assert read(device.node) == b"x" * BLOCK
    write(device.node)


def test_a_volume_can_be_made_to_fail(start: Start) -> None:
    """The device of an attached volume fails, and one to come from its first moment."""
    rig = start(block_devices="nitro", failing_devices=True)
    first = rig.attached()
    rig.control.fail_device(DeviceFault.WRITES_REFUSED)
    second = rig.attached("/dev/xvdbb")
    write(f"/dev/{rig.seen(first).node}")
    with pytest.raises(OSError, match="Input/output"):
        write(f"/dev/{rig.seen(second).node}")
    rig.control.fail_device(DeviceFault.REFUSED, first)
    with pytest.raises(OSError, match="Input/output"):
        read(f"/dev/{rig.seen(first).node}")


def test_others_do_not_fail(start: Start) -> None:
    """Without the setting no device can be made to fail, and the reason is said."""
    rig: Rig = start(block_devices="nitro")
    with pytest.raises(InputInvalid, match="failing_devices"):
        rig.control.fail_device(DeviceFault.REFUSED, rig.attached())
