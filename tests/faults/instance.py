"""An instance whose EC2 is the sandbox over HTTP; its devices and filesystem are simulated.

What a growth asks of EC2 is real down to the bytes on the wire; time passes only by waiting.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from ec2_sandbox.client import SandboxControl, VolumeSeen

from ebs_autoscale.model import GIB, Device, Reading, Rebalance, Volume
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.resize.growth import Outcome, grow_once
from ebs_autoscale.resize.ports import World
from ebs_autoscale.telemetry.events import Event, EventKind
from tests.contract.clouds import OverHttp
from tests.unit.samples import FILESYSTEM, reading_of


class BlockDevices:
    """One block device for each volume that EC2 has attached, named after the volume."""

    def __init__(self, control: SandboxControl) -> None:
        self._control = control

    def node_of(self, volume: Volume) -> str:
        """Its name while the volume is attached, else empty."""
        for seen in self._control.state().volumes:
            if seen.id == volume.id and seen.attachment_state == "attached":
                return f"node-{seen.id}"
        return ""

    def was_device_of(self, name: str, filesystem: str) -> bool:
        """Nothing is ever removed."""
        del name, filesystem
        return False

    def verified_blank(
        self, name: str, *, size_bytes: int, volume_id: str = ""
    ) -> AbstractContextManager[None]:
        """Everything is blank here."""
        del name, size_bytes, volume_id
        return nullcontext()

    def size_of(self, name: str) -> int:
        """Never needed."""
        raise AssertionError(name)

    def names_present(self) -> frozenset[str]:
        """No names but those that EC2 knows."""
        return frozenset()


@dataclass(slots=True)
class Filesystem:
    """A filesystem that is too small until it has enough devices; each is as large as can be."""

    devices: list[str] = field(default_factory=lambda: ["root"])
    enough: int = 2
    uuid: str = FILESYSTEM

    def read(self) -> Reading:
        """Full with too few devices, else half used."""
        size = 100 * len(self.devices)
        available = 1 if len(self.devices) < self.enough else size / 2
        devices = tuple(
            Device(devid=devid, name=name, size_bytes=1024 * GIB, unallocated_bytes=0)
            for devid, name in enumerate(self.devices, start=1)
        )
        return replace(reading_of(size, available, filesystem=self.uuid), devices=devices)

    def add_device(
        self,
        name: str,
        *,
        verified: Callable[[], AbstractContextManager[object]],
        tell: Callable[[str], None],
    ) -> None:
        """Make it a device, once."""
        del verified, tell
        if name not in self.devices:
            self.devices.append(name)

    def resize_device(self, name: str, *, tell: Callable[[str], None]) -> None:
        """Never needed."""
        del tell
        raise AssertionError(name)

    def require_growable(self) -> None:
        """It always is."""

    def verify_devices(self, volumes: Mapping[str, str]) -> None:
        """Every device is complete."""

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:
        """Metadata is always balanced."""
        del mode, newest
        return False

    def keep_reserve(self, data_bytes: int) -> str:
        """There is no reserve."""
        del data_bytes
        return ""

    def balance_metadata(
        self, mode: Rebalance, *, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> str:
        """There is nothing to balance."""
        del mode, stopping, tell
        return "nothing to balance"


class Instance:
    """Grows, process after process, whatever EC2 does."""

    def __init__(self, http: OverHttp) -> None:
        self.http = http
        self.filesystem = Filesystem()
        self.events: list[Event] = []

    def grow(self) -> Outcome:
        """Run one process that grows if needed."""
        world = World(
            cloud=self.http.cloud,
            block_devices=BlockDevices(self.http.control),
            filesystem=self.filesystem,
            clock=self.http.clock,
            emit=self.events.append,
        )
        return grow_once(world, GrowthPolicy(), Forecast())

    def grow_to_the_end(self, *, tries: int = 5) -> int:
        """Grow until there is enough space, waiting after each failure; returns the attempts."""
        for attempt in range(1, tries + 1):
            if self.grow() in {Outcome.DONE, Outcome.HELD}:
                return attempt
            self.http.clock.sleep(60)
        raise AssertionError([e.sentence for e in self.events if e.kind is EventKind.GROWTH_FAILED])

    def volumes(self) -> list[VolumeSeen]:
        """The volumes that growths created."""
        return [v for v in self.http.control.state().volumes if "ebs-autoscale:owner" in v.tags]
