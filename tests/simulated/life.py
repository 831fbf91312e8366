"""A filesystem that is written to, growths that take their time, and the real loop over both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ebs_autoscale.errors import Problem
from ebs_autoscale.filesystems.mounted import OpenMount
from ebs_autoscale.model import (
    GIB,
    Decision,
    DecisionKind,
    Device,
    Grow,
    GrowthId,
    Hold,
    Inventory,
    Observation,
    Reading,
    Refuse,
    StepKind,
    Volume,
)
from ebs_autoscale.monitor import Monitor
from ebs_autoscale.policy.decision import decide
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.view import View
from tests.simulated.clock import SimulatedClock
from tests.simulated.growths import open_root

FILESYSTEM = "6a92f8de-0000-4000-8000-000000000001"


class LivingClock(SimulatedClock):
    """A clock whose passing seconds are lived through by the filesystem."""

    def __init__(self) -> None:
        super().__init__()
        self.life: Life | None = None

    def sleep(self, seconds: float) -> None:
        """Pass at once, with all that happens meanwhile."""
        if self.life:
            self.life.pass_by(self.now_seconds() + seconds)
        super().sleep(seconds)


@dataclass(slots=True)
class SlowGrowths:
    """Growths that decide like the real ones, and whose volume comes when EC2 gets to it."""

    life: "Life"
    step: StepKind | None = None
    stuck: Problem | None = None
    running: bool = False
    _forecast: Forecast = field(default_factory=Forecast)
    _decision: Decision | None = None
    _decides_at: float = 0.0
    _arrives_at: float = 0.0
    _unsaid: list[Event] = field(default_factory=list)

    def start(self, forecast: Forecast) -> None:
        """Begin one."""
        assert not self.running
        now = self.life.clock.now_seconds()
        self.running, self._forecast, self._decision = True, forecast, None
        self._decides_at = now + self.life.start_seconds
        self._arrives_at = now + self.life.growth_seconds

    def next_at(self) -> float:
        """When something happens next; infinite while nothing will."""
        if not self.running:
            return float("inf")
        return self._arrives_at if self._decision else self._decides_at

    def happen(self) -> None:
        """Decide, or bring what was bought."""
        if self._decision is None:
            self._decide()
        elif isinstance(self._decision, Grow):
            self.life.volumes.append(self._decision.size_bytes)
            self._tell_throughputs()
            seconds = self.life.growth_seconds
            self._end(EventKind.GROWTH_DONE, decision=DecisionKind.GROW, seconds=seconds)

    def _decide(self) -> None:
        life = self.life
        self._tell_throughputs()
        decision = decide(life.observation(), life.policy, forecast=self._forecast)
        match decision:
            case Hold(reason):
                self._end(EventKind.DECIDED, f"hold: {reason}", decision=DecisionKind.HOLD)
                life.held += 1
            case Refuse(limit=limit, reason=reason):
                self._end(EventKind.GROWTH_REFUSED, reason, cause=limit)
            case Grow():
                self._decision = decision
                life.decided.append((life.clock.now_seconds(), decision, life.read()))

    def _tell_throughputs(self) -> None:
        if self.life.device_bytes_per_second is None:
            return
        for device in self.life.read().devices:
            self._unsaid.append(
                Event(
                    kind=EventKind.THROUGHPUT,
                    sentence="as EC2 shows it",
                    device=device.name,
                    bytes_per_second=self.life.device_bytes_per_second,
                )
            )

    def _end(self, kind: EventKind, sentence: str = "", **fields: Any) -> None:
        self.running = False
        self._unsaid.append(Event(kind=kind, sentence=sentence, **fields))

    def events(self) -> list[Event]:
        """What it has said since the last call."""
        words, self._unsaid = self._unsaid, []
        return words

    def stop(self) -> None:
        """End it before it has bought anything; what is bought comes all the same."""

    def close(self) -> list[Event]:
        """End it."""
        self.running = False
        return self.events()


class Life:
    """One filesystem of `size_bytes` under a daemon; `rate` is what is written per second now."""

    def __init__(self, policy: GrowthPolicy, *, size_bytes: int = 100 * GIB) -> None:
        self.clock = LivingClock()
        self.mountpoint = "/scratch"
        self.policy = policy
        self.first_bytes = size_bytes
        self.volumes: list[int] = []
        self.used_bytes = 0.0
        self.rate = 0.0
        self.device_bytes_per_second: float | None = None
        self.start_seconds, self.growth_seconds = 1.0, 5.0
        self.enospc_at: list[float] = []
        self.decided: list[tuple[float, Grow, Reading]] = []
        self.held = 0
        self.looks = 0
        self.growths = SlowGrowths(self)
        self.monitor = Monitor(
            filesystem=self,
            growths=self.growths,
            policy=policy,
            clock=self.clock,
            emit=lambda _: None,
            publish=self._publish,
        )
        self.clock.life = self

    def _publish(self, _: View) -> None:
        self.looks += 1

    @property
    def size_bytes(self) -> int:
        """What there is, with all that was bought and came."""
        return self.first_bytes + sum(self.volumes)

    @property
    def available_bytes(self) -> float:
        """What can still be written."""
        return self.size_bytes - self.used_bytes

    def devices(self) -> tuple[Device, ...]:
        """Nothing is ever wrong with the devices."""
        return ()

    def live(self, seconds: float) -> None:
        """Let the loop run that long."""
        until = self.clock.now_seconds() + seconds
        while (left := until - self.clock.now_seconds()) > 0:
            self.clock.sleep(min(self.monitor.tick(), left))

    def pass_by(self, until: float) -> None:
        """Write, and let growths come on, up to this moment."""
        now = self.clock.now_seconds()
        while now < until:
            at = min(until, max(now, self.growths.next_at()))
            self._write((at - now) * self.rate, at)
            now = at
            if self.growths.next_at() <= now:
                self.growths.happen()

    def _write(self, count: float, at: float) -> None:
        if self.used_bytes + count > self.size_bytes:
            self.enospc_at.append(at)
        self.used_bytes = min(self.used_bytes + count, self.size_bytes)

    @contextmanager
    def opened(self) -> Iterator[OpenMount]:
        """Hold a mount open; the loop asks its statvfs, which any has."""
        with open_root() as mount:
            yield mount

    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:  # noqa: ARG002 -- as in Watched
        """Look, as the loop does."""
        return self.read()

    def read(self) -> Reading:
        """Look."""
        available = int(self.available_bytes)
        sizes = enumerate((self.first_bytes, *self.volumes), start=1)
        return Reading(
            filesystem=FILESYSTEM,
            mountpoint="/scratch",
            taken_at_seconds=self.clock.now_seconds(),
            size_bytes=self.size_bytes,
            available_bytes=available,
            used_bytes=int(self.used_bytes),
            statvfs_available_bytes=available,
            metadata_headroom_bytes=self.size_bytes,
            metadata_profile="single",
            devices=tuple(
                Device(devid=i, name=f"nvme{i - 1}n1", size_bytes=size, unallocated_bytes=0)
                for i, size in sizes
            ),
        )

    def observation(self) -> Observation:
        """What EC2 and the filesystem have."""
        volumes = tuple(
            Volume(id=f"vol-{i}", growth=GrowthId(FILESYSTEM, i), size_bytes=size, state="in-use")
            for i, size in enumerate(self.volumes, start=1)
        )
        inventory = Inventory(
            instance_id="i-1", volumes=volumes, device_names=frozenset(), slots_free=None
        )
        nodes = {volume.id: f"nvme{volume.growth.ordinal}n1" for volume in volumes}
        return Observation(reading=self.read(), inventory=inventory, nodes=nodes)
