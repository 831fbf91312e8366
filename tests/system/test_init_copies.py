"""Copies of a filesystem, and paths that others can change: `init` refuses before it writes."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.host.fstab import line_for
from tests.conftest import LoopFactory
from tests.signatures import SIGNATURES
from tests.system.bare import CONFIG, FSTAB, BareHost
from tests.system.bench import Host, until

pytestmark = pytest.mark.kernel

SIZE_BYTES = 320 * 1024**2


def copy(
    node: str, size_bytes: int, loop: LoopFactory, *, mounted: Path | None = None
) -> LoopDevice:
    """A block copy, as one restored from a snapshot is; nothing else is on it but zeroes."""
    if mounted:
        subprocess.run(["btrfs", "filesystem", "sync", str(mounted)], check=True)
    made = loop(size_bytes)
    argv = ["dd", f"if={node}", f"of={made.node}", "bs=1M", "count=320", "conv=sparse,fsync"]
    subprocess.run(argv, check=True, capture_output=True)
    return made


def unmount(path: Path) -> None:
    """Unmount it, once no reading has it open."""
    until(lambda: subprocess.run(["umount", str(path)], check=False).returncode == 0, "umount")


def uuid_of(device: LoopDevice) -> str:
    """The UUID that blkid reads from the device."""
    argv = ["blkid", "-p", "-o", "value", "-s", "UUID", device.node]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def refused(host: BareHost, *arguments: str, at: Path | None = None) -> str:
    """What `init` says when it refuses without having written anything."""
    before = (FSTAB.read_bytes(), sorted(CONFIG.parent.glob("*")))
    mounts = Path("/proc/self/mountinfo").read_bytes()
    ran = host.init(*arguments, at=at)
    assert ran.returncode == 5, ran.stderr
    assert (FSTAB.read_bytes(), sorted(CONFIG.parent.glob("*"))) == before
    assert Path("/proc/self/mountinfo").read_bytes() == mounts
    return ran.stderr


@pytest.mark.parametrize("live", ["mounted", "not mounted"])
def test_a_copy_is_refused_until_it_has_its_own_uuid(
    bare_host: BareHost, loop: LoopFactory, live: str
) -> None:
    """Beside its original no copy is mounted; the advice that is given makes it usable."""
    original = loop(SIZE_BYTES)
    assert bare_host.init("--device", original.node).returncode == 0
    (bare_host.mountpoint / "of production").touch()
    copied = copy(original.node, SIZE_BYTES, loop, mounted=bare_host.mountpoint)
    if live == "not mounted":
        subprocess.run(["umount", str(bare_host.mountpoint)], check=True)
        assert original.name in refused(bare_host, "--device", original.node)
    restore = bare_host.mountpoint.with_name("restore")
    said = refused(bare_host, "--device", copied.node, at=restore)
    assert original.name in said
    assert copied.name in said
    assert not restore.exists()

    (advice,) = re.findall(r"`(btrfstune [^`]+)`", said)
    argv = [copied.node if word == original.node else word for word in shlex.split(advice)]
    subprocess.run(argv, check=True)
    assert uuid_of(copied) != uuid_of(original)
    FSTAB.write_text(f"{FSTAB.read_text('utf-8')}UUID={uuid_of(copied)} {restore} btrfs\n", "utf-8")
    ran = bare_host.init("--device", copied.node, at=restore)
    assert ran.returncode == 0, ran.stderr
    (restore / "of production").unlink()
    unmount(restore)
    if live == "not mounted":
        assert bare_host.init("--device", original.node).returncode == 0
    assert (bare_host.mountpoint / "of production").exists()


def test_a_mounted_copy_is_refused(bare_host: BareHost, loop: LoopFactory) -> None:
    """A copy that an operator mounted beside its original has a temporary UUID (Linux 6.7)."""
    original = loop(SIZE_BYTES)
    assert bare_host.init("--device", original.node).returncode == 0
    restore = bare_host.mountpoint.with_name("restore")
    restore.mkdir()
    copied = copy(original.node, SIZE_BYTES, loop, mounted=bare_host.mountpoint)
    # At times the kernel itself refuses, before 6.7 always.
    if subprocess.run(["mount", copied.node, str(restore)], check=False).returncode == 0:
        try:
            assert copied.name in refused(bare_host, at=restore)
        finally:
            unmount(restore)


def test_two_disks_never_get_one_uuid(bare_host: BareHost, loop: LoopFactory) -> None:
    """The second disk of a mountpoint, without serial number, is another filesystem."""
    first = loop(SIZE_BYTES)
    assert bare_host.init("--device", first.node).returncode == 0
    subprocess.run(["umount", str(bare_host.mountpoint)], check=True)
    FSTAB.write_text("", "utf-8")
    CONFIG.unlink()
    second = loop(SIZE_BYTES)
    assert bare_host.init("--device", second.node).returncode == 0
    assert uuid_of(second) not in ("", uuid_of(first))


def test_a_filesystem_has_one_setup(bare_host: BareHost, loop: LoopFactory) -> None:
    """A second path of the filesystem is refused, and the first one is named."""
    device = loop(SIZE_BYTES)
    assert bare_host.init("--device", device.node).returncode == 0
    second = bare_host.mountpoint.with_name("second")
    second.mkdir()
    for argv in (["mount", device.node], ["mount", "--bind", str(bare_host.mountpoint)]):
        subprocess.run([*argv, str(second)], check=True)
        assert f" {bare_host.mountpoint} " in refused(bare_host, at=second)
        subprocess.run(["umount", str(second)], check=True)
    # Not mounted, it is set up all the same.
    subprocess.run(["umount", str(bare_host.mountpoint)], check=True)
    assert f" {bare_host.mountpoint} " in refused(bare_host, "--device", device.node, at=second)
    subprocess.run(["mount", device.node, str(second)], check=True)
    assert f" {bare_host.mountpoint} " in refused(bare_host, at=second)
    subprocess.run(["umount", str(second)], check=True)


def test_a_stale_name_in_fstab(bare_host: BareHost, loop: LoopFactory) -> None:
    """A line with a device that is gone is named with the line for what is mounted now."""
    device = loop(SIZE_BYTES)
    SIGNATURES["btrfs"](device)
    bare_host.mountpoint.mkdir()
    subprocess.run(["mount", device.node, str(bare_host.mountpoint)], check=True)
    FSTAB.write_text(f"/dev/xvdba {bare_host.mountpoint} btrfs noatime 0 0\n", "utf-8")
    said = refused(bare_host)
    wanted = line_for(uuid_of(device), str(bare_host.mountpoint), ("noatime",))
    assert f"`{wanted}`" in said
    FSTAB.write_text(f"{wanted}\n", "utf-8")
    assert bare_host.init().returncode == 0


@pytest.mark.parametrize("kind", ["owned", "group", "link"])
def test_a_path_that_others_can_change(
    bare_host: BareHost, loop: LoopFactory, tmp_path: Path, kind: str
) -> None:
    """A folder above the mountpoint that others can change is refused, and named."""
    device, folder = loop(SIZE_BYTES), tmp_path / "theirs"
    folder.mkdir()
    (folder / "data").mkdir()
    if kind == "group":
        os.chown(folder, 0, 65534)
        folder.chmod(0o775)
    else:
        os.chown(folder, 65534, 65534)
    if kind == "link":
        (folder / "data").rmdir()
        (tmp_path / "elsewhere").mkdir()
        (folder / "data").symlink_to(tmp_path / "elsewhere")
    assert str(folder) in refused(
        bare_host, "--device", device.node, at=folder / "data" / "scratch"
    )
    assert device.stored_bytes == 0
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    ran = bare_host.init("--device", device.node, at=folder / "data" / "scratch")
    assert ran.returncode == 0, ran.stderr
    subprocess.run(["umount", str(folder / "data" / "scratch")], check=True)


def test_swapped_while_init_mounts(bare_host: BareHost, loop: LoopFactory, tmp_path: Path) -> None:
    """What was mounted elsewhere than at the path is unmounted, and fstab is not written."""
    device, folder = loop(SIZE_BYTES), tmp_path / "above"
    elsewhere, tool = tmp_path / "elsewhere", tmp_path / "tools" / "mount"
    for each in (folder, elsewhere / "scratch", tool.parent):
        each.mkdir(parents=True)
    swap = f"mv {folder} {folder}.old && ln -s {elsewhere} {folder}"
    tool.write_text(f'#!/bin/sh\n{swap}\nexec {shutil.which("mount")} "$@"\n', "utf-8")
    tool.chmod(0o755)
    bare_host.environment["PATH"] = f"{tool.parent}:{os.environ['PATH']}"
    refused(bare_host, "--device", device.node, at=folder / "scratch")


def test_a_copy_takes_the_place_of_a_watched_device(
    host: Host, loop: LoopFactory, own_etc: Path
) -> None:
    """A daemon does not go on with a copy, nor mount anything while it sees one."""
    reading = host.read()
    [original] = reading.devices
    (own_etc / "fstab").write_text(
        line_for(reading.filesystem, str(host.mountpoint)) + "\n", "utf-8"
    )
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        unmount(host.mountpoint)
        copied = copy(f"/dev/{original.name}", original.size_bytes, loop)
        subprocess.run(["mount", copied.node, str(host.mountpoint)], check=True)
        daemon.wait_event("condition_began", cause="copy", containing=original.name)
        assert daemon.stop() == 0
    unmount(host.mountpoint)
    with host.daemon("--wait") as daemon:
        daemon.wait_event("condition_began", cause="copy", containing=copied.name)
        assert not host.mountpoint.is_mount()
        subprocess.run(["wipefs", "--all", "--quiet", copied.node], check=True)
        daemon.wait_event("started")


def test_check_and_a_watching_daemon_name_a_copy(host: Host, loop: LoopFactory) -> None:
    """While a copy is visible the next mount may take it: both say so, and when it is over."""
    device = host.read().devices[0]
    copied = copy(f"/dev/{device.name}", device.size_bytes, loop, mounted=host.mountpoint)
    assert copied.name in host.run("check").stdout
    with host.daemon() as daemon:
        daemon.wait_event("condition_began", cause="copy", containing=copied.name)
        assert copied.name in host.run("status").stdout
        subprocess.run(["wipefs", "--all", "--quiet", copied.node], check=True)
        daemon.reload()
        daemon.wait_event("condition_ended", cause="copy")
