"""EBS volume types: the sizes and performance that EC2 offers, and list prices. Pure."""

from dataclasses import dataclass
from math import inf

from ebs_autoscale.model import GIB, MIB, Price, VolumeSpec

HOURS_PER_MONTH = 730.0

# gp3 takes at most 0.25 MiB/s for each of its IOPS.
IOPS_PER_MIB_PER_SECOND = 4

# Above this size bursts of gp2 reach 250 MiB/s.
_GP2_SMALL_GIB = 170


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
# List prices of us-east-1 as on https://aws.amazon.com/ebs/pricing/ in November 2026. `standard` is
# billed per request as well, which is left out.
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


def largest_gib(kind: str) -> int:
    """What a volume of this type can be enlarged to; 0 where EC2 enlarges none, or it is not known.

    Source: https://docs.aws.amazon.com/ebs/latest/userguide/modify-volume-requirements.html
    """
    return 0 if kind not in VOLUME_TYPES or kind == "standard" else VOLUME_TYPES[kind].max_gib


PRICED_REGION = "us-east-1"
PRICE_SOURCE = "https://aws.amazon.com/ebs/pricing/ in November 2026"

# List prices of gp3, in US dollars a month for a GiB, from public copies of that page: it shows one
# Region at a time. All other prices are estimated to differ from those of us-east-1 by this ratio.
_GP3_USD_PER_GIB = {
    "af-south-1": 0.1047,
    "ap-east-1": 0.1056,
    "ap-northeast-1": 0.096,
    "ap-northeast-2": 0.0912,
    "ap-northeast-3": 0.096,
    "ap-south-1": 0.0912,
    "ap-southeast-1": 0.096,
    "ap-southeast-2": 0.096,
    "ca-central-1": 0.088,
    "eu-central-1": 0.0952,
    "eu-north-1": 0.0836,
    "eu-south-1": 0.0924,
    "eu-west-1": 0.088,
    "eu-west-2": 0.0928,
    "eu-west-3": 0.0928,
    "me-south-1": 0.0968,
    "sa-east-1": 0.152,
    "us-east-1": 0.08,
    "us-east-2": 0.08,
    "us-west-1": 0.096,
    "us-west-2": 0.08,
}


def usd_per_month(volume: VolumeSpec, size_bytes: int, region: str = "") -> float:
    """What a volume of this size costs a month, provisioned performance included."""
    return price_of(volume, region).usd_per_month(size_bytes)


def price_of(volume: VolumeSpec, region: str = "") -> Price:
    """The price of volumes as configured; for a Region without prices here, that of us-east-1."""
    price = list_price(
        volume.type,
        region,
        iops=volume.iops,
        mib_per_second=volume.throughput_mib_per_second,
        factor=volume.price_factor,
    )
    if price is None:
        raise ValueError(f"unknown volume type {volume.type!r}")
    return price


def list_price(
    kind: str, region: str, *, iops: int | None, mib_per_second: int | None, factor: float = 1.0
) -> Price | None:
    """The price by the figures that EC2 shows of a volume; None for a type without a price here."""
    if (offer := VOLUME_TYPES.get(kind)) is None:
        return None
    basis = "list price" if region in _GP3_USD_PER_GIB else f"the list price of {PRICED_REGION}"
    basis = f"at {basis}" if factor == 1 else f"at {factor:g} times {basis}"
    base = _GP3_USD_PER_GIB[PRICED_REGION]
    factor *= _GP3_USD_PER_GIB.get(region, base) / base
    paid_mib = max(0, (mib_per_second or 0) - offer.included_mib_per_second)
    fixed = _paid_iops(kind, iops or 0) * offer.usd_per_iops
    fixed += paid_mib * offer.usd_per_mib_per_second
    return Price(usd_per_gib=offer.usd_per_gib * factor, usd_fixed=fixed * factor, basis=basis)


def _paid_iops(kind: str, iops: int) -> float:
    """The IOPS that are paid for; those of io2 are cheaper above 32,000 and 64,000."""
    if kind != "io2":
        return max(0, iops - VOLUME_TYPES[kind].included_iops)
    first, second, third = min(iops, 32_000), min(iops - 32_000, 32_000), iops - 64_000
    return first + max(0, second) * 0.0455 / 0.065 + max(0, third) * 0.032 / 0.065


def bytes_per_second_max(
    name: str, size_bytes: int, *, iops: int | None, mib_per_second: int | None
) -> float | None:
    """The most that such a volume takes, bursts included; None for a type that is not known here.

    None of the types exceeds it, so that it is a bound and no forecast. Without the figures that
    EC2 shows of the volume it is the most of the type.
    """
    gib = size_bytes / GIB
    by_iops = inf if iops is None else 0.256 * iops
    most = {
        "gp3": mib_per_second or VOLUME_TYPES["gp3"].included_mib_per_second,
        "gp2": 128 if gib <= _GP2_SMALL_GIB else 250,
        "io2": min(4000, by_iops),
        "io1": min(1000, by_iops),
        "st1": min(500, 250 / 1024 * gib),
        "sc1": min(250, 80 / 1024 * gib),
        "standard": 90,
    }.get(name)
    return None if most is None else most * MIB


def sustained_bytes_per_second(volume: VolumeSpec, size_bytes: int) -> float:
    """What such a volume takes for as long as one likes: without the bursts of some types.

    Source: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
    """
    gib = size_bytes / GIB
    baseline = {
        "gp2": max(100, 3 * gib) / IOPS_PER_MIB_PER_SECOND,
        "st1": 40 / 1024 * gib,
        "sc1": 12 / 1024 * gib,
        "standard": 40,
    }.get(volume.type, inf)
    most = bytes_per_second_max(
        volume.type,
        size_bytes,
        iops=volume.iops,
        mib_per_second=volume.throughput_mib_per_second,
    )
    return min(most or inf, baseline * MIB)
