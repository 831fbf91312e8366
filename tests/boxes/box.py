"""A machine with real systemd as PID 1, in namespaces of its own, with an EC2 beside it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import urlsplit

from ec2_sandbox.client import Sandbox, VolumeSeen
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.errors import CommandFailed
from ebs_autoscale.host.command import run
from tests.boxes.furniture import furnish
from tests.boxes.machine import Machine
from tests.boxes.tree import Tree
from tests.boxes.wire import METADATA_ADDRESS, Wire

_MIB = 1024**2
# Measured idle: 1 s to boot, 0.5 s to power off. Two cores may be shared by three boxes.
_BOOT_SECONDS = 60.0
_SHUTDOWN_SECONDS = 120.0
_NAMES_TAKEN_MAX = 100
_ENDPOINT = f"http://{METADATA_ADDRESS[0]}"
HTTPS = f"https://{METADATA_ADDRESS[0]}"


class Box:
    """A context manager that boots on entry and leaves nothing on exit, even after a kill.

    Its changes are in a tmpfs and survive reboots. cloud-init gets `user_data` at the first boot,
    and is disabled without. `folders` exist from the start; `https_port` is that of a server
    outside, which is reached in the box at `HTTPS`.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        user_data: str = "",
        folders: Mapping[str, Path] = MappingProxyType({}),
        settings: SandboxSettings | None = None,
        https_port: int = 0,
    ) -> None:
        self._tree = tree
        self._folders = folders
        self._user_data = user_data
        self._https_port = https_port
        self._settings = settings or SandboxSettings(block_devices="nitro")
        self._undo = ExitStack()
        self.sandbox: Sandbox
        """The simulated EC2 and instance metadata of this box."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Create the machine and boot it."""
        shm = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="ebs-box-", dir=shm if shm.is_dir() else None))
        self._undo.callback(_remove, self._folder)
        environment = {"AWS_ENDPOINT_URL_EC2": _ENDPOINT}
        self._machine = Machine(self._folder, root=self._tree.root, environment=environment)
        self._undo.callback(self._machine.close)
        self.sandbox = Sandbox.start(self._settings, directory=self._folder)
        self._undo.callback(self.sandbox.stop)
        port = urlsplit(self.sandbox.endpoint_url).port or 0
        wires = {METADATA_ADDRESS: port}
        if self._https_port:
            wires[METADATA_ADDRESS[0], 443] = self._https_port
        for address, to in wires.items():
            wire = Wire(self._machine.network, listen=address, to=("127.0.0.1", to))
            self._undo.callback(wire.close)
        self._undo.callback(self._machine.cut_power)
        furnish(self._machine.upper, name=self.name, user_data=self._user_data)
        for place, source in self._folders.items():
            shutil.copytree(source, self._machine.upper / place)
        self.boot()

    def stop(self) -> None:
        """Power off at once and remove everything; does nothing the second time."""
        self._undo.close()

    def boot(self, *, to_the_end: bool = True) -> None:
        """Boot, and return when systemd is `running` or `degraded`.

        Unless `to_the_end`, and with user data, return as soon as systemd answers: waiting for a
        device or for cloud-init may take long.
        """
        self._machine.power_on()
        awaited = {"running", "degraded"}
        if self._user_data or not to_the_end:
            awaited |= {"starting", "initializing"}
        self.wait_until(lambda: self.state in awaited, "boot", seconds=_BOOT_SECONDS)

    def shut_down(self) -> None:
        """Shut down in order, and wait until the power is off."""
        self._machine.power_off(seconds=_SHUTDOWN_SECONDS)

    def reboot(self, *, renumber: bool = False, without: Collection[str] = ()) -> None:
        """Shut down and boot with the same volumes.

        `renumber` gives the device of every volume another name. The volumes in `without` have no
        device until `sandbox.show_device`, and the boot is not waited for to its end.
        """
        self.shut_down()
        attached = [volume for volume in self.sandbox.state().volumes if volume.node]
        nodes = [Path("/dev", volume.node) for volume in attached]
        _wait_until_free(nodes)
        _forget(nodes)
        for volume in attached:
            if renumber or volume.id in without:
                self.sandbox.show_device(volume.id, shown=False)
        if renumber:
            self._rotate([volume for volume in attached if volume.id not in without])
        self.boot(to_the_end=not without)

    def _rotate(self, volumes: Sequence[VolumeSeen]) -> None:
        """Give each volume the device name of the next one; a single one gets another name."""
        wanted = [volume.node for volume in volumes[1:]] + [volumes[0].node]
        taken: dict[str, LoopDevice] = {}
        with ExitStack() as stack:
            # The kernel uses the lowest free name: take all of them, then free the wanted one.
            while not taken.keys() >= set(wanted) and len(taken) < _NAMES_TAKEN_MAX:
                other = LoopDevice.create(_MIB, directory=self._folder)
                taken[other.name] = stack.enter_context(other)
            for volume, name in zip(volumes, wanted, strict=True):
                if name in taken and len(volumes) > 1:
                    taken[name].close()
                self.sandbox.show_device(volume.id, shown=True)

    @property
    def name(self) -> str:
        """The unique name of its control group and of the folder of its files."""
        return self._folder.name

    @property
    def root(self) -> Path:
        """Its root folder, as a path outside; absolute links in it do not work."""
        return self._machine.root

    @property
    def pid_of_systemd(self) -> int:
        """PID 1 of the box, as it is called outside."""
        return self._machine.pid

    @property
    def state(self) -> str:
        """The output of `systemctl is-system-running`; empty while systemd does not answer."""
        if not self._machine.is_on:
            raise self._machine.failed("it is not running")
        return self.exec("systemctl", "is-system-running", check=False).stdout.strip()

    @property
    def failed_units(self) -> list[str]:
        """The units that systemd calls failed."""
        listing = self.exec("systemctl", "--failed", "--plain", "--no-legend").stdout
        return [line.split()[0] for line in listing.splitlines()]

    def exec(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,  # noqa: A002 -- as subprocess calls it
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, as root with a login's environment; `timeout` in seconds."""
        return self._machine.exec(argv, timeout=timeout, check=check, text=input)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside, with its folders."""
        self.exec("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, input=text)

    def read(self, path: str) -> str:
        """Read a file inside."""
        return self.exec("cat", path).stdout

    def has(self, path: str) -> bool:
        """Whether there is such a path inside, links followed."""
        return self.exec("test", "-e", path, check=False).returncode == 0

    @staticmethod
    def by_id(volume_id: str) -> str:
        """The link that udevd makes for the device of a volume."""
        return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"

    def copy_in(self, source: Path, folder: str) -> None:
        """Copy a file or a folder from here into a folder inside."""
        self.exec("mkdir", "-p", folder)
        target = self._machine.root / folder.lstrip("/")
        run(["cp", "-r", "--", str(source), str(target)], timeout_seconds=60)

    def copy_out(self, path: str, folder: Path) -> Path:
        """Copy a file or a folder from inside into a folder here."""
        source = self._machine.root / path.lstrip("/")
        run(["cp", "-a", "--", str(source), str(folder)], timeout_seconds=60)
        return folder / source.name

    def journal(self, *options: str) -> str:
        """The journal of all boots, unless the options of journalctl say otherwise."""
        return self.exec("journalctl", "--no-pager", "--output=short-precise", *options).stdout

    def wait_until(
        self,
        condition: Callable[[], object],
        what: str,
        *,
        seconds: float = 30.0,
        pause_max_seconds: float = 0.5,
    ) -> None:
        """Wait for a condition; raises BoxFailed with the end of the journal after that long.

        Most looks start processes in the box: what lasts longer is looked at less often. What is
        cheap to look at and may pass needs shorter pauses.
        """
        pause = Event()
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            if waited > seconds:
                raise self._machine.failed(f"timed out after {seconds:.0f} s: {what}")
            pause.wait(min(max(waited / 10, 0.05), pause_max_seconds))

    def add_disk(self, size_bytes: int) -> LoopDevice:
        """Add an empty block device that is no EBS volume, for the life of the box."""
        disk = LoopDevice.create(size_bytes, directory=self._folder)
        self._undo.callback(disk.close)
        self.wait_until(lambda: self.has(disk.node), f"{disk.node} inside")
        return disk


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):  # the keeper may have removed it
        folder.rmdir()


def _wait_until_free(nodes: Collection[Path]) -> None:
    """The kernel may unmount a mount namespace a moment after its last process has ended."""
    pause = Event()
    for node in nodes:
        for _ in range(500):
            with suppress(OSError):
                os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
                break
            pause.wait(0.02)


def _forget(nodes: Collection[Path]) -> None:
    """Have the kernel, which is not booted, forget the BTRFS devices as a boot would."""
    for node in nodes:
        with suppress(CommandFailed):
            run(["btrfs", "device", "scan", "--forget", str(node)], timeout_seconds=60)
