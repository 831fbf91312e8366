"""Namespaces with systemd as PID 1: power on, power off, and run commands in them."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Event

import psutil

_HERE = Path(__file__).parent
_END_SECONDS = 20.0
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), "Signals"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
# Exit statuses of timeout(1): timed out, and had to be killed.
_TIMED_OUT = (124, 137)


class BoxFailed(AssertionError):
    """A box did not do what was asked; has the end of its output."""


class Machine:
    """One machine with the tree at `root`, named after `folder`.

    It has two processes. The keeper holds the network and the tmpfs of changes between boots;
    it ends when our end of its pipe is closed, and cleans up. The kernel kills PID 1 when the
    thread that started it ends (PR_SET_PDEATHSIG), and with it its pid namespace and its mounts.
    """

    def __init__(self, folder: Path, *, root: Path, environment: dict[str, str]) -> None:
        self.name = folder.name
        self._folder = folder
        self._root = root
        self._environment = {**_ENVIRONMENT, **environment}
        self._waiter: subprocess.Popen[bytes] | None = None
        self._pid = 0
        argv = ["unshare", "--mount", "--net", "--propagation", "private"]
        argv += ["sh", str(_HERE / "keep.sh"), str(folder), self.name]
        self._keeper = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = self._keeper.stdout.readline() if self._keeper.stdout else ""
        if said != "ready\n":
            self.close()
            raise BoxFailed(f"cannot make the namespaces of a box: {said}")

    @property
    def network(self) -> Path:
        """Its network namespace."""
        return Path(f"/proc/{self._keeper.pid}/ns/net")

    @property
    def upper(self) -> Path:
        """Its changes to the tree, as a path outside; to be written only while it is off."""
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}/upper")

    @property
    def root(self) -> Path:
        """Its root folder, as a path outside, while it is on; absolute links in it do not work."""
        return Path(f"/proc/{self._running()[1]}/root")

    @property
    def pid(self) -> int:
        """PID 1, as it is called outside."""
        return self._running()[1]

    @property
    def is_on(self) -> bool:
        """Whether PID 1 is running."""
        return self._waiter is not None and self._waiter.poll() is None

    def power_on(self) -> None:
        """Start PID 1."""
        keeper = str(self._keeper.pid)
        argv = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--target", keeper, "--mount", "--net"]
        argv += ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]
        argv += ["sh", str(_HERE / "boot.sh"), str(self._root), str(self._folder), self.name]
        self._pid = 0
        with self._console.open("ab") as console:
            self._waiter = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def power_off(self, *, seconds: float) -> None:
        """Let systemd stop everything in order; raises BoxFailed when that takes longer."""
        waiter, pid = self._running()
        os.kill(pid, _POWER_OFF)
        try:
            waiter.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failed(f"it does not power off in {seconds:.0f} s") from None
        self._waiter = None

    def cut_power(self) -> None:
        """Kill everything at once; does nothing when the machine is off."""
        if self._waiter is not None:
            self._waiter.kill()
            self._waiter.wait(_END_SECONDS)
            self._waiter = None

    def close(self) -> None:
        """Cut the power, and let the keeper clean up; does nothing the second time."""
        self.cut_power()
        if self._keeper.stdin and self._keeper.stdout:
            self._keeper.stdin.close()
            self._keeper.wait(_END_SECONDS)
            self._keeper.stdout.close()

    def exec(
        self, argv: tuple[str, ...], *, timeout: float, check: bool, text: str | None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command inside as root; raises BoxFailed with `check` when it does not succeed."""
        _, pid = self._running()
        outside = ["nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
        outside += ["--cgroup", "--root", "--wd", "--", "env", "-i"]
        outside += [f"{name}={value}" for name, value in self._environment.items()]
        done = subprocess.run(
            # Inside, since killing nsenter would leave its child running.
            [*outside, "timeout", "--kill-after=2", str(timeout), *argv],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout + 10,
            check=False,
        )
        if check and done.returncode:
            how = "timed out" if done.returncode in _TIMED_OUT else f"failed ({done.returncode})"
            raise self.failed(f"{' '.join(argv)} {how}:\n{done.stdout}{done.stderr}")
        return done

    def failed(self, what: str) -> BoxFailed:
        """The error, with the pending jobs and the end of the journal."""
        said = self._console.read_text("utf-8", "replace")[-2000:]
        for argv in (
            ("systemctl", "list-jobs", "--no-pager"),
            ("journalctl", "--no-pager", "--lines=60"),
        ):
            with suppress(BoxFailed, subprocess.TimeoutExpired):
                said += self.exec(argv, timeout=5, check=False, text=None).stdout
        return BoxFailed(f"{what}\n{said}")

    @property
    def _console(self) -> Path:
        return self.upper.with_name("console")

    def _running(self) -> "tuple[subprocess.Popen[bytes], int]":
        """The parent of PID 1, and the pid of PID 1 outside."""
        if self._waiter is None:
            raise BoxFailed("the box is off")
        if not self._pid:
            self._pid = _only_child(self._waiter)
        return self._waiter, self._pid


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
