"""`python -m tests.pictures.status FOLDER`: save the screens of `status` from real runs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from ec2_sandbox.client import Sandbox
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.settings import SandboxSettings
from rich.text import Text

from ebs_autoscale.host.paths import CONFIG_FOLDER, escape_path
from tests.alone import alone
from tests.bench.ground import store
from tests.pictures.screen import save
from tests.system.bare import CloudHost
from tests.system.bench import until
from tests.terminal import on_terminal

COLUMNS = 80
# An attach that is slow enough to be seen; the rest as measured by the EBS CSI driver.
EC2: Mapping[str, Any] = {"create_seconds": (1.5, 1.5), "attach_seconds": (4.0, 4.0)}
CONFIG: Mapping[str, Any] = {"limits": {"total": "200GiB", "monthly": 20}, "poll": {"max": "1s"}}


class Scene:
    """A host with daemons, whose screens are saved in a folder."""

    def __init__(self, host: CloudHost, folder: Path) -> None:
        self._host = host
        self._folder = folder

    def mountpoint(self, path: Path, *, size: str) -> "Mountpoint":
        """Set one up with `init`."""
        ran = self._host.init("--size", size, at=path)
        if ran.returncode:
            sys.exit(ran.stderr)
        return Mountpoint(self._host, path)

    def save(self, name: str) -> None:
        """Save what `status` prints now, on a terminal and in a pipe."""
        argv = [sys.executable, "-I", "-m", "ebs_autoscale", "status"]
        environment = {**self._host.environment, "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        shown = on_terminal(argv, environment, columns=COLUMNS)
        text = Text("$ ebs-autoscale status\n") + Text.from_ansi(shown)
        save(self._folder / f"status-{name}.svg", text, columns=COLUMNS, title=name)
        piped = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        (self._folder / f"status-{name}.txt").write_text(piped.stdout, "utf-8")


class Mountpoint:
    """A mountpoint, its configuration and its daemon."""

    def __init__(self, host: CloudHost, path: Path) -> None:
        self._host = host
        self._path = path
        configs = (CONFIG_FOLDER / f"{escape_path(str(path))}.yaml", CONFIG_FOLDER / "config.yaml")
        self._config = next(each for each in configs if each.exists())
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, **sections: object) -> None:
        """Write the configuration, and have the daemon read it."""
        wanted = {"mountpoint": str(self._path), **CONFIG, **sections}
        self._config.write_text(yaml.safe_dump(wanted), "utf-8")
        if self._process:
            self._process.send_signal(signal.SIGHUP)

    def watch(self) -> None:
        """Start the daemon."""
        argv = [sys.executable, "-I", "-m", "ebs_autoscale", "--config", str(self._config), "run"]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            env=self._host.environment,
            stderr=subprocess.DEVNULL,
        )
        self.wait("its first look at EC2", lambda view: view["managed_volumes"])

    def fill(self, left_bytes: int) -> None:
        """Use up space until so much is available, without writing content."""
        wanted = self._status()["available_bytes"] - left_bytes
        name = f"results-{len(list(self._path.iterdir()))}"
        with (self._path / name).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, wanted)

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Have a job write while this is entered."""
        target = str(self._path / "job")
        argv = ["-m", "tests.bench.writer", target, str(30e6), str(10**9), "buffered"]
        with subprocess.Popen([sys.executable, *argv], stdout=subprocess.DEVNULL) as process:
            yield
            process.kill()

    def wait(self, what: str, is_so: Any) -> None:
        """Wait until the daemon reports it."""
        until(lambda: (view := self._status()["daemon"]) and is_so(view), what, seconds=60)

    def _status(self) -> dict[str, Any]:
        ran = self._host.run("--config", str(self._config), "status", "--json")
        found: dict[str, Any] = yaml.safe_load(ran.stdout)
        return found


@contextmanager
def scene(folder: Path) -> Iterator[tuple[Scene, Sandbox]]:
    """A host whose /etc and /mnt are its own."""
    own = alone("picture-")
    etc = own / "etc"
    shutil.copytree("/etc", etc, symlinks=True)
    shutil.rmtree(etc / "ebs-autoscale", ignore_errors=True)
    (etc / "fstab").write_text("# nothing yet\n", "utf-8")
    subprocess.run(["mount", "--bind", str(etc), "/etc"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
    settings = SandboxSettings(block_devices="nitro", **EC2)
    with Sandbox.start(settings, directory=store(own)) as sandbox:
        yield Scene(CloudHost(own, sandbox), folder), sandbox


def main(folder: Path) -> None:
    """Let a job fill a filesystem, and save the screens on the way."""
    gib = 1024**3
    with scene(folder) as (host, sandbox):
        scratch = host.mountpoint(Path("/mnt/scratch"), size="60GiB")
        scratch.configure()
        scratch.watch()
        scratch.fill(9 * gib)
        with scratch.writer():
            scratch.wait("the attach", lambda view: view["step"] == "AttachVolume")
            host.save("growing")
        scratch.wait("the growth", lambda view: view["recent_growths"] and not view["step"])
        Event().wait(5)
        host.save("idle")

        scratch.configure(limits={"total": "90GiB", "monthly": 20})
        scratch.fill(9 * gib)
        scratch.wait("the refusal", lambda view: "limits.total" in view["conditions"])
        host.save("refused")

        sandbox.add_fault(
            FaultRule(
                kind=FaultKind.ERROR,
                action="CreateVolume",
                code="UnauthorizedOperation",
                status=403,
                message="You are not authorized to perform this operation.",
            )
        )
        scratch.configure()
        scratch.wait("the denial", lambda view: "denied" in view["conditions"])
        host.save("alarm")

        sandbox.clear_faults()
        scratch.configure()
        docker = host.mountpoint(Path("/mnt/docker"), size="20GiB")
        docker.configure()
        docker.watch()
        scratch.wait("the second growth", lambda view: view["growths_since_start"] == 2)
        scratch.wait("its end", lambda view: not view["conditions"] and not view["step"])
        host.save("two")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
