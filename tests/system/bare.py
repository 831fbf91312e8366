"""A host without a filesystem, with its own /etc and possibly a simulated EC2."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil
from ec2_sandbox.client import Sandbox, VolumeSeen

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.host.mountinfo import Mount, MountTable
from tests.program import PROGRAM
from tests.system.bench import OUTSIDE

FSTAB = Path("/etc/fstab")
CONFIG = Path("/etc/ebs-autoscale/config.yaml")

# Nothing answers there: what is tested so needs neither instance metadata nor EC2.
NO_EC2 = {
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9",
    "AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:9",
}


class BareHost:
    """The machine before `init`; `mountpoint` does not exist yet."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = NO_EC2) -> None:
        self.mountpoint = folder / "scratch"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(OUTSIDE)},
            **environment,
        }

    def init(
        self, *arguments: str, at: Path | str | None = None, config: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(
            self._argv(*arguments, at=at, config=config),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another verb to its end, with the default configuration file."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str, **environment: str) -> psutil.Popen:
        """Start it; for tests that kill it."""
        return psutil.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *self._argv(*arguments)],
            env={**self.environment, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _argv(
        self, *arguments: str, at: Path | str | None = None, config: Path | None = None
    ) -> list[str]:
        before = ["--config", str(config)] if config else []
        return [*PROGRAM, *before, "init", str(self.mountpoint if at is None else at), *arguments]

    @property
    def uuid(self) -> str:
        """The UUID of the mounted filesystem."""
        return BtrfsFilesystem(str(self.mountpoint), clock=SystemClock()).uuid

    @property
    def metadata_profile(self) -> str:
        """How the metadata of the mounted filesystem is stored."""
        mounted = BtrfsFilesystem(str(self.mountpoint), clock=SystemClock())
        return mounted.read().metadata_profile

    @property
    def mounts(self) -> list[Mount]:
        """The mounts on the mountpoint, bottom first."""
        return [m for m in MountTable().mounts() if m.point == str(self.mountpoint)]

    @property
    def lines(self) -> list[str]:
        """The lines of fstab for the mountpoint."""
        table = FSTAB.read_text("utf-8").splitlines()
        return [line for line in table if line.split()[1:2] == [str(self.mountpoint)]]

    def assert_ready(self) -> None:
        """One mount of one filesystem, one line for it, one configuration."""
        assert len(self.mounts) == 1
        options = "defaults,nofail,x-systemd.device-timeout=120s"
        assert self.lines == [f"UUID={self.uuid} {self.mountpoint} btrfs {options} 0 0"]
        assert f"\nmountpoint: {self.mountpoint}\n" in CONFIG.read_text("utf-8")


class CloudHost(BareHost):
    """The same with a simulated EC2."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        super().__init__(folder, sandbox.environment)
        self.sandbox = sandbox

    def volumes(self) -> list[VolumeSeen]:
        """The volumes with our tags, in any state."""
        found = self.sandbox.state().volumes
        return [volume for volume in found if "ebs-autoscale:owner" in volume.tags]

    def assert_ready(self) -> None:
        """The same, on one volume, created as growth 0 and deleted with the instance."""
        super().assert_ready()
        (volume,) = self.volumes()
        assert volume.tags["ebs-autoscale:filesystem"] == self.uuid
        assert volume.tags["ebs-autoscale:growth"] == "0"
        assert (volume.encrypted, volume.delete_on_termination) == (True, True)


def kill(process: psutil.Popen, *, with_children: bool) -> None:
    """SIGKILL, with or without the processes that it has started."""
    children = process.children(recursive=True) if process.is_running() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    for child in children:
        if with_children and child.is_running():
            child.kill()
