"""The cheapest volumes that take what a writer writes. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

from ebs_autoscale.config.constraints import violations
from ebs_autoscale.ec2.volume_types import (
    VOLUME_TYPES,
    sustained_bytes_per_second,
    usd_per_month,
)
from ebs_autoscale.model import GIB, MIB, VolumeSpec
from ebs_autoscale.policy import GrowthPolicy


def cheapest(
    bytes_per_second: float, volume: VolumeSpec, policy: GrowthPolicy, sizes_bytes: Sequence[int]
) -> VolumeSpec | None:
    """The cheapest kind of volume that takes so much in each of these sizes; None if none does.

    Each has to take all of it, since after a growth only the new volume is written to. The policy
    stays as it is, and so do the IOPS of the configured type if they are more.
    """
    fast = (
        each
        for each in _candidates(bytes_per_second, volume)
        if not list(violations(policy, each, ()))
        and all(
            size // GIB <= VOLUME_TYPES[each.type].max_gib
            and sustained_bytes_per_second(each, size) >= bytes_per_second
            for size in sizes_bytes
        )
    )
    return min(
        fast, key=lambda each: sum(usd_per_month(each, size) for size in sizes_bytes), default=None
    )


def _candidates(bytes_per_second: float, volume: VolumeSpec) -> Iterator[VolumeSpec]:
    """Each type with the least IOPS and throughput that EC2 offers for this."""
    throughput = ceil(bytes_per_second / MIB)
    for name, offer in VOLUME_TYPES.items():
        iops = offer.min_iops_with(throughput) if offer.min_iops else 0
        if name == volume.type:
            iops = max(iops, volume.iops or 0)
        yield replace(
            volume,
            type=name,
            iops=iops if iops > offer.included_iops else None,
            throughput_mib_per_second=(
                throughput if throughput > offer.included_mib_per_second > 0 else None
            ),
        )
