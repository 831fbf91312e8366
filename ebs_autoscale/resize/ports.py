"""What a growth needs of the world: EC2, block devices, the filesystem, time, and a listener."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Problem
from ebs_autoscale.model import GrowthId, Inventory, Modification, Reading, Rebalance, Volume
from ebs_autoscale.telemetry import Event, EventKind, Level


class Cloud(Protocol):
    """EC2, as far as a growth needs it; every call raises Transient or Unfit."""

    def inventory(self, filesystem: str) -> Inventory:
        """What EC2 says about this instance and the volumes of the filesystem."""
        ...

    def owned(self) -> tuple[Volume, ...]:
        """The volumes of this instance, of all filesystems."""
        ...

    def create(self, growth: GrowthId, size_bytes: int, inventory: Inventory) -> Volume:
        """Create the growth's volume, once, however often it is asked for."""
        ...

    def refresh(self, volume: Volume) -> Volume | None:
        """The volume as it is now; None while EC2 does not show it."""
        ...

    def attach(self, volume: Volume, device_name: str, inventory: Inventory) -> None:
        """Begin to attach; raises NameTaken when another name is needed."""
        ...

    def enlarge(self, volume: Volume, size_bytes: int) -> Modification:
        """Begin to enlarge the volume to this size."""
        ...

    def with_modifications(self, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
        """The same volumes, each with its latest modification."""
        ...

    def predecessors(self) -> tuple[Volume, ...]:
        """Volumes that the older script made for this instance; they have no growth yet."""
        ...

    def claim(self, volume: Volume) -> None:
        """Tag the volume as ours, for its growth."""
        ...

    def detach(self, volume: Volume) -> None:
        """Begin to detach; done when it is detached already."""
        ...

    def delete(self, volume: Volume) -> None:
        """Delete a volume that is not attached; done when it is gone already."""
        ...

    def set_delete_on_termination(self, volume: Volume) -> None:
        """Have EC2 delete the attached volume together with the instance."""
        ...


class BlockDevices(Protocol):
    """The block devices of this host."""

    def node_of(self, volume: Volume) -> str:
        """Kernel name of the volume's verified block device, empty while there is none."""
        ...

    def size_of(self, name: str) -> int:
        """The size of the block device in bytes; 0 when there is none."""
        ...

    def verified_blank(
        self, name: str, *, size_bytes: int, volume_id: str = ""
    ) -> AbstractContextManager[object]:
        """Raise Unfit unless it is blank and unused; the name stays its own while entered."""
        ...

    def was_device_of(self, name: str, filesystem: str) -> bool:
        """Whether the filesystem with this UUID was on it, even if it was removed from it."""
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
        """Verify the mount and look; raises Unfit or Transient."""
        ...

    def require_growable(self) -> int | None:
        """Raise Unfit unless this host can use more space, wherever EC2 provides it.

        Its tools and rights, a partition table that can be extended, and the filesystem itself.
        Returns the size up to which a device can be used; None without a limit.
        """
        ...

    def verify_devices(self, volumes: Mapping[str, str]) -> None:
        """Raise Unfit while a device has no superblock, or an add of ours does not end."""
        ...

    def add_device(
        self,
        name: str,
        *,
        verified: Callable[[], AbstractContextManager[object]],
        tell: Callable[[str], None],
    ) -> None:
        """Add the block device, without force, while it is verified; done when it is added."""
        ...

    def resize_device(self, name: str, *, tell: Callable[[str], None]) -> str | None:
        """Extend this device to the size of its block device; done when it has it.

        Returns what the operator has to know of it, if anything.
        """
        ...

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:
        """Whether metadata is at risk on the devices there are; changes nothing."""
        ...

    def balance_metadata(
        self, mode: Rebalance, *, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> str:
        """Do what the mode asks for; returns a sentence saying what and why."""
        ...

    def keep_reserve(self, data_bytes: int) -> str:
        """Hold this much for emergencies; what was done, "" for nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything a growth touches."""

    cloud: Cloud
    block_devices: BlockDevices
    filesystem: Filesystem
    clock: Clock
    emit: Callable[[Event], None]
    rebalance: Rebalance = Rebalance.BOUNDED
    reserve_bytes: int | None = None
    delete_on_termination: bool = True
    adopt: bool = False
    find_copies: Callable[[str], list[Problem]] = lambda _: []

    def progress(self, volume: Volume, sentence: str) -> None:
        """Tell what is being waited for; shown by `status`, not logged."""
        self._emit(volume, EventKind.STEP_PROGRESS, sentence, level=Level.DEBUG)

    def tell(
        self, volume: Volume, sentence: str, *, cause: Cause | None = None, hint: str = ""
    ) -> None:
        """Tell what was done beside the plan; with a cause, a warning."""
        level = Level.WARNING if cause else Level.INFO
        self._emit(volume, EventKind.TENDED, sentence, level=level, cause=cause, hint=hint)

    def tell_throughput(self, volume: Volume, node: str) -> None:
        """Tell the most that a device of the filesystem takes, for the loop's forecast."""
        if volume.bytes_per_second is not None:
            self.emit(
                Event(
                    kind=EventKind.THROUGHPUT,
                    sentence=f"{node} is {volume.id}",
                    level=Level.DEBUG,
                    volume=volume.id,
                    device=node,
                    bytes_per_second=volume.bytes_per_second,
                )
            )

    def warn(self, volume: Volume, sentence: str, error: EbsAutoscaleError) -> None:
        """Tell what went wrong without ending the growth; `error` has the cause and the hint."""
        self._emit(
            volume,
            EventKind.WARNING,
            sentence,
            level=Level.WARNING,
            cause=error.cause,
            hint=error.hint,
        )

    def _emit(
        self,
        volume: Volume,
        kind: EventKind,
        sentence: str,
        *,
        level: Level,
        cause: Cause | None = None,
        hint: str = "",
    ) -> None:
        self.emit(
            Event(
                kind=kind,
                sentence=sentence,
                level=level,
                cause=cause,
                hint=hint,
                volume=volume.id,
                growth=str(volume.growth),
            )
        )
