"""Why a job is slow: which limit of EBS it has run into, and what a faster volume costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ebs_autoscale.ec2.ebs_statistics import Exceeded, exceeded
from ebs_autoscale.ec2.volume_types import (
    IOPS_PER_MIB_PER_SECOND,
    VOLUME_TYPES,
    price_of,
    usd_per_month,
)
from ebs_autoscale.errors import with_hint
from ebs_autoscale.model import Device, VolumeSpec
from ebs_autoscale.units import format_duration

OVER_SECONDS = 10.0
# EBS counts once a second.
_EVERY_SECONDS = 0.9
# Less of the time is no reason for a slow job.
_SHARE_MIN = 0.05


@dataclass(frozen=True, slots=True)
class Throttled:
    """By the kernel's name of the device; `over_seconds` is None for since it was attached."""

    of: Mapping[str, Exceeded] = field(default_factory=dict)
    over_seconds: float | None = None


class Throttling:
    """Asks the EBS devices of one filesystem again and again; never again after one that hung."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, Mapping[str, Exceeded]]] = []
        self._hung = False

    def look(self, devices: Sequence[Device], now_seconds: float) -> Throttled:
        """What has been exceeded in the latest looks, or with a single one since the attachment."""
        if not self._hung and now_seconds >= self._latest_seconds + _EVERY_SECONDS:
            answer = exceeded(device.name for device in devices)
            self._hung = answer is None
            since = now_seconds - OVER_SECONDS
            self._looks = [look for look in self._looks if look[0] >= since]
            self._looks.append((now_seconds, answer or {}))
        if not self._looks:
            return Throttled()
        (first_seconds, first), (last_seconds, last) = self._looks[0], self._looks[-1]
        if first_seconds == last_seconds:
            return Throttled(last)
        changes = {name: last[name].since(first[name]) for name in last.keys() & first.keys()}
        return Throttled(changes, last_seconds - first_seconds)

    @property
    def _latest_seconds(self) -> float:
        return self._looks[-1][0] if self._looks else float("-inf")


def sentences(
    throttled: Throttled, devices: Sequence[Device], volumes: Mapping[str, str], spec: VolumeSpec
) -> Iterator[str]:
    """What each device was too slow for, and what to do about it; volumes are as configured.

    Of the latest looks only: what was long ago makes no job slow now.
    """
    over = throttled.over_seconds
    if over is None:
        return
    for device in devices:
        if found := throttled.of.get(device.name):
            volume = volumes.get(device.name, "")
            for limit, seconds, hint in _limits(found, spec, volume, device.size_bytes):
                if seconds >= _SHARE_MIN * over:
                    what = f"{device.name} was too slow: programs wanted more {limit}"
                    span = f"{format_duration(seconds)} of the last {format_duration(round(over))}"
                    yield with_hint(f"{what} for {span}", hint)


def _limits(
    found: Exceeded, spec: VolumeSpec, volume: str, size_bytes: int
) -> Iterator[tuple[str, float, str]]:
    larger = "use an instance type with more EBS performance"
    throughput, iops = _faster_throughput(spec), _faster_iops(spec)
    yield (
        "throughput than the volume has",
        found.volume_throughput,
        _advice("throughput", spec, throughput, volume, size_bytes),
    )
    yield (
        "IOPS than the volume has",
        found.volume_iops,
        _advice("IOPS", spec, iops, volume, size_bytes),
    )
    yield "throughput than the instance has for EBS", found.instance_throughput, larger
    yield "IOPS than the instance has for EBS", found.instance_iops, larger


def _faster_throughput(spec: VolumeSpec) -> VolumeSpec | None:
    """Twice the throughput, with the IOPS that it needs; None where it cannot be chosen."""
    offer = VOLUME_TYPES[spec.type]
    if not offer.min_mib_per_second:
        return None
    now = spec.throughput_mib_per_second or offer.included_mib_per_second
    wanted = min(2 * now, offer.max_mib_per_second)
    iops = max(spec.iops or offer.included_iops, IOPS_PER_MIB_PER_SECOND * wanted)
    faster = replace(
        spec,
        throughput_mib_per_second=wanted,
        iops=iops if iops > offer.included_iops else spec.iops,
    )
    return faster if wanted > now else None


def _faster_iops(spec: VolumeSpec) -> VolumeSpec | None:
    """Twice the IOPS; None where they cannot be chosen."""
    offer = VOLUME_TYPES[spec.type]
    now = spec.iops or offer.included_iops
    wanted = min(2 * now, offer.max_iops)
    return replace(spec, iops=wanted) if wanted > now else None


def _advice(
    what: str, spec: VolumeSpec, faster: VolumeSpec | None, volume: str, size_bytes: int
) -> str:
    if faster is None:
        return f"volumes of type {spec.type} have no more {what}: use another volume.type"
    more = usd_per_month(faster, size_bytes) - usd_per_month(spec, size_bytes)
    options, gets = [], []
    if faster.throughput_mib_per_second != spec.throughput_mib_per_second:
        options.append(f"--throughput {faster.throughput_mib_per_second}")
        gets.append(f"{faster.throughput_mib_per_second} MiB/s")
    if faster.iops != spec.iops:
        options.append(f"--iops {faster.iops}")
        gets.append(f"{faster.iops} IOPS")
    command = f"aws ec2 modify-volume --volume-id {volume or 'VOLUME'} {' '.join(options)}"
    price = f"{more:.2f} USD a month {price_of(spec).basis}"
    return f"`{command}`: {' and '.join(gets)} cost {price} more than what is configured"
