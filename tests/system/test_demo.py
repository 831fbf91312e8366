"""The demo as a black box: it meets its requirements, and leaves nothing behind."""

import re
import sys
from pathlib import Path

import psutil
import pytest

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import CommandFailed, Exit, Stopped
from ebs_autoscale.host.command import run

pytestmark = pytest.mark.kernel

_DEMO = [sys.executable, "-I", "-m", "ebs_autoscale", "demo"]
_PROMISED_SECONDS = 120
_KERNEL_PATIENCE_SECONDS = 20


class KilledNow(Exception):
    """Raised while a demo runs, it makes `command.run` kill it."""


class Traces:
    """The processes, mounts, devices and files of a demo that stores its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[psutil.Process] = set()
        self._mounts = Path("/proc/self/mountinfo").read_text()

    def look(self) -> int:
        """Remember its present processes; returns the number of its block devices."""
        self._seen |= set(psutil.Process().children(recursive=True))
        return len(self._devices())

    @property
    def process_count(self) -> int:
        """The number of its processes so far."""
        return len(self._seen)

    def left(self) -> list[str]:
        """What is left after the kernel has had time to write back and unmount."""
        clock = SystemClock()
        deadline = clock.now_seconds() + _KERNEL_PATIENCE_SECONDS
        while (found := self._there_is()) and clock.now_seconds() < deadline:
            clock.sleep(0.1)
        return found

    def _there_is(self) -> list[str]:
        alive = [each for each in self._seen if _is_alive(each)]
        found = [*map(str, alive), *self._devices(), *map(str, self.folder.iterdir())]
        if Path("/proc/self/mountinfo").read_text() != self._mounts:
            found.append("another set of mounts")
        return found

    def _devices(self) -> list[str]:
        # The kernel's path of the file, which may be that of another mount.
        mark = f"/{self.folder.name}/"
        backing = (_text(path) for path in Path("/sys/block").glob("loop*/loop/backing_file"))
        return [text for text in backing if mark in text]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # unbound since it was listed
        return ""


def _is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not count."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traces:
    """Make the demo store its files in a folder of the test."""
    folder = tmp_path / f"{tmp_path.name}-backing"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return Traces(folder)


def _figure(name: str, output: str) -> int:
    found = re.search(rf"^{name} +(\d+)", output, re.MULTILINE)
    assert found, f"no {name} in: {output}"
    return int(found[1])


def test_all_requirements_are_met(traces: Traces) -> None:
    """It grows three times or more under a steady writer, loses no data and leaves nothing."""

    def remember() -> bool:
        traces.look()
        return False

    output = run(_DEMO, timeout_seconds=_PROMISED_SECONDS, stopping=remember)

    assert _figure("growths", output) >= 3
    assert _figure("ENOSPC", output) == 0
    assert _figure("leaked volumes", output) == 0
    assert _figure("scrub", output) == 0
    assert re.search(r"^checksums +(\d+) of \1 correct$", output, re.MULTILINE)
    assert "  daemon: " in output, "into a pipe it prints the log of the daemon as plain lines"
    assert "\x1b" not in output
    assert traces.left() == []


def test_kill_leaves_nothing(traces: Traces) -> None:
    """Killed with SIGKILL while it writes to two devices, it leaves nothing."""

    def kill_when_grown() -> bool:
        if traces.look() >= 2:
            raise KilledNow
        return False

    with pytest.raises(KilledNow):
        run(_DEMO, timeout_seconds=_PROMISED_SECONDS, stopping=kill_when_grown)

    assert traces.process_count >= 4, "two of the demo, the sandbox, the daemon"
    assert traces.left() == []


def test_stop_leaves_nothing(traces: Traces) -> None:
    """Stopped by a signal, as by Ctrl-C, it ends at once and leaves nothing."""
    with pytest.raises(Stopped):
        run(_DEMO, timeout_seconds=_PROMISED_SECONDS, stopping=lambda: traces.look() >= 1)

    assert traces.left() == []


def test_an_unfit_host_is_explained() -> None:
    """Without the necessary capabilities it says in one sentence what to do."""
    powerless = ["setpriv", "--bounding-set", "-sys_admin", *_DEMO]

    with pytest.raises(CommandFailed) as caught:
        run(powerless, timeout_seconds=_PROMISED_SECONDS)

    assert caught.value.status == Exit.UNFIT
    assert caught.value.stderr.count("\n") == 1
    assert "CAP_SYS_ADMIN: in a container, start it with --privileged" in caught.value.stderr


def test_too_high_a_rate_is_refused() -> None:
    """A rate for which the demo would need more than 8 GiB is a usage error."""
    with pytest.raises(CommandFailed) as caught:
        run([*_DEMO, "--rate", "1GiB"], timeout_seconds=_PROMISED_SECONDS)

    assert caught.value.status == Exit.USAGE
    assert "--rate 1 GiB" in caught.value.stderr
