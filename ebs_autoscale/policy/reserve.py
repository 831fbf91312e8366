"""How large the emergency reserve is, and when there is space for it. Pure."""

from dataclasses import replace

from ebs_autoscale.filesystems.btrfs.chunks import reserve_metadata_bytes
from ebs_autoscale.model import GIB, MIB, Reading
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import shortage_of

# Measured: with 256 MiB 0 of 300 adds under spinning writers ended read-only, without 10 to 18
# (docs/metadata.md). More for filesystems that are written to faster.
_SHARE = 100
_MIN_BYTES = 256 * MIB
_MAX_BYTES = GIB
# Of a tiny filesystem the reserve takes no larger part than this.
_SMALL_SHARE = 32


def wanted_reserve_bytes(configured: int | None, reading: Reading) -> int:
    """The data that the reserve holds: what is configured, or by size for None (auto)."""
    if configured is not None:
        return configured
    share = min(max(reading.size_bytes // _SHARE, _MIN_BYTES), _MAX_BYTES)
    return min(share, reading.size_bytes // _SMALL_SHARE) // MIB * MIB


def is_reserve_affordable(
    wanted_bytes: int, reading: Reading, policy: GrowthPolicy, forecast: Forecast
) -> bool:
    """Whether space would not be short with that much held: the reserve never causes a growth."""
    more = wanted_bytes - reading.reserve_bytes
    # Both may come out of the same unallocated space.
    headroom = reading.metadata_headroom_bytes - more - reserve_metadata_bytes(max(more, 0))
    after = replace(
        reading,
        available_bytes=max(0, reading.available_bytes - more),
        metadata_headroom_bytes=max(0, headroom),
    )
    return more <= 0 or shortage_of(after, policy, forecast) is None
