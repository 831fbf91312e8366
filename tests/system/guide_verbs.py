"""The failure guide, followed: what `init`, `grow` and `uninstall` refuse; see `guide.py`."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.errors import Cause
from tests.system.bare import FSTAB, BareHost, CloudHost
from tests.system.bench import GIB, Host

pytestmark = pytest.mark.kernel


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LoopDevice]:
    """A blank block device of 2 GiB."""
    loop = LoopDevice.create(2 * GIB, directory=tmp_path)
    yield loop
    loop.close()


def shell(command: str) -> None:
    """Run a command line, as an operator would."""
    subprocess.run(["sh", "-c", command], check=True, timeout=60)


class Refusal(NamedTuple):
    """Why `init --device` refuses, and what the guide says to do; both get host and device."""

    cause: Cause
    provoke: Callable[[BareHost, str], object]
    remedy: Callable[[BareHost, str], object]


def fill_mountpoint(host: BareHost, _: str) -> None:
    """A file is in the way."""
    host.mountpoint.mkdir()
    (host.mountpoint / "old").touch()


def open_parent(host: BareHost, _: str) -> None:
    """Others can change the folder that the mountpoint is in."""
    host.mountpoint.parent.chmod(0o777)


REFUSALS = (
    Refusal(
        Cause.NOT_BLANK,
        lambda _, node: shell(f"mkfs.ext4 -q {node}"),
        lambda _, node: shell(f"dd if=/dev/zero of={node} bs=1M 2>/dev/null || true"),
    ),
    Refusal(
        Cause.MOUNTPOINT,
        fill_mountpoint,
        lambda host, _: shell(f"mv {host.mountpoint}/old {host.mountpoint}-old"),
    ),
    Refusal(
        Cause.MOUNTPOINT,
        open_parent,
        lambda host, _: shell(f"chmod go-w {host.mountpoint.parent}"),
    ),
    Refusal(
        Cause.NOT_BTRFS,
        lambda host, _: shell(f"mkdir {host.mountpoint}; mount -t tmpfs none {host.mountpoint}"),
        lambda host, _: shell(f"umount {host.mountpoint}"),
    ),
    Refusal(
        Cause.FSTAB,
        lambda host, _: FSTAB.write_text(f"/dev/sdf {host.mountpoint} ext4 defaults 0 0\n"),
        lambda _, __: FSTAB.write_text(""),
    ),
    Refusal(
        Cause.FILE,
        lambda _, __: shell("mount --bind /etc/fstab /etc/fstab"),
        lambda _, __: shell("umount /etc/fstab"),
    ),
)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.cause.value)
def test_init_goes_on_after_the_advice(
    case: Refusal, bare_host: BareHost, device: LoopDevice
) -> None:
    """It is refused with the exit code of the cause; after the remedy `init` succeeds."""
    case.provoke(bare_host, device.node)
    refused = bare_host.init("--device", device.node)
    assert refused.returncode == case.cause.exit, refused.stderr
    case.remedy(bare_host, device.node)
    done = bare_host.init("--device", device.node)
    assert done.returncode == 0, done.stderr


def test_a_setup_is_moved(bare_host: BareHost, device: LoopDevice) -> None:
    """OTHER_SETUP: `uninstall`, mount it at the new path, `init`."""
    assert bare_host.init("--device", device.node).returncode == 0
    new, config = bare_host.mountpoint.parent / "new", Path("/etc/ebs-autoscale/new.yaml")
    new.mkdir()
    shell(f"mount --bind {bare_host.mountpoint} {new}")
    assert bare_host.init(at=new, config=config).returncode == Cause.OTHER_SETUP.exit
    shell(f"umount {new}")
    assert bare_host.run("uninstall").returncode == 0
    shell(f"umount {bare_host.mountpoint} && mount {device.node} {new}")
    done = bare_host.init(at=new, config=config)
    shell(f"umount --lazy {new}")
    assert done.returncode == 0, done.stderr


def test_a_purge_waits_for_all_users(cloud_host: CloudHost) -> None:
    """NOT_EMPTY, IN_USE, MOUNT_IN_USE: each is refused; without them the volume is deleted."""
    host = cloud_host
    assert host.init("--size", "2GiB").returncode == 0
    (host.mountpoint / "results").mkdir()
    assert host.run("uninstall", "--purge-empty").returncode == Cause.NOT_EMPTY.exit
    (host.mountpoint / "results").rmdir()
    other = host.mountpoint.parent / "other"
    other.mkdir()
    shell(f"mount --bind {host.mountpoint} {other}")
    assert host.run("uninstall", "--purge-empty").returncode == Cause.IN_USE.exit
    shell(f"umount {other}")
    with subprocess.Popen(["sleep", "60"], cwd=host.mountpoint) as user:
        assert host.run("uninstall", "--purge-empty").returncode == Cause.MOUNT_IN_USE.exit
        user.kill()
    assert host.run("uninstall", "--purge-empty").returncode == 0
    assert host.volumes() == []


@contextmanager
def replaced(tool: str, folder: Path, *, mode: int, content: str = "no program") -> Iterator[None]:
    """A tool is something else; seen by the test run alone."""
    path, broken = Path(shutil.which(tool) or "").resolve(), folder / "broken"
    broken.write_text(content, "utf-8")
    broken.chmod(mode)
    shell(f"mount --bind {broken} {path}")
    try:
        yield
    finally:
        shell(f"umount {path}")


def test_a_tool_that_fails(bare_host: BareHost, device: LoopDevice, tmp_path: Path) -> None:
    """MKFS, MOUNT: once the tool works, `init` goes on."""
    for tool, cause in (("mkfs.btrfs", Cause.MKFS), ("mount", Cause.MOUNT)):
        with replaced(tool, tmp_path, mode=0o700, content="#!/bin/sh\nexit 32\n"):
            failed = bare_host.init("--device", device.node)
            assert failed.returncode == cause.exit, failed.stderr
    assert bare_host.init("--device", device.node).returncode == 0


@pytest.mark.parametrize(
    ("cause", "tool", "mode"),
    [
        (Cause.MISSING_TOOL, "blkid", 0o600),
        (Cause.HOST, "blkid", 0o700),
        (Cause.NO_BTRFS_PROGS, "btrfs", 0o600),
    ],
    ids=str,
)
def test_a_growth_goes_on_with_its_volume(
    host: Host, tmp_path: Path, cause: Cause, tool: str, mode: int
) -> None:
    """Without a tool `grow` fails with the cause; with it the same volume is added."""
    with replaced(tool, tmp_path, mode=mode):
        failed = host.run("grow")
        assert failed.returncode == cause.exit, failed.stderr
    assert host.run("grow").returncode == 0
    assert (len(host.volumes()), host.devices) == (1, 2)


@pytest.mark.parametrize(
    ("cause", "options", "better"),
    [
        (Cause.LIMIT_SIZE, ("--size", "3GiB"), ("--size", "1GiB")),
        (Cause.USAGE, ("--sise", "1GiB"), ("--size", "1GiB")),
    ],
)
def test_a_better_command(
    host: Host, cause: Cause, options: tuple[str, ...], better: tuple[str, ...]
) -> None:
    """What was asked is refused, what the guide says is done."""
    host.configure(growth={"max": "1GiB"})
    assert host.run("grow", *options).returncode == cause.exit
    assert host.run("grow", *better).returncode == 0


def test_a_second_daemon(host: Host) -> None:
    """LOCKED: it ends with the cause; once the first has ended, one starts."""
    with host.daemon() as daemon:
        daemon.wait_event("started")
        assert host.run("run").returncode == Cause.LOCKED.exit
    with host.daemon() as daemon:
        daemon.wait_event("started")


def test_another_user(host: Host) -> None:
    """NOT_ROOT: the same with root's rights works."""
    as_nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--")
    for folder in (host.folder, *host.folder.parents):
        if folder.is_relative_to("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    assert host.run("grow", before=as_nobody).returncode == Cause.NOT_ROOT.exit
    assert host.run("grow").returncode == 0
