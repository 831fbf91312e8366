"""Hosts for the tests that see the program from outside."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from ebs_autoscale.sandbox.client import Sandbox
from ebs_autoscale.sandbox.loop import LoopDevice
from ebs_autoscale.sandbox.settings import SandboxSettings
from tests.system.bench import CONVERGED, GIB, Host


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long the daemon took to finish what a killed one left behind."""
    seconds = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in getattr(report, "user_properties", [])
        if name == CONVERGED
    ]
    if seconds:
        figures = f"after {median(seconds):.1f} s at the median, {max(seconds):.1f} s at most"
        terminalreporter.write_line(f"killed {len(seconds)} times: converged {figures}")


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
