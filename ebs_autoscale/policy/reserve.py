"""How large the emergency reserve is, and when there is space for it. Pure."""

from dataclasses import replace

from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.filesystems.btrfs.chunks import reserve_metadata_bytes
from ebs_autoscale.model import GIB, MIB, Reading
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import shortage_of
from ebs_autoscale.units import format_size

# Measured: with 256 MiB 0 of 300 adds under spinning writers ended read-only, without 10 to 18
# (docs/metadata.md). More for filesystems that are written to faster.
_SHARE = 100
_MIN_BYTES = 256 * MIB
_MAX_BYTES = GIB
# Of a tiny filesystem the reserve takes no larger part than this.
_SMALL_SHARE = 32


def wanted_reserve_bytes(configured: int | None, reading: Reading) -> int:
    """The data that the reserve holds: what is configured, or by size for None (auto).

    None on XFS and ext4, which grow under spinning writers as well (measured, 20 of 20 each).
    """
    if not reading.kind.takes_devices:
        return 0
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
    headroom = reading.metadata_headroom_bytes
    if headroom is not None:
        headroom = max(0, headroom - more - reserve_metadata_bytes(max(more, 0)))
    after = replace(
        reading,
        available_bytes=max(0, reading.available_bytes - more),
        metadata_headroom_bytes=headroom,
    )
    return more <= 0 or shortage_of(after, policy, forecast) is None


def missing_reserve(
    configured: int | None, reading: Reading, policy: GrowthPolicy, forecast: Forecast
) -> Problem | None:
    """The reserve that could be held and is not: never made, deleted, or no longer root's."""
    if reading.reserve_bytes:
        return None
    wanted = wanted_reserve_bytes(configured, reading)
    if not wanted or not is_reserve_affordable(wanted, reading, policy, forecast):
        return None
    what = f"{reading.mountpoint} has no emergency reserve of {format_size(wanted)}"
    if reading.reserve_fault:
        what += f": {reading.reserve_fault}"
    hint = "the daemon makes a new one, unless another user made that file: then move it elsewhere"
    return Problem(Cause.RESERVE_MISSING, what, hint)
