"""What the operator decided: thresholds, sizing, limits, polling. Values only."""

from dataclasses import dataclass, field
from enum import StrEnum

from ebs_autoscale.model import GIB, MIB

AUTO_LEAD_TIME = None

# Enough for a writer of 2 GB/s while a volume is created, attached and added (5 s).
AVAILABLE_MIN_BYTES = 10 * GIB
AVAILABLE_MIN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Growth is needed when either floor is crossed, or will be before a volume can be added.

    `lead_time_seconds` None means auto (what a growth takes, with a margin), 0 means off.
    `available_min_bytes` None means auto: AVAILABLE_MIN_BYTES, but at most half of the whole.
    """

    available_percent: float = 20.0
    available_min_bytes: int | None = None
    lead_time_seconds: float | None = AUTO_LEAD_TIME

    def available_min_of(self, size_bytes: int) -> int:
        """What must stay available of a filesystem of this size.

        Who chose a first volume of 5 GiB wants to use it, not to have it grow at once.
        """
        if self.available_min_bytes is not None:
            return self.available_min_bytes
        return min(AVAILABLE_MIN_BYTES, int(size_bytes * AVAILABLE_MIN_SHARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderStep:
    """A step of the ladder: from this many devices on, grow below this share, by this size."""

    devices: int
    available_percent: float
    size_bytes: int


class GrowthMethod(StrEnum):
    """Where more space comes from: a new volume, a larger one, or a larger one if no new one."""

    AUTO = "auto"
    ADD = "add"
    ENLARGE = "enlarge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """How large the next volume is: a share of the present size, or `fixed_bytes` when set.

    As much is added to a volume that is enlarged (`method`), which then has at most `max_bytes`.
    A ladder (`steps`, ascending by devices) replaces both that and the share of `Threshold`.
    Outside of the `sold` bounds EC2 has no volume of the configured type at all, and none of it
    takes more than `sold_bytes_per_second`; None where that is not known.
    """

    method: GrowthMethod = GrowthMethod.AUTO
    percent: float = 50.0
    fixed_bytes: int | None = None
    min_bytes: int = 20 * GIB
    max_bytes: int = 1024 * GIB
    steps: tuple[LadderStep, ...] = ()
    sold_min_bytes: int = GIB
    sold_max_bytes: int = 64 * 1024 * GIB
    sold_bytes_per_second: float | None = 125 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard stops. `volumes` None means the instance type's attachment slots decide.

    `monthly_usd` is what all managed volumes together may cost a month; None is no limit.
    """

    volumes: int | None = None
    total_bytes: int = 16 * 1024 * GIB
    cooldown_seconds: float = 0.0
    monthly_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """Bounds of the poll delay: long with plenty of space, short when it matters."""

    min_seconds: float = 0.1
    max_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthPolicy:
    """All that the operator decided about when and how far to grow."""

    threshold: Threshold = field(default_factory=Threshold)
    sizing: Sizing = field(default_factory=Sizing)
    limits: Limits = field(default_factory=Limits)
    polling: Polling = field(default_factory=Polling)
