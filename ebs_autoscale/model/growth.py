"""The names of growths, and how far they have come."""

from dataclasses import dataclass
from enum import StrEnum

from ebs_autoscale.model.sizes import GIB


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
