"""What volumes cost at list price. Pure."""

from ebs_autoscale.model import GIB, VolumeSpec

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
