"""Growths while the metadata service is ill, beside a writer at 60 % of the survivable rate."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic

from ec2_sandbox.faults import IMDS, FaultKind, FaultRule

from ebs_autoscale.model import FilesystemKind
from tests.bench.fill import SIZE_BYTES, WRITTEN_SHARE, host_maker
from tests.bench.guards import ours
from tests.system.bench import Host

RATE_SHARE = 0.6
HEADING = f"{'IMDS':<34}{'usable':>9}{'full':>9}{'IMDS':>7}{'EC2':>5}{'`grow` alone':>14}  ending"
_GROW_TIMEOUT_SECONDS = 90.0


def _fault(kind: FaultKind, **fields: float) -> FaultRule:
    return FaultRule.from_mapping({"kind": kind, "action": IMDS, **fields})


@dataclass(frozen=True, slots=True)
class Case:
    """What is wrong with IMDS, and whether the credentials expire once a volume is created."""

    rules: tuple[FaultRule, ...] = ()
    expires: bool = False


_FAILS_ONCE = _fault(FaultKind.HTTP, status=500, times=1)
_LATE = {seconds: _fault(FaultKind.DELAY, seconds=seconds) for seconds in (1.5, 3.0)}
CASES: Mapping[str, Case] = {
    "healthy": Case(),
    "fails once (500)": Case((_FAILS_ONCE,)),
    "fails always (500)": Case((_fault(FaultKind.HTTP, status=500),)),
    "drops one request": Case((_fault(FaultKind.LOST_BEFORE, times=1),)),
    "drops every request": Case((_fault(FaultKind.LOST_BEFORE),)),
    "loses one answer": Case((_fault(FaultKind.DELAY, seconds=100, times=1),)),
    "every answer 1.5 s late": Case((_LATE[1.5],)),
    "every answer 3 s late": Case((_LATE[3.0],)),
    "drips, 10 ms a byte": Case((_fault(FaultKind.DRIP, seconds=0.01),)),
    "one answer is junk": Case((_fault(FaultKind.JUNK, times=1),)),
    "credentials expire in mid-growth": Case(expires=True),
    "expire, and it fails once": Case((_FAILS_ONCE,), expires=True),
    "expire, and one answer is 1.5 s late": Case(
        (_fault(FaultKind.DELAY, seconds=1.5, times=1),), expires=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a case went; times from the first byte, with the rate that the writer reached."""

    case: str
    usable_seconds: float
    full_seconds: float
    imds_requests: int
    ec2_calls: int
    grow_seconds: float
    enospc: bool

    @property
    def told(self) -> str:
        """As one line."""
        alone = f"{self.grow_seconds:.1f} s" if self.grow_seconds else "none"
        return (
            f"{self.case:<34}{self.usable_seconds:>7.1f} s{self.full_seconds:>7.1f} s"
            f"{self.imds_requests:>7}{self.ec2_calls:>5}{alone:>14}"
            f"  {'ENOSPC' if self.enospc else 'no ENOSPC'}"
        )


def play(folder: Path, name: str, *, rate: float) -> Course:
    """Write more than there is room for while a daemon watches, which began with a healthy IMDS."""
    case = CASES[name]
    with host_maker(folder)(SIZE_BYTES[FilesystemKind.BTRFS]) as host:
        writable = host.read().available_bytes
        argv = [sys.executable, "-m", "tests.bench.writer", str(host.mountpoint / "content")]
        argv += [str(rate), str(int(writable * WRITTEN_SHARE)), "buffered"]
        with ours(host), _ill(host, case):
            before = len(host.sandbox.journal())
            began, usable = monotonic(), 0.0
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
                while writer.poll() is None:
                    if not usable and host.devices > 1:
                        usable = monotonic() - began
                    Event().wait(0.02)
                ending = json.loads(writer.communicate()[0])
            calls = host.sandbox.journal()[before:]
        written = ending["written"] / ending["seconds"]
        return Course(
            case=name,
            usable_seconds=usable,
            full_seconds=writable / written,
            imds_requests=sum(call.action == IMDS for call in calls),
            ec2_calls=sum(call.action != IMDS for call in calls),
            grow_seconds=_grow_alone(host, case),
            enospc=ending["errno"] != 0,
        )


@contextmanager
def _ill(host: Host, case: Case) -> Iterator[None]:
    """Let IMDS be ill for as long as this is entered."""
    ended = Event()

    def expire() -> None:
        while not host.sandbox.calls("CreateVolume"):
            if ended.wait(0.05):
                return
        host.sandbox.expire_credentials()

    for rule in case.rules:
        host.sandbox.add_fault(rule)
    thread = Thread(target=expire if case.expires else lambda: None)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        host.sandbox.clear_faults()


def _grow_alone(host: Host, case: Case) -> float:
    """How long `grow` takes, which knows nothing beforehand; 0 when it fails."""
    with _ill(host, case):
        began = monotonic()
        done = host.run("grow", seconds=_GROW_TIMEOUT_SECONDS)
        return monotonic() - began if done.returncode == 0 else 0.0
