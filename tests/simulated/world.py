"""A whole world in memory that keeps the promises of the ports."""

from dataclasses import dataclass, field
from math import inf

from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.model import Rebalance
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.resize.growth import Outcome, grow_once
from ebs_autoscale.resize.ports import World
from ebs_autoscale.telemetry.events import Event, EventKind
from tests.simulated.clock import Boundaries, Fault, SimulatedClock
from tests.simulated.cloud import SimulatedCloud
from tests.simulated.host import SimulatedBlockDevices, SimulatedFilesystem


@dataclass(slots=True)
class SimulatedWorld:
    """All ports at once, and what was told; `grow` is one run of a process."""

    clock: SimulatedClock = field(default_factory=SimulatedClock)
    at: Boundaries = field(default_factory=Boundaries)
    cloud: SimulatedCloud = field(init=False)
    block_devices: SimulatedBlockDevices = field(init=False)
    filesystem: SimulatedFilesystem = field(init=False)
    events: list[Event] = field(default_factory=list)
    rebalance: Rebalance = Rebalance.BOUNDED
    # Most stories are told without it: what is used is then what somebody wrote.
    reserve_bytes: int | None = 0
    delete_on_termination: bool = True
    adopt: bool = False

    def __post_init__(self) -> None:
        self.cloud = SimulatedCloud(self.clock, self.at)
        self.block_devices = SimulatedBlockDevices(self.clock, self.cloud)
        self.filesystem = SimulatedFilesystem(self.clock, self.cloud, self.at, self.block_devices)

    def ports(self) -> World:
        """The world as a growth sees it."""
        return World(
            cloud=self.cloud,
            block_devices=self.block_devices,
            filesystem=self.filesystem,
            clock=self.clock,
            emit=self.events.append,
            rebalance=self.rebalance,
            reserve_bytes=self.reserve_bytes,
            delete_on_termination=self.delete_on_termination,
            adopt=self.adopt,
        )

    def fill(self, percent: float) -> None:
        """Use that share of the filesystem."""
        self.filesystem.used_bytes = int(self.filesystem.size_bytes * percent / 100)

    def fail(
        self, call: str, error: EbsAutoscaleError, *, answer_lost: bool = False, times: float = 1
    ) -> None:
        """Let the next calls of this name go wrong."""
        self.at.faults.append(Fault(call=call, error=error, answer_lost=answer_lost, times=times))

    def grow(self, policy: GrowthPolicy | None = None, wanted_bytes: int | None = None) -> Outcome:
        """Be one process that grows if that is needed, or wanted."""
        return grow_once(self.ports(), policy or GrowthPolicy(), Forecast(), wanted_bytes)

    def restart(self) -> "SimulatedWorld":
        """A new process in the same world."""
        self.clock.start_again()
        self.at.kill_at = inf
        return self

    def told(self, kind: EventKind) -> list[str]:
        """The lines of one kind, in order."""
        return [event.line for event in self.events if event.kind is kind]

    def steps(self, kind: EventKind = EventKind.STEP_STARTED) -> list[str]:
        """The steps that events of one kind name, in order."""
        return [event.step.value for event in self.events if event.kind is kind and event.step]

    def causes(self, kind: EventKind) -> list[str]:
        """The causes of one kind, in order."""
        return [e.cause.value for e in self.events if e.kind is kind and e.cause]
