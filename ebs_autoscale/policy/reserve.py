"""How large the emergency reserve shall be, and when space allows it. Pure."""

from dataclasses import replace

from ebs_autoscale.filesystems.btrfs.chunks import reserve_metadata_bytes
from ebs_autoscale.model import GIB, Reading
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import Forecast, shortage

_MIB = 1024**2

# Measured: with 256 MiB 0 of 300 adds under spinning writers ended read-only, without 10 to 18
# (docs/settling.md). More for filesystems that are written to faster.
_SHARE = 100
_LEAST_BYTES = 256 * _MIB
_MOST_BYTES = GIB
# Tiny filesystems are not made of reserve.
_SMALL_SHARE = 32


def wanted_bytes(configured: int | None, reading: Reading) -> int:
    """The data that the reserve shall hold: what is configured, or by size for None (auto)."""
    if configured is not None:
        return configured
    share = min(max(reading.size_bytes // _SHARE, _LEAST_BYTES), _MOST_BYTES)
    return min(share, reading.size_bytes // _SMALL_SHARE) // _MIB * _MIB


def is_affordable(wanted: int, reading: Reading, policy: GrowthPolicy, forecast: Forecast) -> bool:
    """Whether space would still be comfortable with that much held: it never buys itself."""
    more = wanted - reading.reserve_bytes
    # Both may come out of the same unallocated space.
    headroom = reading.metadata_headroom_bytes - more - reserve_metadata_bytes(max(more, 0))
    after = replace(
        reading,
        available_bytes=max(0, reading.available_bytes - more),
        metadata_headroom_bytes=max(0, headroom),
    )
    return more <= 0 or not shortage(after, policy, forecast)
