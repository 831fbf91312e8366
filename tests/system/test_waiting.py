"""`run --wait`: a filesystem that is not mounted yet, and what it lacks."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psutil
import pytest
from ec2_sandbox.devices.failing import DeviceFault, FailingDevice

from ebs_autoscale.daemon.await_mount import MountWaiter
from ebs_autoscale.host.fstab import line_for
from tests.simulated.clock import SimulatedClock
from tests.system.bench import Daemon, Host, events_in, find_event, until

pytestmark = pytest.mark.kernel


def unmount(host: Host) -> str:
    """Unmount the filesystem; its UUID."""
    uuid = host.read().filesystem
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    subprocess.run(["btrfs", "device", "scan", "--forget"], check=False, capture_output=True)
    return uuid


def end(host: Host, daemon: Daemon) -> None:
    """Wait for its first decision, then stop the daemon."""
    daemon.wait_event("decided", decision="hold")
    assert daemon.stop() == 0
    assert host.leaked() == []


def test_mounts_what_fstab_wants(host: Host, fstab: Path) -> None:
    """A filesystem whose devices are all present is mounted as fstab says, then watched."""
    fstab.write_text(line_for(unmount(host), str(host.mountpoint)) + "\n")
    with host.daemon("--wait") as daemon:
        daemon.wait_event("tended", containing=str(host.mountpoint))
        daemon.wait_event("started")
        end(host, daemon)


def test_names_the_missing_volume(host: Host, fstab: Path) -> None:
    """Without one of its volumes nothing is mounted or created, and the volume is named."""
    host.fill(25)
    assert host.run("grow").returncode == 0
    [volume] = host.volumes()
    fstab.write_text(line_for(unmount(host), str(host.mountpoint)) + "\n")
    host.sandbox.operate("DetachVolume", VolumeId=volume.id)
    until(lambda: host.volumes()[0].state == "available", "the device's end")
    with host.daemon("--wait") as daemon:
        told = daemon.wait_event("condition_began", cause="not mounted", containing=volume.id)
        assert "attach" in told["hint"]
        assert f"mount {host.mountpoint}" not in told["hint"]
        assert not host.mountpoint.is_mount()
        assert host.run("status").returncode == 5
        report = host.status()["daemon"]
        assert report["pid"] == daemon.process.pid
        assert volume.id in str(report["conditions"])
        assert daemon.stop() == 0
    assert len(host.volumes()) == 1


def test_waits_for_an_operator_to_mount_it(host: Host, fstab: Path) -> None:
    """Without a line in fstab it waits, says so once, and goes on when an operator mounts it."""
    node = f"/dev/{host.read().devices[0].name}"
    unmount(host)
    assert fstab.exists()
    with host.daemon("--wait") as daemon:
        daemon.wait_event("condition_began", cause="not mounted", containing="/etc/fstab")
        assert not find_event(daemon.log, "started")
        subprocess.run(["mount", node, str(host.mountpoint)], check=True)
        daemon.wait_event("condition_ended", cause="not mounted")
        daemon.wait_event("started")
        told = [event for event in events_in(daemon.log) if event.get("cause") == "not mounted"]
        assert [event["event"] for event in told] == ["condition_began", "condition_ended"]
        end(host, daemon)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 10), (7, 60)])
def test_a_mount_that_fails_is_tried_again(
    host: Host, fstab: Path, failures: int, seconds: int
) -> None:
    """Ten seconds after the first attempt, then less and less often, but once a minute."""
    right = line_for(unmount(host), str(host.mountpoint)) + "\n"
    fstab.write_text(right.replace("defaults", "defaults,subvol=absent"))
    clock = SimulatedClock()
    waiter = MountWaiter(
        str(host.mountpoint),
        config_path=host.config,
        clock=clock,
        emit=lambda _event: None,
        stopping=lambda: False,
    )
    for _ in range(failures):
        assert waiter.advance(host.read)
        clock.sleep(60)
    assert waiter.advance(host.read)
    fstab.write_text(right)
    for _ in range(seconds // 10):
        assert not host.mountpoint.is_mount()
        clock.sleep(10)
        waiter.advance(host.read)
    assert host.mountpoint.is_mount()


def test_stopped_while_it_waits(host: Host, fstab: Path) -> None:
    """A stop ends the wait with exit 0, and no status file is left."""
    unmount(host)
    assert fstab.exists()
    with host.daemon("--wait") as daemon:
        daemon.wait_event("condition_began", cause="not mounted")
        assert host.run("run").returncode == 5, "without --wait it ends at once"
        assert daemon.stop() == 0
    assert host.status()["daemon"] is None


def test_a_reload_while_it_waits(host: Host, fstab: Path) -> None:
    """The file is read at once, an invalid one is refused, and the daemon is idle again."""
    node = f"/dev/{host.read().devices[0].name}"
    good = host.config.read_text("utf-8")
    unmount(host)
    assert fstab.exists()
    with host.daemon("--wait") as daemon:
        daemon.wait_event("condition_began", cause="not mounted")
        host.config.write_text("mountpoint: /elsewhere\n", "utf-8")
        daemon.reload()
        daemon.wait_event("warning", cause="configuration", containing="/elsewhere")
        host.config.write_text(good, "utf-8")
        daemon.reload()
        daemon.wait_event("reloaded")
        process = psutil.Process(daemon.process.pid)
        before = sum(process.cpu_times()[:2])
        Event().wait(3)
        assert sum(process.cpu_times()[:2]) - before < 0.5
        subprocess.run(["mount", node, str(host.mountpoint)], check=True)
        daemon.wait_event("started")
        end(host, daemon)


def test_a_device_of_the_host_hangs(
    host: Host, fstab: Path, failing_loop: Callable[[int], FailingDevice]
) -> None:
    """One process waits for a device that does not respond; the daemon says so.

    Nothing is mounted meanwhile: the device may be a copy. Once it responds, all goes on.
    """
    fstab.write_text(line_for(unmount(host), str(host.mountpoint)) + "\n")
    device = failing_loop(1024**2)
    device.fail(DeviceFault.READS_HANG)
    with host.daemon("--wait") as daemon:
        daemon.wait_event("condition_began", cause="device unreadable")
        assert not host.mountpoint.is_mount()
        device.fail(DeviceFault.NONE)
        daemon.wait_event("tended", containing=str(host.mountpoint))
        end(host, daemon)


def test_a_device_of_others_hangs(host: Host, failing_loop: Callable[[int], FailingDevice]) -> None:
    """A growth adds its volume, and no verb waits for a device that has nothing to do with it."""
    host.fill(25)
    device = failing_loop(1024**2)
    device.fail(DeviceFault.READS_HANG)
    with ThreadPoolExecutor() as pool:
        ran = {verb: pool.submit(host.run, verb, seconds=25) for verb in ("grow", "check")}
        grown, checked = ran["grow"].result(), ran["check"].result()
    device.fail(DeviceFault.NONE)
    assert grown.returncode == 0
    name = Path(device.node).name
    assert [line for line in grown.stderr.splitlines() if name in line and "unreadable" in line]
    assert [
        line for line in checked.stdout.splitlines() if line.startswith("fail") and name in line
    ]
    assert (host.devices, host.leaked()) == (2, [])
