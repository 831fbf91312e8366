"""`uninstall`: what `init` set up goes, what the operator has stays."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import psutil
import pytest
from ec2_sandbox.client import VolumeSeen
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.filesystems.btrfs.reserve import NAME
from ebs_autoscale.host.fstab import line_for
from tests.signatures import gpt
from tests.system.bare import kill
from tests.system.bench import GIB, Host, create_volume, until

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


@contextmanager
def container() -> Iterator["subprocess.Popen[str]"]:
    """An idle process whose own mount namespace keeps all mounts, as that of a container does."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def assert_untouched(host: Host, fstab: Path) -> None:
    """The filesystem is mounted with its volume; line of fstab and configuration are there."""
    assert host.mountpoint.is_mount()
    assert [volume.state for volume in host.volumes()] == ["in-use"]
    assert len(fstab.read_text().splitlines()) == 2
    assert host.config.exists()


def test_data_of_containers_on_it(host: Host, fstab: Path) -> None:
    """While fstab mounts a part of it elsewhere, which a boot would miss, nothing is undone."""
    point = host.mountpoint
    options = f"bind,x-systemd.requires-mounts-for={point}"
    line = f"{point}/.containers/docker /var/lib/docker none {options} 0 0\n"
    before = fstab.read_text()
    fstab.write_text(before + line)
    done = host.run("uninstall")
    assert done.returncode == 5
    assert "/var/lib/docker" in done.stderr
    assert fstab.read_text() == before + line
    assert host.config.exists()


def test_volumes_and_data_stay(host: Host, fstab: Path) -> None:
    """Configuration and line of fstab go, every byte and volume stays where it is."""
    host.fill(25)
    assert host.run("grow").returncode == 0
    (host.mountpoint / "result").write_text("of thirty hours")
    assert host.read().reserve_bytes
    done = host.run("uninstall")
    assert done.returncode == 0, done.stderr
    assert not (host.mountpoint / NAME).exists()
    assert str(host.mountpoint) in done.stdout
    assert fstab.read_text() == OTHERS
    assert not host.config.exists()
    assert host.mountpoint.is_mount()
    assert (host.mountpoint / "result").read_text() == "of thirty hours"
    assert [volume.state for volume in host.volumes()] == ["in-use"]
    assert host.run("uninstall").returncode == 0


@pytest.mark.parametrize("option", [(), ("--purge-empty",)])
def test_an_operators_own_line_stays(host: Host, fstab: Path, option: tuple[str, ...]) -> None:
    """A line that `init` did not write is kept, and is named."""
    line = f"UUID={host.read().filesystem} {host.mountpoint} btrfs defaults 0 0"
    fstab.write_text(f"{OTHERS}{line}\n")
    done = host.run("uninstall", *option)
    assert done.returncode == 0, done.stderr
    assert f": {line}\n" in done.stdout
    assert fstab.read_text() == f"{OTHERS}{line}\n"


def test_a_line_is_not_lost(host: Host, fstab: Path) -> None:
    """The line that is removed is printed, and so is the command that mounts the same."""
    uuid = host.read().filesystem
    line = line_for(uuid, str(host.mountpoint), ("noatime", "subvol=/"))
    fstab.write_text(f"{OTHERS}{line}\n")
    done = host.run("uninstall")
    assert f": {line}\n" in done.stdout
    assert f"mount -o noatime,subvol=/ UUID={uuid} {host.mountpoint}\n" in done.stdout
    assert fstab.read_text() == OTHERS


def test_not_under_a_running_daemon(host: Host, fstab: Path) -> None:
    """A daemon that systemd does not know of keeps its configuration."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        assert host.run("uninstall").returncode == 3
        assert daemon.stop() == 0
    assert host.config.exists()
    assert len(fstab.read_text().splitlines()) == 2


def test_purge_wants_it_empty_and_unused(host: Host, fstab: Path) -> None:
    """With any content, another mount or a process in it `--purge-empty` changes nothing."""
    assert host.run("grow").returncode == 0
    results = str(host.mountpoint / "results")
    argv = ["btrfs", "subvolume"]
    subprocess.run([*argv, "create", results], check=True, capture_output=True)
    done = host.run("uninstall", "--purge-empty")
    assert (done.returncode, "results" in done.stderr) == (5, True), done.stderr
    assert_untouched(host, fstab)
    subprocess.run([*argv, "delete", results], check=True, capture_output=True)

    second = host.folder / "second"
    second.mkdir()
    subprocess.run(["mount", "--bind", str(host.mountpoint), str(second)], check=True)
    done = host.run("uninstall", "--purge-empty")
    subprocess.run(["umount", str(second)], check=True)
    assert (done.returncode, str(second) in done.stderr) == (5, True), done.stderr
    assert_untouched(host, fstab)

    with subprocess.Popen(["sleep", "60"], cwd=host.mountpoint) as user:
        done = host.run("uninstall", "--purge-empty")
        user.kill()
    assert done.returncode == 1
    assert f"fuser -vm {host.mountpoint}" in done.stderr
    assert_untouched(host, fstab)


def test_purge_wants_it_mounted(host: Host, fstab: Path) -> None:
    """An empty folder where the filesystem is not mounted does not show that it is empty."""
    before = fstab.read_text()
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 5
    assert f"mount {host.mountpoint}" in done.stderr
    assert fstab.read_text() == before
    assert host.config.exists()


def test_purge_wants_all_of_it(host: Host, fstab: Path) -> None:
    """An empty folder of a filesystem, mounted by itself, does not show that the rest is empty."""
    assert host.run("grow").returncode == 0
    (host.mountpoint / "empty").mkdir()
    (host.mountpoint / "result").write_text("of thirty hours")
    part = host.folder / "part"
    part.mkdir()
    subprocess.run(["mount", "--bind", str(host.mountpoint / "empty"), str(part)], check=True)
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    subprocess.run(["mount", "--move", str(part), str(host.mountpoint)], check=True)
    done = host.run("uninstall", "--purge-empty")
    assert (done.returncode, "/empty" in done.stderr) == (5, True), done.stderr
    assert_untouched(host, fstab)


def test_purge_wants_it_unused_by_containers(host: Host, fstab: Path) -> None:
    """What is mounted in another mount namespace is not deleted; once that has ended, it is."""
    assert host.run("grow").returncode == 0
    with container() as other:
        done = host.run("uninstall", "--purge-empty")
        other.kill()
    assert done.returncode == 1, done.stderr
    assert not host.mountpoint.is_mount()
    (way,) = re.findall(r"`(mount [^`]+)`", done.stderr)
    subprocess.run(way.split(), check=True)
    assert_untouched(host, fstab)
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 0, done.stderr
    until(lambda: not host.volumes(), "the volume's end")


def test_purge_deletes_the_volumes(host: Host, fstab: Path) -> None:
    """An empty filesystem is unmounted and its volumes are deleted; any other device is named."""
    node = host.read().devices[0].name
    assert host.run("grow").returncode == 0
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 0, done.stderr
    assert not host.mountpoint.is_mount()
    assert f"/dev/{node}" in done.stdout
    until(lambda: not host.volumes(), "the volume's end")
    assert fstab.read_text() == OTHERS


def hold(host: Host, tool: str, work: str, then: str = "exec sleep 60") -> Path:
    """Put a tool in the way that does this work and then stops; the file that it creates then."""
    reached, folder = host.folder / "reached", host.folder / "tools"
    folder.mkdir()
    (folder / tool).write_text(f'#!/bin/sh\n{work}\ntouch "{reached}"\n{then}\n', "utf-8")
    (folder / tool).chmod(0o755)
    host.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    return reached


def kill_when(host: Host, reached: Callable[[], object]) -> None:
    """Start a purge, kill it with its tools once that is so, and take nothing in its way."""
    argv = [*host.argv, "uninstall", "--purge-empty"]
    process = psutil.Popen(argv, env=host.environment, stdout=subprocess.DEVNULL)
    until(reached, "the step")
    kill(process, with_children=True)
    host.environment["PATH"] = os.environ["PATH"]
    host.sandbox.clear_faults()


@pytest.mark.parametrize(
    "step",
    [
        "after mount",
        "after umount",
        "after DetachVolume",
        "before DeleteVolume",
    ],
)
def test_an_interrupted_purge_is_completed(host: Host, fstab: Path, step: str) -> None:
    """Killed around any step, another run ends with nothing left."""
    for _ in range(2):
        assert host.run("grow", "--size", "1GiB").returncode == 0
    when, action = step.split()
    if action.endswith("Volume"):
        rule = FaultRule(
            kind=FaultKind.DELAY,
            action=action,
            when=cast("Literal['before', 'after']", when),
            seconds=2.0,
            times=1,
        )
        host.sandbox.add_fault(rule)
        kill_when(host, lambda: host.sandbox.calls(action))
    else:
        work = {"before": ":", "after": f'{shutil.which(action)} "$@" || exit'}[when]
        kill_when(host, hold(host, action, work).exists)
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 0, done.stderr
    assert not host.mountpoint.is_mount()
    until(lambda: not host.volumes(), "the volumes' end")
    assert fstab.read_text() == OTHERS
    assert not host.config.exists()


@pytest.mark.parametrize("tool", ["btrfs", "umount"])
def test_what_is_written_in_the_window_is_kept(host: Host, fstab: Path, tool: str) -> None:
    """A file that comes between the look and the unmount is refused, or keeps the volumes."""
    assert host.run("grow").returncode == 0
    late, real = host.mountpoint / "late", shutil.which(tool)
    work = f'{real} "$@"' if tool == "btrfs" else ":"
    then = "" if tool == "btrfs" else f'exec {real} "$@"'
    hold(host, tool, f"{work}\ntouch {late} && touch {host.folder / 'written'}", then)
    done = host.run("uninstall", "--purge-empty")
    if (host.folder / "written").exists():
        assert done.returncode != 0
        assert late.exists()
        assert_untouched(host, fstab)
    else:
        assert done.returncode == 0, done.stderr


def test_what_is_written_after_an_interruption_is_kept(host: Host, fstab: Path) -> None:
    """A volume that was used after its purge was interrupted is not deleted.

    It is detached, as after a use elsewhere, so that only attaching it shows what is on it.
    """
    assert host.run("grow").returncode == 0
    node = f"/dev/{host.read().devices[0].name}"
    reached = hold(host, "umount", f'{shutil.which("umount")} "$@" || exit')
    kill_when(host, reached.exists)

    def refused(volume: VolumeSeen) -> str:
        """What is on the volume after a purge that refuses to delete it."""
        host.sandbox.operate("DetachVolume", VolumeId=volume.id)
        until(lambda: host.volumes()[0].state == "available", "the detach")
        done = host.run("uninstall", "--purge-empty")
        assert (done.returncode, volume.id in done.stderr) == (5, True), done.stderr
        return f"/dev/{host.volumes()[0].node}"

    (volume,) = host.volumes()
    # Beside the superblock, which has not changed.
    table = gpt(volume.size_gib * GIB)
    with Path(f"/dev/{volume.node}").open("r+b") as device:
        device.write(table)
    grown = refused(volume)
    with Path(grown).open("r+b") as device:
        device.write(bytes(len(table)))

    subprocess.run(["btrfs", "device", "scan", grown], check=True)
    subprocess.run(["mount", node, str(host.mountpoint)], check=True)
    (host.mountpoint / "result").write_text("of thirty hours")
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    subprocess.run(["btrfs", "device", "scan", refused(volume)], check=True)
    subprocess.run(["mount", node, str(host.mountpoint)], check=True)
    assert host.run("uninstall", "--purge-empty").returncode == 5
    assert (host.mountpoint / "result").exists()
    assert_untouched(host, fstab)


def test_purge_deletes_devices_only(host: Host, fstab: Path) -> None:
    """A managed volume that is not in the filesystem may have data: it is kept, and named."""
    for _ in range(2):
        assert host.run("grow", "--size", "1GiB").returncode == 0
    device, removed = host.volumes()
    argv = ["btrfs", "device", "remove", f"/dev/{removed.node}", str(host.mountpoint)]
    subprocess.run(argv, check=True)
    restored = create_volume(host.sandbox, {**device.tags, "ebs-autoscale:growth": "9"})
    done = host.run("uninstall", "--purge-empty")
    assert done.returncode == 0, done.stderr
    for kept in (removed.id, restored):
        assert kept in done.stdout
    until(lambda: len(host.volumes()) == 2, "the device's end")
    assert [(v.id, v.state) for v in host.volumes()] == [
        (removed.id, "in-use"),
        (restored, "available"),
    ]
    assert fstab.read_text() == OTHERS


def test_purge_wants_every_device(host: Host, fstab: Path) -> None:
    """The data on a missing device has not been seen, so that nothing is empty without it."""
    node = f"/dev/{host.read().devices[0].name}"
    assert host.run("grow").returncode == 0
    (volume,) = host.volumes()
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    for each in (node, f"/dev/{volume.node}"):
        subprocess.run(["btrfs", "device", "scan", "--forget", each], check=True)
    host.sandbox.show_device(volume.id, shown=False)
    subprocess.run(["mount", "-o", "degraded", node, str(host.mountpoint)], check=True)
    done = host.run("uninstall", "--purge-empty")
    assert (done.returncode, "devid 2" in done.stderr) == (5, True), done.stderr
    assert_untouched(host, fstab)
