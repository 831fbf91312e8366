"""A machine with real systemd as PID 1, in namespaces of its own, and an EC2 that attaches volumes to it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from ebs_autoscale.command import run
from ebs_autoscale.errors import CommandFailed
from ebs_autoscale.sandbox.client import Sandbox, VolumeSeen
from ebs_autoscale.sandbox.loop import LoopDevice
from ebs_autoscale.sandbox.settings import SandboxSettings
from tests.boxes.furniture import furnish
from tests.boxes.tree import Tree
from tests.boxes.wire import METADATA_ADDRESS, Wire

_HERE = Path(__file__).parent
_MIB = 1024**2
# Measured idle: 2 s to boot, 1 s to power off. Two cores may be shared by three boxes.
_BOOT_SECONDS = 60.0
_SHUTDOWN_SECONDS = 120.0
_END_SECONDS = 20.0
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), "Signals"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMED_OUT = (124, 137)
_NAMES_TAKEN_MAX = 100


class BoxFailed(AssertionError):
    """A box did not do what was asked; says what it wrote last."""


class Box:
    """A context manager: boots on entry, and leaves nothing on exit, whoever is killed when.

    Its changes are in a tmpfs and last from one boot to the next. `user_data` is what cloud-init
    finds at the first boot; without, cloud-init is off.
    """

    def __init__(
        self, tree: Tree, *, user_data: str = "", settings: SandboxSettings | None = None
    ) -> None:
        self._tree = tree
        self._user_data = user_data
        self._settings = settings or SandboxSettings(block_devices="nitro")
        self._undo = ExitStack()
        self._init: subprocess.Popen[bytes] | None = None
        self._init_pid = 0
        self.sandbox: Sandbox
        """EC2 and instance metadata of this box, to look at and to steer."""

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
        """Make the machine and boot it."""
        shm = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="ebs-box-", dir=shm if shm.is_dir() else None))
        self._keeper = self._start_keeper()
        self.sandbox = Sandbox.start(self._settings, directory=self._folder)
        self._undo.callback(self.sandbox.stop)
        port = urlsplit(self.sandbox.endpoint_url).port or 0
        network = Path(f"/proc/{self._keeper.pid}/ns/net")
        wire = Wire(network, listen=METADATA_ADDRESS, to=("127.0.0.1", port))
        self._undo.callback(wire.close)
        self._undo.callback(self._cut_power)
        furnish(self._upper, name=self.name, user_data=self._user_data)
        self.boot()

    def stop(self) -> None:
        """Cut the power and let everything go; a second time does nothing."""
        self._undo.close()

    def boot(self, *, settled: bool = True) -> None:
        """Boot, and return when systemd has nothing left to start, be it `running` or `degraded`.

        When not `settled`, and with user data, return once systemd answers: what waits for a
        device or for cloud-init may take long.
        """
        keeper = str(self._keeper.pid)
        argv = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--target", keeper, "--mount", "--net"]
        argv += ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]
        argv += ["sh", str(_HERE / "boot.sh")]
        argv += [str(self._tree.root), str(self._folder), self.name]
        with self._console.open("ab") as console:
            self._init = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._init_pid = 0
        awaited = {"running", "degraded"}
        if self._user_data or not settled:
            awaited |= {"starting", "initializing"}
        self.wait_until(lambda: self.state in awaited, "boot", seconds=_BOOT_SECONDS)

    def shut_down(self) -> None:
        """Let systemd stop everything in order, and wait until the power is off."""
        process, pid = self._running()
        os.kill(pid, _POWER_OFF)
        try:
            process.wait(_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failed(f"it does not power off in {_SHUTDOWN_SECONDS:.0f} s") from None
        self._init = None

    def reboot(self, *, renumber: bool = False, without: Collection[str] = ()) -> None:
        """Shut down and boot with the same volumes.

        `renumber` gives every volume's device another name; the volumes in `without` are
        kept away until `sandbox.show_device` brings them, and nobody waits for the boot to settle.
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
        self.boot(settled=not without)

    def _rotate(self, volumes: Sequence[VolumeSeen]) -> None:
        """Show each volume under the name that the next one had; one alone gets another name."""
        wanted = [volume.node for volume in volumes[1:]] + [volumes[0].node]
        taken: dict[str, LoopDevice] = {}
        with ExitStack() as stack:
            # The kernel gives the lowest free name: take all, then let go of the one wanted.
            while not taken.keys() >= set(wanted) and len(taken) < _NAMES_TAKEN_MAX:
                other = LoopDevice.create(_MIB, directory=self._folder)
                taken[other.name] = stack.enter_context(other)
            for volume, name in zip(volumes, wanted, strict=True):
                if name in taken and len(volumes) > 1:
                    taken[name].close()
                self.sandbox.show_device(volume.id, shown=True)

    @property
    def name(self) -> str:
        """The name of its control group and of the folder of its files, on no other box."""
        return self._folder.name

    @property
    def state(self) -> str:
        """What `systemctl is-system-running` says; empty while there is no systemd to ask."""
        process = self._init
        if process is None or process.poll() is not None:
            raise self._failed("it is not running")
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
        """Run a command inside, as root and with the environment of a login; `timeout` in seconds."""
        _, pid = self._running()
        environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        environment["AWS_ENDPOINT_URL_EC2"] = f"http://{METADATA_ADDRESS[0]}"
        outside = ["nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
        outside += ["--cgroup", "--root", "--wd", "--", "env", "-i"]
        outside += [f"{name}={value}" for name, value in environment.items()]
        done = subprocess.run(
            # Killed out here, nsenter would leave its child inside behind.
            [*outside, "timeout", "--kill-after=2", str(timeout), *argv],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout + 10,
            check=False,
        )
        if check and done.returncode:
            how = "timed out" if done.returncode in _TIMED_OUT else f"failed ({done.returncode})"
            raise self._failed(f"{' '.join(argv)} {how}:\n{done.stdout}{done.stderr}")
        return done

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
        """Where udevd links the device of a volume."""
        return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"

    def copy_in(self, source: Path, folder: str) -> None:
        """Copy a file or a folder from here into a folder inside."""
        self.exec("mkdir", "-p", folder)
        target = f"/proc/{self._running()[1]}/root{folder}"
        run(["cp", "-r", "--", str(source), target], timeout_seconds=60)

    def journal(self, *options: str) -> str:
        """What its journal has, of all boots unless the options of journalctl say otherwise."""
        return self.exec("journalctl", "--no-pager", "--output=short-precise", *options).stdout

    def wait_until(
        self, condition: Callable[[], object], what: str, *, seconds: float = 30.0
    ) -> None:
        """Wait for a condition; BoxFailed with the last of the journal when it does not come."""
        pause = Event()
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise self._failed(f"in vain for {seconds:.0f} s: {what}")
            pause.wait(0.05)

    def add_disk(self, size_bytes: int) -> LoopDevice:
        """Give it an empty disk that is no EBS volume; it lasts as long as the box."""
        disk = LoopDevice.create(size_bytes, directory=self._folder)
        self._undo.callback(disk.close)
        self.wait_until(
            lambda: self.has(disk.node),
            f"{disk.node} inside",
        )
        return disk

    @property
    def _upper(self) -> Path:
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}/upper")

    @property
    def _console(self) -> Path:
        return self._upper.with_name("console")

    def _start_keeper(self) -> "subprocess.Popen[str]":
        keeper = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private"]
            + ["sh", str(_HERE / "keep.sh"), str(self._folder), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._undo.callback(_end, keeper)
        said = keeper.stdout.readline() if keeper.stdout else ""
        if said != "ready\n":
            raise BoxFailed(f"cannot make the namespaces of a box: {said}")
        return keeper

    def _running(self) -> "tuple[subprocess.Popen[bytes], int]":
        """The process that waits for PID 1, and PID 1 as seen from here."""
        if self._init is None:
            raise BoxFailed("the box is off")
        if not self._init_pid:
            self._init_pid = _only_child(self._init)
        return self._init, self._init_pid

    def _cut_power(self) -> None:
        if self._init is not None:
            self._init.kill()
            self._init.wait(_END_SECONDS)
            self._init = None

    def _failed(self, what: str) -> BoxFailed:
        said = self._console.read_text("utf-8", "replace")[-2000:]
        with suppress(BoxFailed, subprocess.TimeoutExpired):
            listing = self.exec("systemctl", "list-jobs", "--no-pager", check=False, timeout=5)
            tail = ("journalctl", "--no-pager", "--lines=60")
            said += listing.stdout + self.exec(*tail, check=False, timeout=5).stdout
        return BoxFailed(f"{what}\n{said}")


def _only_child(process: "subprocess.Popen[bytes]") -> int:
    pause = Event()
    for _ in range(500):
        with suppress(psutil.NoSuchProcess):
            if children := psutil.Process(process.pid).children():
                return children[0].pid
        if process.poll() is not None:
            break
        pause.wait(0.01)
    raise BoxFailed("the box has no PID 1")


def _end(keeper: "subprocess.Popen[str]") -> None:
    if keeper.stdin and keeper.stdout:
        keeper.stdin.close()
        keeper.wait(_END_SECONDS)
        keeper.stdout.close()


def _wait_until_free(nodes: Collection[Path]) -> None:
    """The kernel may unmount what a mount namespace leaves a moment after its last process."""
    pause = Event()
    for node in nodes:
        for _ in range(500):
            with suppress(OSError):
                os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
                break
            pause.wait(0.02)


def _forget(nodes: Collection[Path]) -> None:
    """A boot knows no BTRFS member; the kernel, which is not booted, remembers them all."""
    for node in nodes:
        with suppress(CommandFailed):
            run(["btrfs", "device", "scan", "--forget", str(node)], timeout_seconds=60)
