"""`run --detach`: hosts without systemd, their log file and who rotates it."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ebs_autoscale.host import paths
from tests.system.bench import Host, find_event, until

pytestmark = pytest.mark.kernel

ROTATION = Path(__file__).parents[2] / "logrotate/ebs-autoscale"


@pytest.fixture
def log() -> Iterator[Path]:
    """Where a detached daemon logs, for this test alone."""
    argv = ["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/var/log"]
    subprocess.run(argv, check=True)
    yield Path("/var/log/ebs-autoscale.log")
    subprocess.run(["umount", "--lazy", "/var/log"], check=True)


def pid_path_of(host: Host) -> Path:
    """The pid file of this host's daemon."""
    return paths.pid_file(str(host.mountpoint))


@contextmanager
def detached(host: Host, log: Path) -> Iterator[int]:
    """A daemon in the background that has looked once: its pid. It is killed in the end."""
    assert host.run("run", "--detach").returncode == 0
    until(lambda: log.exists() and find_event(log.read_text(), "decided"), "the first decision")
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
        until(lambda: find_event(log.read_text(), "growth_done"), "a growth")
        end(host, pid)
    assert "Traceback" not in log.read_text()
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
        until(lambda: find_event(log.read_text(), "reloaded"), "the reload")
        end(host, pid)


def test_rotation_has_no_fault() -> None:
    """Logrotate reads its file without an error."""
    argv = ["logrotate", "--debug", "--state", "/dev/null", str(ROTATION)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "error" not in done.stderr


def test_rotation_in_mid_growth(make_host: Callable[..., Host], log: Path, tmp_path: Path) -> None:
    """Nothing is interrupted, and later events are in the new file."""
    host = make_host(create_seconds=(3.0, 3.5))
    with detached(host, log) as pid:
        host.fill(20)
        until(lambda: find_event(log.read_text(), "step_started"), "the start of the growth")
        argv = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(ROTATION)]
        subprocess.run(argv, check=True)
        assert not find_event(log.read_text(), "growth_done")
        until(lambda: find_event(log.read_text(), "growth_done"), "the end of the growth")
        assert psutil.pid_exists(pid)
        end(host, pid)
    rotated = log.with_suffix(".log.1").read_text()
    assert find_event(rotated, "step_started")
    assert not find_event(rotated, "growth_done")
    assert len(host.volumes()) == 1
