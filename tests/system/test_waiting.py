"""`run --wait`: a filesystem that is not mounted yet, and what is missing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest

from ebs_autoscale.host.fstab import line_for
from tests.system.bench import Daemon, Host, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def fstab(tmp_path: Path) -> Iterator[Path]:
    """An fstab for this test alone."""
    mine = tmp_path / "fstab"
    mine.write_text("# of this test\n")
    subprocess.run(["mount", "--bind", str(mine), "/etc/fstab"], check=True)
    yield mine
    subprocess.run(["umount", "/etc/fstab"], check=True)


def unmount(host: Host) -> str:
    """Unmount the filesystem; its UUID."""
    uuid = host.read().filesystem
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    subprocess.run(["btrfs", "device", "scan", "--forget"], check=False, capture_output=True)
    return uuid


def end(host: Host, daemon: Daemon) -> None:
    """Leave no child at work, then end the daemon in order."""
    daemon.wait_for("hold: ")
    assert daemon.stop() == 0
    assert host.leaked() == []


def test_mounts_what_fstab_wants(host: Host, fstab: Path) -> None:
    """A filesystem whose devices are all here is mounted as fstab says, then watched."""
    fstab.write_text(line_for(unmount(host), str(host.mountpoint)) + "\n")
    with host.daemon("--wait") as daemon:
        daemon.wait_for("all its devices are here")
        daemon.wait_for("watching")
        end(host, daemon)


def test_names_the_volume_that_is_away(host: Host, fstab: Path) -> None:
    """Without one of its volumes nothing is mounted or bought, and the volume is named."""
    host.fill(25)
    assert host.run("grow").returncode == 0
    [volume] = host.volumes()
    fstab.write_text(line_for(unmount(host), str(host.mountpoint)) + "\n")
    assert host.ask_ec2("DetachVolume", volume.id)
    until(lambda: host.volumes()[0].state == "available", "the device's end")
    with host.daemon("--wait") as daemon:
        daemon.wait_for(f"{volume.id} of growth")
        assert "1 of its 2 devices are here" in daemon.log
        assert not host.mountpoint.is_mount()
        status = host.run("status")
        assert status.returncode == 5
        assert f"pid {daemon.process.pid}" in status.stdout
        assert volume.id in status.stdout
        assert daemon.stop() == 0
    assert len(host.volumes()) == 1


def test_waits_for_what_nobody_mounts(host: Host, fstab: Path) -> None:
    """Without a line in fstab it waits, says so once, and goes on when somebody mounts."""
    node = f"/dev/{host.read().devices[0].name}"
    unmount(host)
    assert fstab.exists()
    with host.daemon("--wait") as daemon:
        daemon.wait_for("no line of /etc/fstab mounts it")
        assert "watching" not in daemon.log
        subprocess.run(["mount", node, str(host.mountpoint)], check=True)
        daemon.wait_for("watching")
        assert daemon.log.count("no line of") == 2, "at its begin and at its end"
        end(host, daemon)


def test_a_stop_ends_the_wait_in_order(host: Host, fstab: Path) -> None:
    """Who waits is stopped like who watches: exit 0, and no report stays behind."""
    unmount(host)
    assert fstab.exists()
    with host.daemon("--wait") as daemon:
        daemon.wait_for("not mounted")
        assert host.run("run").returncode == 5, "without --wait it ends at once"
        assert daemon.stop() == 0
    assert host.status()["daemon"] is None


def test_a_reload_while_it_waits(host: Host, fstab: Path) -> None:
    """It is read at once, what is bad refused, and the daemon rests again afterwards."""
    node = f"/dev/{host.read().devices[0].name}"
    good = host.config.read_text("utf-8")
    unmount(host)
    assert fstab.exists()
    with host.daemon("--wait") as daemon:
        daemon.wait_for("no line of /etc/fstab mounts it")
        host.config.write_text("mountpoint: /elsewhere\n", "utf-8")
        daemon.reload()
        daemon.wait_for("mountpoint is now /elsewhere")
        host.config.write_text(good, "utf-8")
        daemon.reload()
        daemon.wait_for("goes by")
        process = psutil.Process(daemon.process.pid)
        before = sum(process.cpu_times()[:2])
        Event().wait(3)
        assert sum(process.cpu_times()[:2]) - before < 0.5
        subprocess.run(["mount", node, str(host.mountpoint)], check=True)
        daemon.wait_for("watching")
        end(host, daemon)
