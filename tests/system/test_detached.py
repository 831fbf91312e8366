"""`run --detach`: hosts without systemd, their log file and who rotates it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ebs_autoscale.host import paths
from ebs_autoscale.model import GIB
from tests.system.bench import Host, find_event, until
from tests.unit.samples import ADDING

pytestmark = pytest.mark.kernel

ROTATION = Path(__file__).parents[2] / "logrotate/ebs-autoscale"


@pytest.fixture
def log() -> Iterator[Path]:
    """Where a detached daemon logs, for this test alone."""
    argv = ["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/var/log"]
    subprocess.run(argv, check=True)
    yield Path("/var/log/ebs-autoscale.log")
    subprocess.run(["umount", "--lazy", "/var/log"], check=True)


def told(log: Path, kind: str) -> bool:
    """Whether the log, text or JSON, has such an event."""
    text = log.read_text() if log.exists() else ""
    return f" event={kind} " in text or find_event(text, kind) is not None


def assert_history_has_the_growth(host: Host) -> None:
    """`history` finds the one growth, with all its steps, wherever it was logged."""
    history = json.loads(host.run("history", "--since", "1 h", "--json").stdout)
    (growth,) = history["growths"]
    (volume,) = host.volumes()
    assert (growth["volume"], growth["size_bytes"]) == (volume.id, GIB)
    assert growth["steps"].keys() == set(ADDING)
    assert growth["seconds"] > 0
    assert growth["added_usd_per_month"] > 0
    assert (history["unreadable_lines"], history["notes"]) == (0, [])


def pid_path_of(host: Host) -> Path:
    """The pid file of this host's daemon."""
    return paths.pid_file(str(host.mountpoint))


@contextmanager
def detached(host: Host, log: Path) -> Iterator[int]:
    """A daemon in the background that has looked once: its pid. It is killed in the end."""
    assert host.run("run", "--detach").returncode == 0
    until(lambda: told(log, "decided"), "the first decision")
    pid = int(pid_path_of(host).read_text())
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(host: Host, pid: int) -> None:
    """Stop it as an init script does."""
    os.kill(pid, signal.SIGTERM)
    until(lambda: not psutil.pid_exists(pid), "its end")
    assert not pid_path_of(host).exists()


def test_from_start_to_stop(host: Host, log: Path) -> None:
    """It returns at once and leaves a daemon, which removes its pid file at the end."""
    pid_path_of(host).parent.mkdir(exist_ok=True)
    pid_path_of(host).write_text("4194304\n")
    with detached(host, log) as pid:
        assert host.status()["daemon"]["pid"] == pid
        assert host.run("run", "--detach").returncode == 3
        host.fill(20)
        until(lambda: told(log, "growth_done"), "a growth")
        end(host, pid)
    assert "Traceback" not in log.read_text()
    assert_history_has_the_growth(host)
    assert host.leaked() == []


def test_how_it_lives(host: Host, log: Path) -> None:
    """It has a session of its own, in /, and finds its configuration from there."""
    host.config = Path(os.path.relpath(host.config))
    with detached(host, log) as pid:
        process = psutil.Process(pid)
        assert process.cwd() == "/"
        assert process.terminal() is None
        assert process.ppid() != os.getpid()
        assert oct(pid_path_of(host).stat().st_mode & 0o777) == "0o644"
        os.kill(pid, signal.SIGHUP)
        until(lambda: told(log, "reloaded"), "the reload")
        end(host, pid)


def test_rotation_has_no_fault() -> None:
    """Logrotate reads its file without an error."""
    argv = ["logrotate", "--debug", "--state", "/dev/null", str(ROTATION)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "error" not in done.stderr


def test_rotation_in_mid_growth(make_host: Callable[..., Host], log: Path, tmp_path: Path) -> None:
    """Nothing is interrupted, later events are in the new file, and `history` reads both."""
    host = make_host(create_seconds=(3.0, 3.5))
    host.configure(logging={"format": "text"})
    with detached(host, log) as pid:
        host.fill(20)
        until(lambda: told(log, "step_started"), "the start of the growth")
        argv = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(ROTATION)]
        subprocess.run(argv, check=True)
        assert not told(log, "growth_done")
        until(lambda: told(log, "growth_done"), "the end of the growth")
        assert psutil.pid_exists(pid)
        end(host, pid)
    rotated = log.with_suffix(".log.1")
    assert told(rotated, "step_started")
    assert not told(rotated, "growth_done")
    assert_history_has_the_growth(host)
    subprocess.run(["gzip", str(rotated)], check=True)
    assert_history_has_the_growth(host)
