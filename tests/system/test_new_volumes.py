"""New volumes that are of no use: claimed by another process, or with I/O errors."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from ec2_sandbox.devices.failing import DeviceFault

from ebs_autoscale.errors import Cause, Exit
from tests.system.bench import Host, until

pytestmark = pytest.mark.kernel

# As multipathd does with a device of which it makes a map.
CLAIMS_ALL = """
import os, pathlib, time
by_id = pathlib.Path("/dev/disk/by-id")
before, held = set(by_id.glob("nvme-*")), {}
print("ready", flush=True)
while True:
    for link in set(by_id.glob("nvme-*")) - before - held.keys():
        try:
            held[link] = os.open(link, os.O_RDONLY | os.O_EXCL)
        except OSError:
            pass
    time.sleep(0.002)
"""


@contextmanager
def claims_all() -> Iterator[int]:
    """A process that opens each new volume exclusively: its id."""
    argv = [sys.executable, "-I", "-S", "-c", CLAIMS_ALL]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def test_another_process_claims_all_of_them(make_host: Callable[..., Host]) -> None:
    """Two volumes are created, however many growths there are; without it, one is added."""
    # It needs a moment until it sees a device.
    host = make_host(attach_seconds=(0.4, 0.4), device_seconds=(-0.4, -0.4))
    with claims_all() as pid:
        for _ in range(2):  # unit tests have more
            grown = host.run("grow")
            assert (grown.returncode, len(host.volumes())) == (Exit.UNFIT, 2), grown.stderr
            assert f"cause={Cause.CLAIMED.value}" in grown.stderr
            assert f"(pid {pid})" in grown.stderr
    grown = host.run("grow")
    assert (grown.returncode, len(host.volumes()), host.devices) == (0, 2, 2), grown.stderr


def test_some_have_io_errors(make_host: Callable[..., Host]) -> None:
    """One that cannot be read and one that cannot be written are set aside; a third is added."""
    host = make_host(failing_devices=True)
    host.fill(20)
    host.sandbox.fail_device(DeviceFault.REFUSED)
    with host.daemon() as daemon:
        until(lambda: any(volume.node for volume in host.volumes()), "the first volume")
        host.sandbox.fail_device(DeviceFault.WRITES_REFUSED)
        unreadable = daemon.wait_event("condition_began", cause=Cause.DEVICE_UNREADABLE.value)
        until(lambda: sum(bool(volume.node) for volume in host.volumes()) == 2, "the second")
        host.sandbox.fail_device(DeviceFault.NONE)
        unwritable = daemon.wait_event("condition_began", cause=Cause.UNWRITABLE.value)
        daemon.wait_event("growth_done")
    assert (len(host.volumes()), host.devices) == (3, 2)
    for number, volume in enumerate(host.leaked()):
        told = (unreadable, unwritable)[number]
        assert volume.id in told["message"]
        assert told["hint"]
