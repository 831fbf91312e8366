"""Memory that is short: the kernel kills a growth before the daemon, which goes on."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause
from tests.system.bench import MIB, Host, until

pytestmark = pytest.mark.kernel

CGROUPS = Path("/sys/fs/cgroup")
# That of the unit; how much it counts to be the preferred victim depends on it.
LIMIT_MIB = 256
LEFT_MIB = 8


class MemoryGroup:
    """A control group, of version 1 or 2, that has LEFT_MIB left and no swap, until `relieve`."""

    def __init__(self) -> None:
        is_v2 = (CGROUPS / "cgroup.controllers").exists()
        self._path = (CGROUPS if is_v2 else CGROUPS / "memory") / f"ebs-autoscale-{os.getpid()}"
        self._path.mkdir()
        self._events = self._path / ("memory.events" if is_v2 else "memory.oom_control")
        self._write("memory.max" if is_v2 else "memory.limit_in_bytes", LIMIT_MIB * MIB)
        self._write("memory.swap.max" if is_v2 else "memory.swappiness", 0)
        self._ballast = Path("/dev/shm", self._path.name)
        # Memory of a tmpfs counts for the process that writes it, and cannot be reclaimed.
        script = 'echo $$ >"$1/cgroup.procs" && exec head -c "$2" /dev/zero >"$3"'
        wanted = f"{LIMIT_MIB - LEFT_MIB}M"
        argv = ["sh", "-c", script, "-", str(self._path), wanted, str(self._ballast)]
        subprocess.run(argv, check=True)

    def _write(self, name: str, value: int) -> None:
        (self._path / name).write_text(f"{value}")

    def add(self, pid: int) -> None:
        """What this process and its children use from now on counts."""
        self._write("cgroup.procs", pid)

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed because of the limit."""
        return int(re.findall(r"oom_kill (\d+)", self._events.read_text())[0])

    def relieve(self) -> None:
        """Let there be memory again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove it, once its processes have ended."""
        self.relieve()
        until(lambda: not (self._path / "cgroup.procs").read_text(), "the end of its processes")
        self._path.rmdir()


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Such a group, for as long as this is entered."""
    group = MemoryGroup()
    try:
        yield group
    finally:
        group.close()


def test_a_growth_is_killed_before_the_daemon(host: Host) -> None:
    """The daemon tells it, goes on, and grows once there is memory."""
    with memory_group() as group, host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        group.add(daemon.process.pid)
        host.fill(20)
        daemon.wait_event("condition_began", cause=Cause.DIED.value)
        assert group.kills > 0
        assert daemon.process.poll() is None
        group.relieve()
        daemon.reload()
        daemon.wait_event("growth_done")
        assert daemon.stop() == 0
    assert (len(host.volumes()), host.devices) == (1, 2)
