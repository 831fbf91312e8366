"""EBS volume types: what sizes and performance EC2 sells, at what list price. Pure."""

from dataclasses import dataclass

from ebs_autoscale.model import GIB, VolumeSpec


@dataclass(frozen=True, slots=True)
class VolumeType:
    """What EC2 sells under a type (EBS user guide, "Amazon EBS volume types"); `min_iops` 0: none.

    Only ceilings that a growth would run into later are here; the rest EC2 judges itself,
    since they rise every few years and differ between zones.
    """

    min_gib: int
    max_gib: int
    min_iops: int = 0
    max_iops_per_gib: int = 0
    needs_iops: bool = False
    takes_throughput: bool = False

    def min_gib_with(self, iops: int | None) -> int:
        """The smallest volume that EC2 sells with so many IOPS, None being its own choice."""
        if iops is None or iops <= self.min_iops or not self.max_iops_per_gib:
            return self.min_gib
        return max(self.min_gib, -(-iops // self.max_iops_per_gib))


VOLUME_TYPES = {
    "gp3": VolumeType(1, 65_536, min_iops=3_000, max_iops_per_gib=500, takes_throughput=True),
    "gp2": VolumeType(1, 16_384),
    "io2": VolumeType(4, 65_536, min_iops=100, max_iops_per_gib=1_000, needs_iops=True),
    "io1": VolumeType(4, 16_384, min_iops=100, max_iops_per_gib=50, needs_iops=True),
    "st1": VolumeType(125, 16_384),
    "sc1": VolumeType(125, 16_384),
    "standard": VolumeType(1, 1_024),
}

# US dollars for a GiB-month in us-east-1; other regions differ by a third at most, and
# each request of `standard` costs, too. Source: the EBS price page.
USD_PER_GIB_MONTH = {
    "gp3": 0.08,
    "gp2": 0.10,
    "io1": 0.125,
    "io2": 0.125,
    "st1": 0.045,
    "sc1": 0.015,
    "standard": 0.05,
}
HOURS_PER_MONTH = 730.0

_GP3_FREE_IOPS = 3_000
_GP3_FREE_MIB_PER_SECOND = 125
_USD_PER_IOPS = {"gp3": 0.005, "io1": 0.065, "io2": 0.065}
_GP3_USD_PER_MIB_PER_SECOND = 0.04


def usd_per_month(volume: VolumeSpec, size_bytes: int) -> float:
    """What a volume of this size costs in a month, provisioned performance included.

    io2 is charged as if no tier beyond 32,000 IOPS were cheaper.
    """
    usd = size_bytes / GIB * USD_PER_GIB_MONTH[volume.type]
    free = _GP3_FREE_IOPS if volume.type == "gp3" else 0
    usd += max(0, (volume.iops or free) - free) * _USD_PER_IOPS.get(volume.type, 0.0)
    if volume.type == "gp3" and volume.throughput_mib_per_second:
        more = volume.throughput_mib_per_second - _GP3_FREE_MIB_PER_SECOND
        usd += more * _GP3_USD_PER_MIB_PER_SECOND
    return usd
