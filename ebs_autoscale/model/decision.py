"""Decisions, and the steps that carry them out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from ebs_autoscale.errors import Cause
from ebs_autoscale.model.ec2 import Volume
from ebs_autoscale.model.growth import Enlargement, GrowthId, Stage
from ebs_autoscale.model.sizes import GIB


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
