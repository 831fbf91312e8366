"""The nouns: readings, volumes, decisions, steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A device in the filesystem, as the kernel sees it now.

    `name` is the kernel's name of the node (`nvme1n1`), empty for a missing member.
    `errors` counts failed writes, reads, flushes, corrupted blocks, and blocks of another
    generation, in this order.
    """

    devid: int
    name: str
    size_bytes: int
    unallocated_bytes: int
    missing: bool = False
    errors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the filesystem; valid for the moment it was taken.

    `available_bytes` is what programs can still write: free space in allocated
    data chunks, minus what is reserved or dirty, plus what can still be allocated.
    `used_bytes` is what they have written or reserved, dirty bytes included; a growth
    does not change it.
    `statvfs_available_bytes` is the figure `df` shows, up to 38 s late under buffered writes.
    `metadata_headroom_bytes` is what metadata can still take; ENOSPC comes near 4 MiB.
    `reserve_bytes` is the data held for emergencies: used space, in no figure of what is available.
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
    members: tuple[Member, ...]
    reserve_bytes: int = 0

    @property
    def available_percent(self) -> float:
        """Share of the filesystem's size that is available, 0 to 100."""
        return 100 * self.available_bytes / self.size_bytes if self.size_bytes else 0.0

    def has_member(self, name: str) -> bool:
        """Whether the node with this kernel name is in the filesystem now."""
        return any(member.name == name and not member.missing for member in self.members)


@dataclass(frozen=True, slots=True, order=True)
class GrowthId:
    """The name of one growth, known before anything of it exists (law 4)."""

    filesystem: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.filesystem[:8]}-{self.ordinal}"


class Stage(StrEnum):
    """How far a growth has come; derived from the world, never stored."""

    ABSENT = "absent"
    CREATED = "created"
    ATTACHED = "attached"
    MEMBER = "member"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """An EBS volume that carries our three owner tags, in EC2's view.

    `node` is the kernel name of its verified block device on this host, empty
    while there is none. `attached_to` is an instance id, empty when detached.
    """

    id: str
    growth: GrowthId
    size_bytes: int
    state: str
    attached_to: str = ""
    device_name: str = ""
    attachment_state: str = ""
    delete_on_termination: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What EC2 says belongs to this filesystem on this instance.

    `volumes` have our three owner tags and this filesystem; `device_names` are all
    names taken on the instance in EC2's view, ours or not. `slots_free` is None
    when the instance type's limit is not known. `metadata_settled` is the filesystem's
    answer, asked for together with EC2's because both are dear.
    """

    instance_id: str
    volumes: tuple[Volume, ...]
    device_names: frozenset[str]
    slots_free: int | None
    seconds_since_last_create: float | None = None
    metadata_settled: bool = True

    @property
    def managed_bytes(self) -> int:
        """Total size of our volumes, in whatever state they are billed."""
        return sum(volume.size_bytes for volume in self.volumes)


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


class Rebalance(StrEnum):
    """How metadata is settled after an add: the least that protects, the seed's way, or not."""

    BOUNDED = "bounded"
    FULL = "full"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """What kind of volume a growth buys; None leaves the choice to EC2's default for the type."""

    type: str = "gp3"
    iops: int | None = None
    throughput_mib_per_second: int | None = None
    encrypted: bool = True
    kms_key_id: str | None = None
    delete_on_termination: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    copy_instance_tags: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing to do."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow:
    """Start a new growth."""

    growth: GrowthId
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Complete a growth that an earlier run left half-way, with the volume that it has."""

    growth: GrowthId
    volume_id: str
    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """A growth is needed but a limit forbids it; `limit` is the key that does."""

    limit: str
    reason: str
    hint: str


Decision = Hold | Grow | Finish | Refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume:
    """Buy the volume, tagged and encrypted; the same call twice yields one volume."""

    growth: GrowthId
    size_bytes: int

    @property
    def title(self) -> str:
        """What an operator calls this step."""
        return f"create a volume of {self.size_bytes // GIB} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachVolume:
    """Attach it, set DeleteOnTermination, and see both confirmed."""

    growth: GrowthId

    @property
    def title(self) -> str:
        """What an operator calls this step."""
        return "attach the volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDevice:
    """Prove the node right and blank, add it to the filesystem, see it there."""

    growth: GrowthId

    @property
    def title(self) -> str:
        """What an operator calls this step."""
        return "add the device to the filesystem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Make metadata safe on the members there are now; safe to repeat."""

    growth: GrowthId

    @property
    def title(self) -> str:
        """What an operator calls this step."""
        return "settle metadata"


Step = CreateVolume | AttachVolume | AddDevice | Settle
