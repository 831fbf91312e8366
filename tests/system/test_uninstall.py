"""`uninstall`: what `init` put there goes, what the operator has stays."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebs_autoscale.btrfs_reserve import NAME
from ebs_autoscale.fstab import line_for
from tests.system.bench import Host, until

pytestmark = pytest.mark.kernel

OTHERS = "UUID=1234-ABCD /boot/efi vfat umask=0077 0 1\n"


@pytest.fixture
def fstab(host: Host) -> Iterator[Path]:
    """An fstab for this test alone, with a line for the filesystem among others."""
    etc = host.folder / "etc"
    upper, work = etc / "upper", etc / "work"
    for folder in (etc, upper, work):
        folder.mkdir()
    options = f"lowerdir=/etc,upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "/etc"], check=True)
    mine = Path("/etc/fstab")
    mine.write_text(OTHERS + line_for(host.read().filesystem, str(host.mountpoint)) + "\n")
    yield mine
    subprocess.run(["umount", "--lazy", "/etc"], check=True)


def test_volumes_and_data_stay(host: Host, fstab: Path) -> None:
    """Configuration and line of fstab go, every byte and volume stays where it is."""
    host.fill(25)
    assert host.run("grow").returncode == 0
    (host.mountpoint / "result").write_text("of thirty hours")
    assert host.read().reserve_bytes
    done = host.run("uninstall")
    assert done.returncode == 0, done.stderr
    assert not (host.mountpoint / NAME).exists()
    assert "2 volumes" in done.stdout
    assert fstab.read_text() == OTHERS
    assert not host.config.exists()
    assert host.mountpoint.is_mount()
    assert (host.mountpoint / "result").read_text() == "of thirty hours"
    assert [volume.state for volume in host.volumes()] == ["in-use"]
    assert host.run("uninstall").stdout.startswith("nothing to do")


def test_not_under_a_running_daemon(host: Host, fstab: Path) -> None:
    """A daemon that systemd does not know is not left without its configuration."""
    with host.daemon() as daemon:
        daemon.wait_for("hold: ")
        assert host.run("uninstall").returncode == 3
        assert daemon.stop() == 0
    assert host.config.exists()
    assert len(fstab.read_text().splitlines()) == 2


def test_purge_wants_it_empty(host: Host, fstab: Path) -> None:
    """With anything at all in the filesystem `--purge-empty` changes nothing."""
    before = fstab.read_text()
    subprocess.run(
        ["btrfs", "subvolume", "create", str(host.mountpoint / "kept")],
        check=True,
        capture_output=True,
    )
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 5
    assert "not empty: kept" in done.stderr
    assert fstab.read_text() == before
    assert host.config.exists()
    assert host.mountpoint.is_mount()


def test_purge_wants_it_mounted(host: Host, fstab: Path) -> None:
    """An empty folder where the filesystem is not mounted is no proof that it is empty."""
    before = fstab.read_text()
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 5
    assert "not mounted" in done.stderr
    assert fstab.read_text() == before
    assert host.config.exists()


def test_purge_wants_it_unused(host: Host, fstab: Path) -> None:
    """A process that works in it keeps the filesystem and its volumes."""
    assert host.run("grow").returncode == 0
    with subprocess.Popen(["sleep", "60"], cwd=host.mountpoint) as user:
        done = host.run("uninstall", "--purge-empty")
        user.kill()
    assert done.returncode == 1
    assert "is in use" in done.stderr
    assert host.mountpoint.is_mount()
    assert len(fstab.read_text().splitlines()) == 2
    assert [volume.state for volume in host.volumes()] == ["in-use"]


def test_purge_deletes_the_volumes(host: Host, fstab: Path) -> None:
    """An empty filesystem is unmounted and its volumes are deleted; a device of others is named."""
    node = host.read().members[0].name
    assert host.run("grow").returncode == 0
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 0, done.stderr
    assert not host.mountpoint.is_mount()
    assert f"kept /dev/{node}" in done.stdout
    until(lambda: not host.volumes(), "the volume's end")
    assert fstab.read_text() == OTHERS
