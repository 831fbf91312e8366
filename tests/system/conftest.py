"""Hosts for the tests that see the program from outside."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ec2_sandbox.client import Sandbox
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.settings import SandboxSettings

from tests.system.bare import BareHost, CloudHost
from tests.system.bench import GIB, Host


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Make a host with a sandbox of these settings; gone after the test."""
    undo: list[Callable[[], object]] = []

    def make(**settings: Any) -> Host:
        folder = tmp_path / "host"
        mountpoint = folder / "scratch"
        mountpoint.mkdir(parents=True)
        shm = Path("/dev/shm")
        loop = LoopDevice.create(2 * GIB, directory=shm if shm.is_dir() else folder)
        undo.append(loop.close)
        subprocess.run(["mkfs.btrfs", "--quiet", loop.node], check=True)
        subprocess.run(["mount", loop.node, str(mountpoint)], check=True)
        undo.append(lambda: subprocess.run(["umount", "--lazy", str(mountpoint)], check=False))
        chosen = SandboxSettings(**{"block_devices": "nitro", **settings})
        sandbox = Sandbox.start(chosen, directory=shm if shm.is_dir() else folder)
        undo.append(sandbox.stop)
        return Host(sandbox, mountpoint=mountpoint, folder=folder)

    yield make
    for action in reversed(undo):
        action()


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    """A host whose EC2 answers at once."""
    return make_host()


@pytest.fixture
def fstab(tmp_path: Path) -> Iterator[Path]:
    """An fstab for this test alone."""
    mine = tmp_path / "fstab"
    mine.write_text("# of this test\n")
    subprocess.run(["mount", "--bind", str(mine), "/etc/fstab"], check=True)
    yield mine
    subprocess.run(["umount", "/etc/fstab"], check=True)


@pytest.fixture
def own_etc(tmp_path: Path) -> Iterator[Path]:
    """Give a test an /etc that it may change; only the test run sees it."""
    copy = tmp_path / "etc"
    shutil.copytree("/etc", copy, symlinks=True)
    (copy / "fstab").write_text("# nothing yet\n", "utf-8")
    (copy / "machine-id").write_text(f"{uuid4().hex}\n", "utf-8")
    shutil.rmtree(copy / "ebs-autoscale", ignore_errors=True)
    subprocess.run(["mount", "--bind", str(copy), "/etc"], check=True)
    yield copy
    subprocess.run(["umount", "--lazy", "/etc"], check=True)


@pytest.fixture
def bare_host(tmp_path: Path, own_etc: Path) -> Iterator[BareHost]:  # noqa: ARG001 -- outlives us
    """A host without a filesystem, and without EC2."""
    host = BareHost(tmp_path)
    yield host
    unmount_all(host)


@pytest.fixture
def cloud_host(
    tmp_path: Path,
    own_etc: Path,  # noqa: ARG001 -- the same
    request: pytest.FixtureRequest,
) -> Iterator[CloudHost]:
    """A host without a filesystem, whose EC2 answers at once; a parameter is further settings."""
    shm = Path("/dev/shm")
    settings = SandboxSettings(**{"block_devices": "nitro", **getattr(request, "param", {})})
    with Sandbox.start(settings, directory=shm if shm.is_dir() else tmp_path) as sandbox:
        host = CloudHost(tmp_path, sandbox)
        yield host
        unmount_all(host)


def unmount_all(host: BareHost) -> None:
    """Leave nothing mounted where the host's filesystem was."""
    for mount in host.mounts:
        subprocess.run(["umount", "--lazy", mount.point], check=False)
