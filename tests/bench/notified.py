"""How long a growth takes with a notify.command that misbehaves, next to one without."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import monotonic

from ebs_autoscale.telemetry import EventKind
from tests.bench.ground import GIB
from tests.bench.guards import bench_host, ours

ROUNDS = 5

COMMANDS: dict[str, list[str] | None] = {
    "none": None,
    "sleeps for ever": ["sleep", "infinity"],
    "exits 1": ["false"],
    "writes 10 MB": ["sh", "-c", "head -c 10000000 /dev/zero; head -c 10000000 /dev/zero >&2"],
    "forks": ["sh", "-c", "for i in 1 2 3 4 5; do setsid sleep infinity & done"],
}


def table(folder: Path) -> Iterator[str]:
    """One line for each command, all measured in turn; the ratio is to the growth without one."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            seconds[name].append(_growth_seconds(folder, command))
    without = median(seconds["none"])
    for name, found in seconds.items():
        took = median(found)
        yield f"notify.command {name:<16} {took:6.2f} s  ratio {took / without:.2f}"


def _growth_seconds(folder: Path, command: list[str] | None) -> float:
    config = {"notify": {"command": command}}
    with bench_host(folder, 2 * GIB, config=config) as host, ours(host) as daemon:
        daemon.wait_event(EventKind.DECIDED, decision="hold")
        host.fill(20)
        began = monotonic()
        daemon.wait_event(EventKind.GROWTH_DONE)
        return monotonic() - began
