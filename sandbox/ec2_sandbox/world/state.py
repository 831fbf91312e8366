"""The simulated account: its volumes, its one instance and its client tokens."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from random import Random
from threading import Condition
from typing import Any

from ec2_sandbox.devices.block_devices import BlockDevicePort
from ec2_sandbox.errors import ApiError
from ec2_sandbox.iam.policy import Policy
from ec2_sandbox.settings import SandboxSettings, Span
from ec2_sandbox.world.clock import SandboxClock, Timeline
from ec2_sandbox.world.credentials import RoleCredentials

_GIB = 1024**3


class VolumeState(StrEnum):
    """VolumeState of the EC2 API; after `deleting` the volume is gone, `error` is for good."""

    CREATING = "creating"
    AVAILABLE = "available"
    IN_USE = "in-use"
    DELETING = "deleting"
    ERROR = "error"


class AttachmentState(StrEnum):
    """VolumeAttachmentState of the EC2 API; `busy` is a detach while the device is in use."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    BUSY = "busy"


class ModificationState(StrEnum):
    """VolumeModificationState of the EC2 API; a new size is usable from `optimizing` on."""

    MODIFYING = "modifying"
    OPTIMIZING = "optimizing"
    COMPLETED = "completed"
    FAILED = "failed"


class InstanceState(StrEnum):
    """InstanceStateName of the EC2 API, as far as it is simulated."""

    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


@dataclass(slots=True, kw_only=True)
class Attachment:
    """The attachment of a volume to the instance; times are seconds of the sandbox clock."""

    device: str
    attached_at: float
    state: AttachmentState = AttachmentState.ATTACHING
    delete_on_termination: bool = False
    card: int = 0


@dataclass(slots=True, kw_only=True)
class Shape:
    """The properties that ModifyVolume can change."""

    type: str
    size_gib: int
    iops: int | None
    throughput: int | None


@dataclass(slots=True, kw_only=True)
class Modification:
    """A modification of a volume; calls see it from `visible_at`, and its size from `shown_at`."""

    original: Shape
    target: Shape
    started_at: float
    visible_at: float
    shown_at: float = inf
    state: ModificationState = ModificationState.MODIFYING
    optimizing_at: float = 0.0
    optimizing_seconds: float = 0.0
    ended_at: float | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether another modification of the volume must wait for this one."""
        return self.state in (ModificationState.MODIFYING, ModificationState.OPTIMIZING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot: its `content` by offset, and zeros elsewhere."""

    id: str
    size_gib: int
    content: Mapping[int, bytes]


@dataclass(slots=True, kw_only=True)
class Volume:
    """An EBS volume; `ordinal` is its position in the order of creation."""

    id: str
    ordinal: int
    shape: Shape
    created_at: float
    visible_at: float = 0.0
    steady_at: float = 0.0
    state: VolumeState = VolumeState.CREATING
    encrypted: bool = False
    kms_key_arn: str | None = None
    outpost_arn: str = ""
    snapshot: Snapshot | None = None
    tags: dict[str, str] = field(default_factory=dict)
    attachment: Attachment | None = None
    modifications: list[Modification] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """The size of its block device."""
        return self.shape.size_gib * _GIB

    @property
    def modification(self) -> Modification | None:
        """The last modification."""
        return self.modifications[-1] if self.modifications else None

    @property
    def modified_at(self) -> list[float]:
        """When modifications began; one that failed counts as well."""
        return [each.started_at for each in self.modifications]

    def shown_gib(self, now: float) -> int:
        """The size that calls show."""
        last = self.modification
        if last is None or last.state is ModificationState.FAILED:
            return self.shape.size_gib
        return (last.target if now >= last.shown_at else last.original).size_gib

    @property
    def charged_gib(self) -> int:
        """What it counts for in quotas: a larger size as soon as its modification begins."""
        last = self.modification
        growing = last is not None and last.is_under_way
        return max(self.shape.size_gib, last.target.size_gib if last and growing else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUse:
    """A CreateVolume request that was made with a client token."""

    params: Mapping[str, Any]
    volume_id: str
    at: float


@dataclass(slots=True, kw_only=True)
class Instance:
    """The simulated instance."""

    id: str
    tags: dict[str, str]
    state: InstanceState = InstanceState.RUNNING


class World:
    """The whole state, protected by `lock`; it changes only by calls and by its timeline.

    After a change, notify `lock`, so that the thread that runs due events wakes up.
    """

    def __init__(
        self, settings: SandboxSettings, *, clock: SandboxClock, devices: BlockDevicePort
    ) -> None:
        self.settings = settings
        self.devices = devices
        self.timeline = Timeline(clock)
        self.lock = Condition()
        self.instance = Instance(id=settings.instance_id, tags=dict(settings.instance_tags))
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.tokens: dict[str, TokenUse] = {}
        self.problems: list[str] = []
        document = settings.policy
        self.policy = None if document is None else Policy.from_document(document)
        self.credentials = RoleCredentials(clock, valid_seconds=settings.credentials_seconds)
        self._ids = Random(f"{settings.seed}-ids")  # noqa: S311 -- repeatable on purpose
        self._dice = Random(f"{settings.seed}-dice")  # noqa: S311 -- repeatable on purpose
        self._created = 0
        self._add_root()

    @property
    def now(self) -> float:
        """The present time in seconds of the sandbox clock."""
        return self.timeline.now

    def draw(self, span: Span) -> float:
        """Draw a latency from a range."""
        return self._dice.uniform(*span)

    def new_volume(self, shape: Shape) -> Volume:
        """Make a volume with a new id; the caller adds it to `volumes`."""
        self._created += 1
        return Volume(
            # Ids of EC2 have 17 hexadecimal digits, of which the first has always been 0.
            id=f"vol-0{self._ids.getrandbits(64):016x}",
            ordinal=self._created,
            shape=shape,
            created_at=self.now,
        )

    def new_snapshot(self, size_gib: int, content: Mapping[int, bytes]) -> Snapshot:
        """Keep a snapshot of a volume that nobody has seen."""
        snapshot_id = f"snap-0{self._ids.getrandbits(64):016x}"
        self.snapshots[snapshot_id] = Snapshot(
            id=snapshot_id, size_gib=size_gib, content=dict(content)
        )
        return self.snapshots[snapshot_id]

    def is_visible(self, volume: Volume) -> bool:
        """Whether a call at this moment finds the volume: EC2 is eventually consistent."""
        if self.now < volume.visible_at:
            return False
        if self.now < volume.steady_at:
            return self._dice.random() >= self.settings.flicker_probability
        return True

    def volume(self, volume_id: str) -> Volume:
        """Look up a visible volume; raises ApiError InvalidVolume.NotFound."""
        volume = self.volumes.get(volume_id)
        if volume is None or not self.is_visible(volume):
            raise ApiError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        return volume

    def attached(self) -> list[tuple[Volume, Attachment]]:
        """Every volume with an attachment, in any state."""
        return [
            (volume, volume.attachment)
            for volume in self.volumes.values()
            if volume.attachment is not None
        ]

    def report_problem(self, sentence: str) -> None:
        """Report what the simulation failed to do, on stderr and at the control endpoint."""
        self.problems.append(sentence)
        sys.stderr.write(f"ec2-sandbox: {sentence}\n")

    def _add_root(self) -> None:
        shape = Shape(type="gp3", size_gib=self.settings.root_size_gib, iops=3000, throughput=125)
        root = self.new_volume(shape)
        root.state = VolumeState.IN_USE
        root.attachment = Attachment(
            device=self.settings.root_device,
            attached_at=root.created_at,
            state=AttachmentState.ATTACHED,
            delete_on_termination=True,
        )
        self.volumes[root.id] = root
