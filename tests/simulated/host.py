"""An instance's block devices and its filesystem, in memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from ebs_autoscale.errors import Cause, Stopped, Unfit
from ebs_autoscale.model import GIB, Device, FilesystemKind, Reading, Rebalance, Volume
from tests.simulated.clock import Boundaries, SimulatedClock
from tests.simulated.cloud import INSTANCE, SimulatedCloud, node_name

FILESYSTEM = "6a92f8de-0000-4000-8000-000000000001"


class SimulatedBlockDevices:
    """The block devices of the instance: one for each volume attached to it, a little later."""

    def __init__(self, clock: SimulatedClock, cloud: SimulatedCloud) -> None:
        self._clock = clock
        self._cloud = cloud
        self.mapped_names: frozenset[str] = frozenset()
        self.sizes: dict[str, int] = {}

    def node_of(self, volume: Volume) -> str:
        """Its kernel name, empty while there is none."""
        ebs = self._cloud.find(volume.id)
        here = self._clock.now_seconds() >= ebs.attached_at + self._cloud.latencies.node
        here = here and ebs.device_name not in self._cloud.hanging_names
        return node_name(ebs) if ebs.attached_to == INSTANCE and here else ""

    def size_of(self, name: str) -> int:
        """The size of the block device, 0 when there is none."""
        if name not in {node_name(v) for v in self._cloud.volumes}:
            return 0
        ebs = next(v for v in self._cloud.volumes if node_name(v) == name)
        return self.sizes.get(name, self._cloud.size_of(ebs))

    def require_blank(self, name: str, *, size_bytes: int) -> None:
        """Raise Unfit for what is not blank, or has another size."""
        ebs = next(v for v in self._cloud.volumes if node_name(v) == name)
        if not ebs.blank:
            raise Unfit(f"{name} has a signature", cause=Cause.NOT_BLANK)
        if (size := self.sizes.get(name, ebs.size_bytes)) != size_bytes:
            raise Unfit(f"{name} has {size} bytes", cause=Cause.SIZE)

    @contextmanager
    def verified_blank(self, name: str, *, size_bytes: int, volume_id: str = "") -> Iterator[None]:  # noqa: ARG002 -- as in BlockDevices
        """The same, while it is entered."""
        self.require_blank(name, size_bytes=size_bytes)
        yield

    def was_device_of(self, name: str, filesystem: str) -> bool:  # noqa: ARG002 -- there is only one
        """Whether it was removed from the filesystem."""
        return next(v for v in self._cloud.volumes if node_name(v) == name).removed

    def names_present(self) -> frozenset[str]:
        """Names in /dev that EC2 need not know of."""
        return self.mapped_names


class SimulatedFilesystem:
    """A mounted filesystem: devices, what is used, and whether metadata is balanced."""

    def __init__(
        self,
        clock: SimulatedClock,
        cloud: SimulatedCloud,
        boundaries: Boundaries,
        block_devices: SimulatedBlockDevices,
    ) -> None:
        self._clock = clock
        self._block_devices = block_devices
        self._cloud = cloud
        self._at = boundaries
        self.devices: dict[str, int] = {"nvme0n1p1": 100 * GIB}
        self.used_bytes = 0
        self.kind = FilesystemKind.BTRFS
        self.metadata_headroom_bytes = 10 * GIB
        self.balanced = True
        self.reserve_bytes = 0
        self.balance_seconds = 0.0
        self.read_only = False
        self.lost = False
        self.unwritten: set[str] = set()
        self.not_growable: Unfit | None = None
        self.usable_bytes: int | None = None

    @property
    def uuid(self) -> str:
        """Its UUID."""
        return FILESYSTEM

    @property
    def size_bytes(self) -> int:
        """What its devices have together."""
        return sum(self.devices.values())

    def read(self) -> Reading:
        """Verify the mount and look."""
        with self._at.call("read"):
            if self.read_only:
                raise Unfit("/scratch is read-only", cause=Cause.READ_ONLY)
            devices = enumerate(self.devices.items(), start=1)
            is_btrfs = self.kind is FilesystemKind.BTRFS
            available = max(0, self.size_bytes - self.used_bytes)
            return Reading(
                filesystem=FILESYSTEM,
                mountpoint="/scratch",
                taken_at_seconds=self._clock.now_seconds(),
                size_bytes=self.size_bytes,
                available_bytes=available,
                used_bytes=self.used_bytes,
                statvfs_available_bytes=available,
                metadata_headroom_bytes=self.metadata_headroom_bytes if is_btrfs else None,
                metadata_profile="single" if is_btrfs else "",
                kind=self.kind,
                reserve_bytes=self.reserve_bytes,
                devices=tuple(
                    Device(
                        devid=devid,
                        name=name,
                        size_bytes=size,
                        unallocated_bytes=0,
                        missing=self.lost and devid == 1,
                        capacity_bytes=self._block_devices.size_of(name) or size,
                    )
                    for devid, (name, size) in devices
                ),
            )

    def require_growable(self) -> int | None:
        """Raise Unfit where the host can use no more space; else how much of a device."""
        if self.not_growable:
            raise self.not_growable
        return self.usable_bytes

    def verify_devices(self, volumes: Mapping[str, str]) -> None:
        """Raise Unfit for a device without superblock."""
        for name in self.unwritten & self.devices.keys():
            what = f"{name} ({volumes.get(name)}) has no superblock"
            raise Unfit(what, cause=Cause.INCOMPLETE_ADD)

    def add_device(
        self,
        name: str,
        *,
        verified: Callable[[], AbstractContextManager[object]],
        tell: Callable[[str], None],
    ) -> None:
        """Make the node a device; metadata is unbalanced from there on."""
        if name in self.devices:
            return
        tell("adding")
        with verified():
            pass
        with self._at.call("add_device"):
            ebs = next(v for v in self._cloud.volumes if node_name(v) == name)
            self.balanced = self.balanced and name in self.devices
            self.devices[name] = ebs.size_bytes

    def resize_device(self, name: str, *, tell: Callable[[str], None]) -> None:
        """Extend it; metadata may want to be there too."""
        tell("extending")
        with self._at.call("resize_device"):
            size = self._block_devices.size_of(name)
            assert size >= self.devices[name]
            self.devices[name] = size

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:
        """Whether metadata is at risk; only devices can be asked about."""
        assert newest in self.devices
        return mode is not Rebalance.OFF and not self.balanced

    def keep_reserve(self, data_bytes: int) -> str:
        """Hold so much."""
        with self._at.call("keep_reserve"):
            self.used_bytes += data_bytes - self.reserve_bytes
            self.reserve_bytes = data_bytes
            return f"holds {data_bytes}"

    def balance_metadata(
        self, mode: Rebalance, *, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> str:
        """Take as long as it takes, unless a stop is requested."""
        tell("balancing")
        with self._at.call("balance_metadata"):
            until = self._clock.now_seconds() + self.balance_seconds
            while self._clock.now_seconds() < until:
                if stopping():
                    raise Stopped
                self._clock.sleep(0.2)
            self.balanced = self.balanced or mode is not Rebalance.OFF
            return "balanced metadata"
