"""Volumes and instances as EC2 describes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ebs_autoscale.model.growth import GrowthId
from ebs_autoscale.model.sizes import GIB

# EC2 volumes in these states are gone or can never be used again.
DEAD_VOLUME_STATES = frozenset({"deleting", "deleted", "error"})


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
    `adopted` is whether it was in use before it was tagged as ours: whether it is deleted with the
    instance, or at all, stays the operator's decision.
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
    adopted: bool = False
    usd_per_month: float | None = None
    usd_per_gib: float | None = None
    bytes_per_second: float | None = None
    largest_bytes: int = 0
    modification: Modification | None = None
    age_seconds: float | None = field(default=None, compare=False)

    def limited(self, size_bytes: int) -> "Volume":
        """The same, as one that cannot be enlarged beyond this size, or beyond its own."""
        return replace(
            self, largest_bytes=min(self.largest_bytes, max(size_bytes, self.size_bytes))
        )

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
