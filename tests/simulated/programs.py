"""Programs of many kinds: how many volumes they bring about, and how many they need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from ebs_autoscale.model import GIB, MIB
from ebs_autoscale.policy.settings import GrowthPolicy, Sizing, Threshold
from tests.simulated.workloads import Act, Allocate, Delete, Hardware, Host, Rest, Write

DEFAULTS = GrowthPolicy()
# Floors for a filesystem of 2 GiB, so that only the forecast has anything to say.
SMALL = GrowthPolicy(
    threshold=Threshold(available_percent=10.0, available_min_bytes=64 * MIB),
    sizing=Sizing(min_bytes=GIB),
)
# Starts are tried so far apart, in the first minute: a volume earlier is never worse.
START_EVERY_SECONDS = 5
STARTS_UNTIL_SECONDS = 60


def spill(count: float, rate: float, *, rest: float, times: int) -> list[Act]:
    """Write and delete in turns."""
    return times * [Write(count, rate), Delete(count), Rest(rest)]


def steady(rate: float, seconds: float, *, rest: float = 0.0) -> list[Act]:
    """Write at one rate."""
    return [Rest(rest), Write(rate * seconds, rate)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program on a filesystem, and when growths started before forecasts were bounded.

    `unforeseen` are the volumes for its first burst, which nothing tells from a steady writer.
    """

    acts: Sequence[Act]
    size_gib: float
    used_gib: float = 0.0
    throughput: float | None = 125 * MIB
    policy: GrowthPolicy = DEFAULTS
    before: Sequence[float] = ()
    unforeseen: int = 0

    def host(self) -> Host:
        """The host it runs on."""
        return Host(
            self.acts,
            self.policy,
            Hardware(device_bytes_per_second=self.throughput),
            size_bytes=int(self.size_gib * GIB),
            used_bytes=self.used_gib * GIB,
        )

    def run(self) -> Host:
        """The host after it ran there under the loop."""
        host = self.host()
        host.run()
        return host

    def needed(self) -> int:
        """The fewest volumes with which no write fails and no floor stays crossed, in hindsight.

        Found by trying all sequences of starts. The volumes have the configured size.
        """
        seconds = range(0, STARTS_UNTIL_SECONDS, START_EVERY_SECONDS)
        for count in range(4):
            for starts in combinations_with_replacement(seconds, count):
                if self.host().run_with(starts):
                    return count
        raise AssertionError("three volumes are not enough")


CASES = {
    "image unpack": Case(
        before=[5.21], acts=[Write(2.2 * GIB, 450 * MIB)], size_gib=20, used_gib=0.5
    ),
    "large image unpack": Case(before=[6.3], acts=[Write(6 * GIB, 900 * MIB)], size_gib=40),
    "spill and delete": Case(
        before=[2.75], acts=spill(6 * GIB, GIB, rest=5, times=10), size_gib=40
    ),
    "spill and delete, fast devices": Case(
        before=[2.75],
        unforeseen=1,
        acts=spill(6 * GIB, GIB, rest=5, times=10),
        size_gib=40,
        throughput=2 * GIB,
    ),
    "spill and delete, 2 GiB": Case(
        before=[1.25, 7.25],
        unforeseen=1,
        acts=spill(600 * MIB, 400 * MIB, rest=1.5, times=10),
        size_gib=2,
        policy=SMALL,
    ),
    "spill and delete, 4 GiB, instance store": Case(
        before=[1.25],
        unforeseen=1,
        acts=spill(1.2 * GIB, 600 * MIB, rest=3, times=10),
        size_gib=4,
        policy=SMALL,
        throughput=None,
    ),
    "spills of many sizes": Case(
        before=[2.5],
        unforeseen=1,
        acts=[
            act
            for gib in (4, 5, 3, 5.5, 4.5, 2, 5.5, 5)
            for act in spill(gib * GIB, GIB, rest=5, times=1)
        ],
        size_gib=32,
        throughput=2 * GIB,
    ),
    "spill and keep a part": Case(
        before=[2.75],
        acts=60 * [Write(3 * GIB, GIB), Delete(2.5 * GIB), Rest(5)],
        size_gib=40,
        throughput=2 * GIB,
    ),
    "sawtooth": Case(
        before=[8.96], acts=spill(2500 * MIB, 250 * MIB, rest=0, times=6), size_gib=40, used_gib=28
    ),
    "external sort": Case(
        before=[77.0],
        acts=[
            *(6 * [Write(2 * GIB, 800 * MIB), Rest(16)]),
            *(6 * [Write(2 * GIB, 800 * MIB), Delete(2 * GIB), Rest(16)]),
            Delete(12 * GIB),
        ],
        size_gib=40,
    ),
    "compile": Case(
        acts=200 * [Write(12 * MIB, 60 * MIB), Delete(3 * MIB), Rest(0.1)], size_gib=20
    ),
    "one fallocate": Case(acts=[Rest(5), Allocate(8 * GIB), Rest(20)], size_gib=40),
    "fallocate again and again": Case(
        before=[42.23], acts=360 * [Allocate(100 * MIB), Rest(0.2)], size_gib=40
    ),
    "steady, 20 MiB/s": Case(
        before=[512.81], acts=steady(20 * MIB, 1200), size_gib=40, used_gib=20
    ),
    "steady, 100 MiB/s": Case(
        before=[103.16], acts=steady(100 * MIB, 250), size_gib=40, used_gib=20
    ),
    "steady, 125 MiB/s": Case(
        before=[82.75], acts=steady(125 * MIB, 200), size_gib=40, used_gib=20
    ),
    "steady, 400 MiB/s": Case(
        before=[37.61], acts=steady(400 * MIB, 100), size_gib=40, used_gib=10, throughput=500 * MIB
    ),
    "steady after rest": Case(
        before=[97.61],
        acts=steady(400 * MIB, 100, rest=60),
        size_gib=40,
        used_gib=10,
        throughput=500 * MIB,
    ),
    "accelerating": Case(
        before=[121.06],
        acts=[Write(2 * GIB, rate * MIB) for rate in range(50, 1000, 50)],
        size_gib=40,
        throughput=GIB,
    ),
}


def starts(host: Host) -> list[float]:
    """When its growths decided to create a volume, in seconds since the program began."""
    return [round(at - host.began_at, 2) for at, *_ in host.decided]


def table() -> Iterator[str]:
    """What each brings about, as lines."""
    yield f"{'program':<42}{'before':>8}{'created':>9}{'needed':>8}  growths start (s, GiB)"
    for name, case in CASES.items():
        host = case.run()
        growths = zip(starts(host), host.volumes, strict=True)
        told = ", ".join(f"{at} ({size // GIB})" for at, size in growths)
        created, needed = len(host.volumes), case.needed()
        yield f"{name:<42}{len(case.before):>8}{created:>9}{needed:>8}  {told}".rstrip()
