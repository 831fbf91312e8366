"""The data types: readings, volumes, observations, decisions, steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar

from ebs_autoscale.errors import Cause

MIB = 1024**2
GIB = 1024**3

# mkfs.btrfs and a resize leave less than a sector group; a volume is enlarged by GiB.
SLACK_BYTES = 64 * MIB
SYSFS_SECTOR_BYTES = 512  # whatever the sector size of the device

# EC2 volumes in these states are gone or can never be used again.
DEAD_VOLUME_STATES = frozenset({"deleting", "deleted", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the filesystem, as the kernel sees it now.

    `name` is the kernel's name of the block device (`nvme1n1`), empty when it is not known.
    `missing` is whether the kernel has no such block device any more, `writable` whether it
    allocates chunks on it: not on a seed device. `errors` counts failed writes, reads and flushes,
    corrupted blocks, and blocks of another generation, in this order. `capacity_bytes` is the size
    of the block device, 0 when it is not known.
    """

    devid: int
    name: str
    size_bytes: int
    unallocated_bytes: int
    missing: bool = False
    writable: bool = True
    errors: tuple[int, ...] = ()
    capacity_bytes: int = 0

    @property
    def label(self) -> str:
        """The kernel's name, or the devid if there is none."""
        return self.name or f"devid {self.devid}"

    @property
    def unused_bytes(self) -> int:
        """How much of its block device, which became larger, the filesystem does not use."""
        left = 0 if self.missing else self.capacity_bytes - self.size_bytes
        return left if left >= SLACK_BYTES else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit of a quota group (`0/256`) of BTRFS; programs get EDQUOT when nothing is left."""

    qgroup: str
    limit_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the filesystem; valid for the moment it was taken.

    `available_bytes` is what programs can still write: free space in allocated
    data chunks, minus what is reserved or dirty, plus what can still be allocated.
    `used_bytes` is what they have written or reserved, dirty bytes included; a growth
    does not change it.
    `dirty_bytes` of these wait in the page cache; it takes up to `cache_bytes` of all filesystems
    before it makes writers wait for the devices.
    `statvfs_available_bytes` is the figure `df` shows, up to 38 s late under buffered writes.
    `metadata_headroom_bytes` is what metadata can still take; ENOSPC comes near 4 MiB.
    `reserve_bytes` is the data held for emergencies: it counts as used, never as available.
    `quota` is the limit, other than space, that is nearest; None without one.
    `reserve_fault` is why the file of the reserve's name holds none, empty when there is no file.
    """

    filesystem: str
    mountpoint: str
    taken_at_seconds: float
    size_bytes: int
    available_bytes: int
    used_bytes: int
    statvfs_available_bytes: int
    metadata_headroom_bytes: int
    metadata_profile: str
    devices: tuple[Device, ...]
    dirty_bytes: int = 0
    cache_bytes: int = 0
    reserve_bytes: int = 0
    quota: Quota | None = None
    reserve_fault: str = ""

    @property
    def available_percent(self) -> float:
        """Share of the filesystem's size that is available, 0 to 100."""
        return 100 * self.available_bytes / self.size_bytes if self.size_bytes else 0.0

    def has_device(self, name: str) -> bool:
        """Whether the block device with this kernel name is in the filesystem now."""
        return any(device.name == name and not device.missing for device in self.devices)


@dataclass(frozen=True, slots=True, order=True)
class GrowthId:
    """The name of one growth, known before anything of it exists (law 4)."""

    filesystem: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.filesystem[:8]}-{self.ordinal}"


@dataclass(frozen=True, slots=True, order=True)
class Enlargement:
    """The name of a growth that enlarges an earlier one's volume; absolute, so safe to repeat."""

    growth: GrowthId
    target_bytes: int

    def __str__(self) -> str:
        return f"{self.growth}@{self.target_bytes // GIB}GiB"


class Stage(StrEnum):
    """How far a growth has come; derived from EC2 and the kernel, never stored.

    One that enlarges a volume is modifying until the block device shows the new size, and enlarged
    until the filesystem uses it.
    """

    CREATED = "created"
    ATTACHED = "attached"
    ADDED = "added"
    BALANCED = "balanced"
    MODIFYING = "modifying"
    ENLARGED = "enlarged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modification:
    """The latest modification of a volume, as EC2 keeps it.

    The new size can be used once it is no longer `modifying`; before it is `completed` there is no
    other. Source: https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-modifications.html
    """

    state: str
    target_bytes: int
    age_seconds: float | None = field(default=None, compare=False)

    @property
    def is_modifying(self) -> bool:
        """Whether the new size cannot be used yet."""
        return self.state == "modifying"

    @property
    def is_running(self) -> bool:
        """Whether EC2 refuses another one; a failed one is to be tried again."""
        return self.state not in {"completed", "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """An EBS volume as EC2 describes it; `attached_to` is an instance id, empty when detached.

    `foreign` is why no growth can have created it, such as `restored from snap-1`, else empty.
    `usd_per_month` is an estimate at list price, `usd_per_gib` what a GiB more costs,
    `bytes_per_second` the most that it takes, all None for a type that is not known.
    `largest_bytes` is the most that it can be enlarged to, 0 if not at all. `modification` is None
    where there was none, or EC2 was not asked.
    """

    id: str
    growth: GrowthId
    size_bytes: int
    state: str
    attached_to: str = ""
    device_name: str = ""
    attachment_state: str = ""
    delete_on_termination: bool = False
    foreign: str = ""
    usd_per_month: float | None = None
    usd_per_gib: float | None = None
    bytes_per_second: float | None = None
    largest_bytes: int = 0
    modification: Modification | None = None
    age_seconds: float | None = field(default=None, compare=False)

    def enlarged(self, size_bytes: int) -> "Volume":
        """The same with this size, if it is smaller; no faster than in proportion."""
        size_bytes, usd, rate = max(size_bytes, self.size_bytes), None, self.bytes_per_second
        if self.usd_per_month is not None and self.usd_per_gib is not None:
            added = (size_bytes - self.size_bytes) / GIB
            usd = self.usd_per_month + added * self.usd_per_gib
        rate = rate and rate * size_bytes / self.size_bytes
        return replace(self, size_bytes=size_bytes, usd_per_month=usd, bytes_per_second=rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What volumes of one kind cost, an estimate: US dollars a month, linear in their size.

    `usd_fixed` is for provisioned IOPS and throughput, `basis` says whose prices these are.
    """

    usd_per_gib: float
    usd_fixed: float = 0.0
    basis: str = "at list price"

    def usd_per_month(self, size_bytes: int) -> float:
        """What a volume of this size costs."""
        return self.usd_fixed + size_bytes / GIB * self.usd_per_gib

    def words(self, size_bytes: int) -> str:
        """The same for people."""
        return f"about {self.usd_per_month(size_bytes):.2f} USD a month {self.basis}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What EC2 says about this instance and the volumes of one filesystem.

    `volumes` have our three owner tags and this filesystem; `device_names` are all names taken
    on the instance, ours or not. `slots_free` is None when the instance type's limit is not known.
    `cards` are the EBS cards, least loaded first, empty when the type has only one. `price` is that
    of a new volume, None where it was not asked for.
    `outpost_arn` is empty for an instance in an AWS Region. `shows_modifications` is whether EC2
    was asked for those of the volumes.
    """

    instance_id: str
    volumes: tuple[Volume, ...]
    device_names: frozenset[str]
    slots_free: int | None
    price: Price | None = None
    cards: tuple[int, ...] = ()
    instance_tags: Mapping[str, str] = field(default_factory=dict)
    outpost_arn: str = ""
    shows_modifications: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The filesystem, EC2, and what joins them, at one moment.

    `nodes` maps the id of an attached volume to the kernel name of its verified block device.
    `metadata_balanced` is whether metadata has room on enough devices.
    """

    reading: Reading
    inventory: Inventory
    nodes: Mapping[str, str] = field(default_factory=dict)
    metadata_balanced: bool = True

    def is_device(self, volume: Volume) -> bool:
        """Whether this volume is a device of the filesystem now."""
        return self.device_of(volume) is not None

    def device_of(self, volume: Volume) -> Device | None:
        """The device of the filesystem that this volume is now; None if it is none."""
        node = self.nodes.get(volume.id)
        found = (each for each in self.reading.devices if each.name == node and not each.missing)
        return next(found, None) if node else None

    def with_volumes(self, *volumes: Volume) -> "Observation":
        """The same with these volumes in the place of those of the same id."""
        newer = {volume.id: volume for volume in volumes}
        found = tuple(newer.get(volume.id, volume) for volume in self.inventory.volumes)
        return replace(self, inventory=replace(self.inventory, volumes=found))

    @property
    def newest_device(self) -> Volume | None:
        """The volume of the newest growth that is a device of the filesystem."""
        added = [volume for volume in self.inventory.volumes if self.is_device(volume)]
        return max(added, key=lambda volume: volume.growth, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which instance this is, from its identity document; the type may change over a stop."""

    instance_id: str
    instance_type: str
    region: str
    availability_zone: str
    account_id: str
    partition: str = "aws"

    @property
    def owner(self) -> str:
        """The instance's ARN: the value of the owner tag, and of `ec2:SourceInstanceARN` in IAM."""
        return (
            f"arn:{self.partition}:ec2:{self.region}:{self.account_id}:instance/{self.instance_id}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleCredentials:
    """The credentials of the instance's role; they expire at that many seconds of the epoch."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at_seconds: float


class Rebalance(StrEnum):
    """What to balance after an add: the least that protects metadata, all metadata, or nothing."""

    BOUNDED = "bounded"
    FULL = "full"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """What kind of volume a growth creates; None leaves the choice to EC2's default.

    `price_factor` is what the operator pays as a multiple of the list price.
    """

    type: str = "gp3"
    iops: int | None = None
    throughput_mib_per_second: int | None = None
    encrypted: bool = True
    kms_key_id: str | None = None
    delete_on_termination: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    copy_instance_tags: bool = False
    price_factor: float = 1.0


class DecisionKind(StrEnum):
    """The kinds of decisions, as events and `plan --json` name them."""

    HOLD = "hold"
    GROW = "grow"
    ENLARGE = "enlarge"
    FINISH = "finish"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing to do."""

    kind: ClassVar = DecisionKind.HOLD
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow:
    """Start a new growth; `usd_per_month` is what its volume costs, None where it is not known."""

    kind: ClassVar = DecisionKind.GROW
    growth: GrowthId
    size_bytes: int
    reason: str
    usd_per_month: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlarge:
    """Enlarge a volume that is a device; `instead_of_new` because there can be no new one."""

    kind: ClassVar = DecisionKind.ENLARGE
    volume: Volume
    target_bytes: int
    reason: str
    instead_of_new: bool = False
    usd_per_month: float | None = None

    @property
    def growth(self) -> Enlargement:
        """The name of this growth."""
        return Enlargement(self.volume.growth, self.target_bytes)

    @property
    def size_bytes(self) -> int:
        """How much is added."""
        return self.target_bytes - self.volume.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Complete a growth that an earlier run left unfinished, with the volume that it has.

    Also the enlargement of a volume by somebody else.
    """

    kind: ClassVar = DecisionKind.FINISH
    growth: GrowthId | Enlargement
    volume_id: str
    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """A growth is needed but a limit forbids it; the cause's value is the key of that limit."""

    kind: ClassVar = DecisionKind.REFUSE
    limit: Cause
    reason: str
    hint: str


Decision = Hold | Grow | Enlarge | Finish | Refuse


class StepKind(StrEnum):
    """The kinds of steps, as events and the status file name them."""

    CREATE_VOLUME = "CreateVolume"
    ATTACH_VOLUME = "AttachVolume"
    ADD_DEVICE = "AddDevice"
    ENLARGE_VOLUME = "EnlargeVolume"
    RESIZE_DEVICE = "ResizeDevice"
    BALANCE_METADATA = "BalanceMetadata"


class InitStep(StrEnum):
    """What `init` does to a host besides creating and attaching the first volume."""

    FORMAT = "Format"
    FSTAB = "Fstab"
    MOUNT = "Mount"
    CONFIGURE = "Configure"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume:
    """Create the volume, tagged and encrypted; the same call twice yields one volume."""

    kind: ClassVar = StepKind.CREATE_VOLUME
    growth: GrowthId
    size_bytes: int

    @property
    def title(self) -> str:
        """What an operator calls this step."""
        return f"create a volume of {self.size_bytes // GIB} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachVolume:
    """Attach it, set DeleteOnTermination, and confirm both."""

    kind: ClassVar = StepKind.ATTACH_VOLUME
    title: ClassVar = "attach the volume"
    growth: GrowthId


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDevice:
    """Verify that the block device is the right one and blank, add it, see it in the filesystem."""

    kind: ClassVar = StepKind.ADD_DEVICE
    title: ClassVar = "add the device to the filesystem"
    growth: GrowthId


@dataclass(frozen=True, slots=True, kw_only=True)
class EnlargeVolume:
    """Have EC2 enlarge the volume to the growth's size, until that can be used; safe to repeat."""

    kind: ClassVar = StepKind.ENLARGE_VOLUME
    growth: Enlargement

    @property
    def title(self) -> str:
        """What an operator calls this step."""
        return f"enlarge the volume to {self.growth.target_bytes // GIB} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeDevice:
    """Extend the device in the filesystem to the size of its block device; safe to repeat."""

    kind: ClassVar = StepKind.RESIZE_DEVICE
    title: ClassVar = "extend the filesystem to the size of the volume"
    growth: Enlargement


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceMetadata:
    """Make metadata safe on the devices there are now; safe to repeat."""

    kind: ClassVar = StepKind.BALANCE_METADATA
    title: ClassVar = "balance metadata"
    growth: GrowthId | Enlargement


Step = CreateVolume | AttachVolume | AddDevice | EnlargeVolume | ResizeDevice | BalanceMetadata
