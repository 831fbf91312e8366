"""XFS on one volume: killed at every boundary of its growth, lied to, and starved."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.host.fstab import line_for
from ebs_autoscale.model import SLACK_BYTES
from tests.system.bench import GIB, MIB, Host, until
from tests.system.one_volume import one_volume_host

pytestmark = pytest.mark.kernel

# Long enough to be killed in, short enough for the killed call's effect to meet its successor.
HELD_SECONDS = 1.5
HELD_TOOL = """#!/bin/sh
case "$1" in
{held})
    {before}
    touch "{reached}"
    exec sleep 60 ;;
esac
exec {real} "$@"
"""

# The tools that extend a partition and the filesystem on it, and the first option that they have.
TOOLS = {"sfdisk": "--quiet", "partx": "--update", "xfs_growfs": "-d"}

MakeHost = Callable[..., Host]


@pytest.fixture
def make_xfs(tmp_path: Path) -> Iterator[MakeHost]:
    """Make a host with XFS on one volume of 1 GiB; gone after the test."""
    with ExitStack() as stack:

        def make(*, table: str = "", **settings: Any) -> Host:
            shm = Path("/dev/shm")
            return stack.enter_context(
                one_volume_host(
                    tmp_path / "host",
                    directory=shm if shm.is_dir() else tmp_path,
                    settings={"modifications": 100, **settings},
                    table=table,
                )
            )

        yield make


def growths(host: Host) -> int:
    """How often EC2 was told to enlarge the volume, which is the only one."""
    (volume,) = host.volumes()
    return volume.modifications


def is_at_rest(host: Host, count: int) -> bool:
    """Whether there were so many enlargements, and the filesystem has all of the volume."""
    (volume,), (device,) = host.volumes(), host.read().devices
    return growths(host) == count and volume.size_gib * GIB - device.size_bytes < SLACK_BYTES


def held_tool(folder: Path, tool: str, *, done: bool) -> tuple[Path, str]:
    """A tool that stops before or after its work; returns the sign that it has, and a PATH."""
    own = folder / f"{tool}-{'after' if done else 'before'}"
    own.mkdir()
    real, reached = shutil.which(tool) or tool, own / "reached"
    before = f'{real} "$@" || exit' if done else ":"
    text = HELD_TOOL.format(held=TOOLS[tool], before=before, reached=reached, real=real)
    (own / tool).write_text(text, "utf-8")
    (own / tool).chmod(0o755)
    return reached, f"{own}:{os.environ['PATH']}"


def kill_growth(host: Host, when: Callable[[], object], **environment: str) -> None:
    """Start a growth and kill it, with all that it has started, as soon as this comes true."""
    argv = [*host.argv, "grow", "--size", "1GiB"]
    env = {**host.environment, **environment}
    # A look of the daemon's has the lock for a moment.
    while not when():
        with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL) as growth:
            until(lambda: growth.poll() is not None or when(), "the moment to kill it")
            with suppress(psutil.NoSuchProcess):
                for process in psutil.Process(growth.pid).children(recursive=True):
                    process.kill()
            growth.kill()


def write_file(host: Host, number: int, *, size_mib: int = 1) -> str:
    """Write a file of its own; returns its checksum."""
    content = os.urandom(MIB) * size_mib
    (host.mountpoint / f"file-{number}").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def assert_clean(host: Host, checksums: list[str]) -> None:
    """No byte has changed, and xfs_repair finds nothing."""
    for number, checksum in enumerate(checksums):
        content = (host.mountpoint / f"file-{number}").read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum
    (device,) = host.read().devices
    node = f"/dev/{device.partition or device.name}"
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    subprocess.run(["xfs_repair", "-n", node], check=True, capture_output=True)


def kill_around(host: Host, folder: Path, tool: str, checksums: list[str]) -> None:
    """Kill a growth before and one after this tool has worked; each is finished, once."""
    for done in (False, True):
        reached, path = held_tool(folder, tool, done=done)
        checksums.append(write_file(host, len(checksums)))
        kill_growth(host, reached.exists, PATH=path)
        until(lambda: is_at_rest(host, len(checksums)), f"the growth, killed at {tool}")


def test_a_job_that_does_not_fit(make_xfs: MakeHost, fstab: Path) -> None:
    """Mounted as fstab says, then enlarged before programs get ENOSPC; every byte is right."""
    host = make_xfs()
    uuid = host.read().filesystem
    fstab.write_text(line_for(uuid, str(host.mountpoint), kind="xfs") + "\n")
    subprocess.run(["umount", str(host.mountpoint)], check=True)
    checksums = []
    with host.daemon("--wait") as daemon:
        daemon.wait_event("tended", containing=str(host.mountpoint))
        daemon.wait_event("decided", decision="hold")
        for number in range(20):
            checksums.append(write_file(host, number, size_mib=64))
            until(lambda: host.read().available_bytes > 128 * MIB, "there is space")
        daemon.wait_event("decided", decision="enlarge")
        until(lambda: is_at_rest(host, growths(host)), "all of the volume is used")
        assert daemon.stop() == 0
    asked = {call.action for call in host.sandbox.calls()}
    assert asked.isdisjoint({"CreateVolume", "AttachVolume"})
    assert_clean(host, checksums)


def test_kill_at_every_boundary(make_xfs: MakeHost, tmp_path: Path) -> None:
    """A daemon finishes every growth that was killed, once, and no byte is lost."""
    host = make_xfs()
    checksums: list[str] = []
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        for when in ("before", "after"):
            rule = FaultRule(
                kind=FaultKind.DELAY,
                action="ModifyVolume",
                when=when,
                seconds=HELD_SECONDS,
                times=1,
            )
            checksums.append(write_file(host, len(checksums)))
            host.sandbox.add_fault(rule)
            kill_growth(host, lambda: len(host.sandbox.calls("ModifyVolume")) == len(checksums))
            until(lambda: is_at_rest(host, len(checksums)), f"the growth, killed {when} the call")
        kill_around(host, tmp_path, "xfs_growfs", checksums)
        assert daemon.stop() == 0
    assert_clean(host, checksums)


def test_kill_at_every_boundary_of_a_partition(make_xfs: MakeHost, tmp_path: Path) -> None:
    """The same between the partition table, the kernel and the filesystem."""
    host = make_xfs(table="label: gpt")
    checksums: list[str] = []
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        for tool in ("sfdisk", "partx", "xfs_growfs"):
            kill_around(host, tmp_path, tool, checksums)
        assert daemon.stop() == 0
    assert_clean(host, checksums)
