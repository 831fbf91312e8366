"""What the core needs of the world: EC2, block devices, the filesystem, growths, time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ebs_autoscale.clock import Clock
from ebs_autoscale.model import GrowthId, Inventory, Reading, Rebalance, Volume
from ebs_autoscale.policy.shortage import Forecast
from ebs_autoscale.telemetry.events import Event, EventKind, Level


class Cloud(Protocol):
    """EC2, as far as a growth needs it."""

    def inventory(self, filesystem: str) -> Inventory:
        """What belongs to the filesystem; raises Transient or Unfit."""
        ...

    def create(self, growth: GrowthId, size_bytes: int) -> Volume:
        """Buy the growth's volume once, however often it is asked for."""
        ...

    def refresh(self, volume: Volume) -> Volume | None:
        """The volume as it is now; None while EC2 does not show it."""
        ...

    def attach(self, volume: Volume, device_name: str) -> None:
        """Begin to attach; raises NameTaken when another name is needed."""
        ...

    def predecessors(self) -> tuple[Volume, ...]:
        """Volumes that an older autoscaler made for this instance; their growth is void."""
        ...

    def claim(self, volume: Volume) -> None:
        """Make the volume ours, as this growth."""
        ...

    def detach(self, volume: Volume) -> None:
        """Begin to detach a volume that never came to us; done when it is detached."""
        ...

    def delete(self, volume: Volume) -> None:
        """Delete a volume that was never attached; raises when it is anything else by now."""
        ...

    def delete_on_termination(self, volume: Volume) -> None:
        """Tie the attached volume's life to the instance's."""
        ...


class Nodes(Protocol):
    """The block devices of this host."""

    def node_of(self, volume: Volume) -> str:
        """Kernel name of the volume's proved node, empty while there is none."""
        ...

    def proved_blank(self, name: str, *, size_bytes: int) -> AbstractContextManager[object]:
        """Raise Unfit unless nothing is on it or uses it; the name stays its own meanwhile."""
        ...

    def names_present(self) -> frozenset[str]:
        """Xen-style names that exist on the host."""
        ...


class Filesystem(Protocol):
    """The filesystem that grows."""

    @property
    def uuid(self) -> str:
        """Its UUID."""
        ...

    def read(self) -> Reading:
        """Prove the mount and look; raises Unfit."""
        ...

    def add_device(
        self,
        name: str,
        *,
        proof: Callable[[], AbstractContextManager[object]],
        tell: Callable[[str], None],
    ) -> None:
        """Make the node a member, without force, under the proof; done when it is one already."""
        ...

    def needs_settling(self, mode: Rebalance, newest: str) -> bool:
        """Whether metadata is at risk on the members there are."""
        ...

    def settle(
        self, mode: Rebalance, *, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> str:
        """Do what the mode asks for; returns a sentence saying what and why."""
        ...

    def keep_reserve(self, data_bytes: int) -> str:
        """Hold this much for emergencies; what was done, "" for nothing."""
        ...


class Watched(Protocol):
    """The filesystem as the loop sees it."""

    def read(self) -> Reading:
        """Prove the mount and look; raises Unfit or Transient."""
        ...


class Growths(Protocol):
    """Growths, which run beside the loop one at a time."""

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        ...

    @property
    def settling(self) -> bool:
        """Whether the running one has already made its space usable."""
        ...

    @property
    def step(self) -> str:
        """The step it is in."""
        ...

    def start(self, forecast: Forecast) -> None:
        """Begin one; raises LockHeld or Unfit."""
        ...

    def events(self) -> list[Event]:
        """What it said since the last call."""
        ...

    def stop(self) -> None:
        """Ask it to end early."""
        ...

    def close(self) -> list[Event]:
        """End it, wait for it, and return its last words."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything a growth touches."""

    cloud: Cloud
    nodes: Nodes
    filesystem: Filesystem
    clock: Clock
    emit: Callable[[Event], None]
    rebalance: Rebalance = Rebalance.BOUNDED
    reserve_bytes: int | None = None
    delete_on_termination: bool = True
    adopt: bool = False

    def progress(self, volume: Volume, sentence: str) -> None:
        """Tell what is being waited for; shown by `status`, not logged."""
        fields = {"volume": volume.id, "growth": str(volume.growth)}
        kind = EventKind.STEP_PROGRESS
        self.emit(Event(kind=kind, sentence=sentence, level=Level.DEBUG, fields=fields))

    def tell(self, volume: Volume, sentence: str) -> None:
        """Tell what was done beside the plan."""
        fields = {"volume": volume.id, "growth": str(volume.growth)}
        self.emit(Event(kind=EventKind.TENDED, sentence=sentence, fields=fields))

    def warn(self, volume: Volume, sentence: str, cause: str) -> None:
        """Tell what went wrong without ending the growth."""
        fields = {"volume": volume.id, "growth": str(volume.growth), "cause": cause}
        kind = EventKind.WARNING
        self.emit(Event(kind=kind, sentence=sentence, level=Level.WARNING, fields=fields))
