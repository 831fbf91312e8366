"""Readers that do not read, places that cannot be written, and a growth that cannot be ended."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from time import monotonic

import psutil
import pytest

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.daemon import worker
from ebs_autoscale.daemon.metadata import InstanceMetadata
from ebs_autoscale.daemon.worker import GrowthProcess
from ebs_autoscale.errors import Cause
from ebs_autoscale.host import paths
from ebs_autoscale.policy import Forecast
from tests.program import TREE
from tests.system.bench import Host, until

pytestmark = pytest.mark.kernel


def fill_pipe(fd: int) -> None:
    """Write until nothing more goes in, whoever else has it open."""
    mine = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(mine, b"x" * 4095 + b"\n")
    os.close(mine)


def read_more(fd: int, text: bytearray) -> bytearray:
    """All that was read from a pipe, with what is in it now."""
    if select.select([fd], [], [], 0)[0]:
        text += os.read(fd, 10**6)
    return text


def test_a_log_that_nobody_reads(host: Host) -> None:
    """With stderr a pipe that is full it grows and stops; what is read later is whole JSON."""
    reader, writer = os.pipe()
    fill_pipe(writer)
    process = subprocess.Popen([*host.argv, "run"], env=host.environment, stderr=writer)
    try:
        until(lambda: host.status()["daemon"], "the daemon")
        host.fill(20)
        until(lambda: host.devices == 2 and not host.leaked(), "a growth")
        assert host.status()["daemon"]["dropped_log_lines"] == 0
        text = bytearray()
        until(lambda: b"growth_done" in read_more(reader, text), "the lines")
        fill_pipe(writer)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)
    lines = [line for line in text.decode().splitlines() if line.strip("x")]
    assert all(json.loads(line)["message"] for line in lines)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Nothing can be written or created in this folder."""
    options = "mode=755,size=4k,nr_inodes=1"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def pids_of(host: Host) -> list[int]:
    """The daemons of this host."""
    wanted = [str(host.config), "run", "--detach"]
    running = psutil.process_iter(["cmdline"])
    return [each.pid for each in running if (each.info["cmdline"] or [])[-3:] == wanted]


def test_a_detached_daemon_without_room_for_its_files(host: Host) -> None:
    """With /run and /var/log full it watches, once, grows, and ends when it is told to."""
    paths.RUNTIME_DIRECTORY.mkdir(exist_ok=True)
    with full(paths.RUNTIME_DIRECTORY), full(Path("/var/log")):
        assert host.run("run", "--detach").returncode == 0
        [pid] = pids_of(host)
        try:
            assert host.run("run").returncode == 3
            host.fill(20)
            until(lambda: host.devices == 2 and not host.leaked(), "a growth")
            os.kill(pid, signal.SIGTERM)
            until(lambda: not psutil.pid_exists(pid), "its end")
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_output_that_cannot_be_written(host: Host) -> None:
    """A closed, broken or full output is no traceback, and no other file takes its place."""
    python, *options = host.argv
    for (verb, *buffering), (redirection, code) in product(
        # An option of Python cannot be given to a release.
        (("status",), ("iam-policy",), *([] if TREE else [("iam-policy", "-u")])),
        ((">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 1), ("| true", 0)),
    ):
        argv = " ".join([python, *buffering, *options, verb])
        script = f"set -o pipefail; {argv} {redirection}"
        done = subprocess.run(
            ["bash", "-c", script], env=host.environment, capture_output=True, check=False
        )
        assert (verb, redirection, done.returncode) == (verb, redirection, code)
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr


@pytest.fixture
def growths(host: Host, monkeypatch: pytest.MonkeyPatch) -> GrowthProcess:
    """The growths of a daemon without patience."""
    for name in ("STUCK_AFTER_SECONDS", "KILL_PATIENCE_SECONDS", "STOP_PATIENCE_SECONDS"):
        monkeypatch.setattr(worker, name, 1.0)
    monkeypatch.setattr(worker, "STUCK_LOOK_EVERY_SECONDS", 0.1)
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    return GrowthProcess(
        config_path=host.config,
        config_text=host.config.read_text("utf-8"),
        lock_path=host.folder / "growth.lock",
        clock=SystemClock(),
        metadata=InstanceMetadata(),
    )


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Whoever writes to this filesystem waits in the kernel meanwhile."""
    subprocess.run(["fsfreeze", "--freeze", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(folder)], check=True)


def test_a_tool_that_waits_in_the_kernel(host: Host, growths: GrowthProcess) -> None:
    """It is reported, and no longer once it goes on: the growth is completed."""
    host.fill(20)
    with frozen(host.mountpoint):
        growths.start(Forecast())
        until(lambda: growths.events() is None or growths.stuck, "the report")
    until(lambda: growths.events() is None or not growths.running, "its end")
    assert growths.stuck is None
    assert (host.devices, host.leaked()) == (2, [])


def test_a_growth_that_waits_in_the_kernel(
    host: Host, growths: GrowthProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, killed in vain, and a stop does not wait for it."""
    writes = ("sh", "-c", 'exec touch "$0"', str(host.mountpoint / "file"))
    monkeypatch.setattr(worker, "OURSELVES", writes)
    with frozen(host.mountpoint):
        growths.start(Forecast())
        until(lambda: growths.events() is None or growths.stuck, "the report")
        began = monotonic()
        assert growths.close()[-1].cause is Cause.STUCK
        assert monotonic() - began < 10
        assert growths.running
    until(lambda: growths.events() is None or not growths.running, "its end")
    assert growths.stuck is None
