"""EBS volume types: the sizes and performance that EC2 offers, and list prices. Pure."""

from dataclasses import dataclass

from ebs_autoscale.model import GIB, VolumeSpec

HOURS_PER_MONTH = 730.0

# gp3 takes at most 0.25 MiB/s for each of its IOPS.
IOPS_PER_MIB_PER_SECOND = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeType:
    """What EC2 offers under a type; prices are US dollars a month in us-east-1.

    `min_iops` is the least that can be provisioned, 0 where IOPS cannot be; the same for
    `min_mib_per_second`. What is `included` has no price of its own. The maxima are those of the
    Availability Zones that offer the most; others refuse a growth that comes near them.
    """

    min_gib: int
    max_gib: int
    usd_per_gib: float
    min_iops: int = 0
    max_iops: int = 0
    max_iops_per_gib: int = 0
    needs_iops: bool = False
    included_iops: int = 0
    usd_per_iops: float = 0.0
    min_mib_per_second: int = 0
    max_mib_per_second: int = 0
    included_mib_per_second: int = 0
    usd_per_mib_per_second: float = 0.0

    def min_gib_with(self, iops: int | None) -> int:
        """The smallest volume that EC2 offers with this many IOPS; None is EC2's default."""
        if iops is None or iops <= self.min_iops or not self.max_iops_per_gib:
            return self.min_gib
        return max(self.min_gib, -(-iops // self.max_iops_per_gib))

    def min_iops_with(self, mib_per_second: int) -> int:
        """The fewest IOPS that EC2 offers with this throughput."""
        return max(self.min_iops, IOPS_PER_MIB_PER_SECOND * mib_per_second)


# Sizes, IOPS and throughput: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
# List prices of us-east-1, noted in November 2026: https://aws.amazon.com/ebs/pricing/. Other
# Regions differ by a third at most. io2 is cheaper above 32,000 IOPS, and `standard` is billed per
# request as well; both are left out.
VOLUME_TYPES = {
    "gp3": VolumeType(
        min_gib=1,
        max_gib=65_536,
        usd_per_gib=0.08,
        min_iops=3_000,
        max_iops=80_000,
        max_iops_per_gib=500,
        included_iops=3_000,
        usd_per_iops=0.005,
        min_mib_per_second=125,
        max_mib_per_second=2_000,
        included_mib_per_second=125,
        usd_per_mib_per_second=0.04,
    ),
    "gp2": VolumeType(min_gib=1, max_gib=16_384, usd_per_gib=0.10),
    "io2": VolumeType(
        min_gib=4,
        max_gib=65_536,
        usd_per_gib=0.125,
        min_iops=100,
        max_iops=256_000,
        max_iops_per_gib=1_000,
        needs_iops=True,
        usd_per_iops=0.065,
    ),
    "io1": VolumeType(
        min_gib=4,
        max_gib=16_384,
        usd_per_gib=0.125,
        min_iops=100,
        max_iops=64_000,
        max_iops_per_gib=50,
        needs_iops=True,
        usd_per_iops=0.065,
    ),
    "st1": VolumeType(min_gib=125, max_gib=16_384, usd_per_gib=0.045),
    "sc1": VolumeType(min_gib=125, max_gib=16_384, usd_per_gib=0.015),
    "standard": VolumeType(min_gib=1, max_gib=1_024, usd_per_gib=0.05),
}


def usd_per_month(volume: VolumeSpec, size_bytes: int) -> float:
    """What a volume of this size costs a month at list price, provisioned performance included."""
    price = list_price(
        volume.type, size_bytes, iops=volume.iops, mib_per_second=volume.throughput_mib_per_second
    )
    if price is None:
        raise ValueError(f"unknown volume type {volume.type!r}")
    return price


def list_price(
    name: str, size_bytes: int, *, iops: int | None, mib_per_second: int | None
) -> float | None:
    """The same by the figures that EC2 shows of a volume; None for a type without a price here."""
    if (offer := VOLUME_TYPES.get(name)) is None:
        return None
    return (
        size_bytes / GIB * offer.usd_per_gib
        + max(0, (iops or 0) - offer.included_iops) * offer.usd_per_iops
        + max(0, (mib_per_second or 0) - offer.included_mib_per_second)
        * offer.usd_per_mib_per_second
    )
