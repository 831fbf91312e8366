"""The simulated account: its volumes, its one instance, and what is remembered of requests."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from threading import Condition
from typing import Any

from ebs_autoscale.model import GIB
from ec2_sandbox.devices.block_devices import BlockDevicePort
from ec2_sandbox.errors import ApiError
from ec2_sandbox.iam.policy import Policy
from ec2_sandbox.settings import SandboxSettings, Span
from ec2_sandbox.world.clock import SandboxClock, Timeline


class VolumeState(StrEnum):
    """A volume's life as EC2 words it; after `deleting` it is gone."""

    CREATING = "creating"
    AVAILABLE = "available"
    IN_USE = "in-use"
    DELETING = "deleting"


class AttachmentState(StrEnum):
    """An attachment's life; `busy` is a detach that the guest's use of the device holds up."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    BUSY = "busy"


class InstanceState(StrEnum):
    """An instance's life, as far as a sandbox plays it."""

    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


@dataclass(slots=True, kw_only=True)
class Attachment:
    """A volume on the instance; all times are seconds of the sandbox clock."""

    device: str
    attached_at: float
    state: AttachmentState = AttachmentState.ATTACHING
    delete_on_termination: bool = False
    card: int = 0


@dataclass(slots=True, kw_only=True)
class Shape:
    """What ModifyVolume can change."""

    type: str
    size_gib: int
    iops: int | None
    throughput: int | None


@dataclass(slots=True, kw_only=True)
class Modification:
    """The last change of a volume's shape."""

    original: Shape
    target: Shape
    started_at: float
    state: str = "modifying"
    ended_at: float | None = None


@dataclass(slots=True, kw_only=True)
class Volume:
    """An EBS volume; `ordinal` is its place in the order of creation."""

    id: str
    ordinal: int
    shape: Shape
    created_at: float
    visible_at: float = 0.0
    steady_at: float = 0.0
    state: VolumeState = VolumeState.CREATING
    encrypted: bool = False
    kms_key_arn: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    attachment: Attachment | None = None
    modification: Modification | None = None
    modified_at: list[float] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What a block device of it measures."""
        return self.shape.size_gib * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What EC2 keeps of a CreateVolume request with a client token."""

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
    """All state, behind one lock; it moves only by calls and by its timeline.

    Hold `lock` for everything; whoever changes something notifies it, so that the
    ticker sees what falls due next.
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
        self.tokens: dict[str, Remembered] = {}
        self.problems: list[str] = []
        document = settings.policy
        self.policy = None if document is None else Policy.from_document(document)
        self._ids = Random(f"{settings.seed}-ids")  # noqa: S311 -- repeatable on purpose
        self._dice = Random(f"{settings.seed}-dice")  # noqa: S311 -- repeatable on purpose
        self._created = 0
        self._add_root()

    @property
    def now(self) -> float:
        """The present, in seconds of the sandbox clock."""
        return self.timeline.now

    def draw(self, span: Span) -> float:
        """Pick a latency between the least and the most."""
        return self._dice.uniform(*span)

    def new_volume(self, shape: Shape) -> Volume:
        """Give a volume its id and its place; the caller adds it to `volumes`."""
        self._created += 1
        return Volume(
            # EC2's ids have 17 digits, the first of which has been 0 ever since.
            id=f"vol-0{self._ids.getrandbits(64):016x}",
            ordinal=self._created,
            shape=shape,
            created_at=self.now,
        )

    def sees(self, volume: Volume) -> bool:
        """Whether a look at this moment finds the volume: EC2 is eventually consistent."""
        if self.now < volume.visible_at:
            return False
        if self.now < volume.steady_at:
            return self._dice.random() >= self.settings.flicker_probability
        return True

    def volume(self, volume_id: str) -> Volume:
        """Find a volume for a call; ApiError InvalidVolume.NotFound while it is not seen."""
        volume = self.volumes.get(volume_id)
        if volume is None or not self.sees(volume):
            raise ApiError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        return volume

    def attached(self) -> list[tuple[Volume, Attachment]]:
        """Every volume on the instance, in whatever state its attachment is."""
        return [
            (volume, volume.attachment)
            for volume in self.volumes.values()
            if volume.attachment is not None
        ]

    def problem(self, sentence: str) -> None:
        """Say what the simulation could not do, and keep it for the control endpoint."""
        self.problems.append(sentence)
        sys.stderr.write(f"sandbox: {sentence}\n")

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
