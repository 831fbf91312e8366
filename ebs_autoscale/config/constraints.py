"""What the values of a configuration must be to each other; each broken law is a sentence."""

from collections.abc import Callable, Collection, Iterator

from ebs_autoscale.ec2.volume_types import VOLUME_TYPES, VolumeType
from ebs_autoscale.model import GIB, VolumeSpec
from ebs_autoscale.policy import GrowthPolicy
from ebs_autoscale.units import format_duration, format_size


def broken_laws(
    policy: GrowthPolicy, volume: VolumeSpec, unread: Collection[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each broken law: the key paths it is about, the first of them to blame, and a sentence.

    Laws about `unread` keys are passed over, since their values here are not the operator's.
    """
    for paths, law in LAWS:
        if not set(paths) & set(unread):
            for sentence in law(policy, volume):
                yield paths, sentence


def _sizes(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    sizing = policy.sizing
    if sizing.min_bytes > sizing.max_bytes:
        most = format_size(sizing.max_bytes)
        yield f"{format_size(sizing.min_bytes)} is more than growth.max ({most})"


def _fixed_size(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    yield from _outside(policy, policy.sizing.fixed_bytes)


def _rung_sizes(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    for rung in policy.sizing.steps:
        yield from _outside(policy, rung.size_bytes)


def _outside(policy: GrowthPolicy, size_bytes: int | None) -> Iterator[str]:
    sizing = policy.sizing
    if size_bytes is None or sizing.min_bytes > sizing.max_bytes:
        return
    if not sizing.min_bytes <= size_bytes <= sizing.max_bytes:
        bounds = f"{format_size(sizing.min_bytes)} to {format_size(sizing.max_bytes)}"
        yield f"{format_size(size_bytes)} is outside growth.min to growth.max ({bounds})"


def _total(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    least, total = policy.sizing.min_bytes, policy.limits.total_bytes
    if total < least:
        yield f"{format_size(total)} is less than growth.min ({format_size(least)}): no growth fits"


def _polling(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    least, most = policy.polling.min_seconds, policy.polling.max_seconds
    if least > most:
        yield f"{format_duration(least)} is more than poll.max ({format_duration(most)})"


def _smallest_sold(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    sold = VOLUME_TYPES[volume.type].min_gib * GIB
    if policy.sizing.min_bytes < sold:
        asked, least = format_size(policy.sizing.min_bytes), format_size(sold)
        yield f"{asked} is less than {volume.type} can be ({least})"


def _largest_sold(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    sold = VOLUME_TYPES[volume.type].max_gib * GIB
    if policy.sizing.max_bytes > sold:
        asked, most = format_size(policy.sizing.max_bytes), format_size(sold)
        yield f"{asked} is more than {volume.type} can be ({most})"


def _iops(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    sold = VOLUME_TYPES[volume.type]
    if volume.iops is None:
        if sold.needs_iops:
            yield f"null, but {volume.type} needs a number"
    elif not sold.min_iops:
        takers = ", ".join(name for name, kind in VOLUME_TYPES.items() if kind.min_iops)
        yield f"{volume.type} takes none, only {takers} do; leave it out or change volume.type"
    elif volume.iops < sold.min_iops:
        yield f"{volume.iops} is less than {volume.type} has at least ({sold.min_iops})"
    elif volume.iops > (most := _most_iops(policy, sold)):
        smallest = f"{volume.type} of growth.min ({format_size(policy.sizing.min_bytes)})"
        yield f"{volume.iops} is more than {smallest} can have ({most}); raise growth.min"


def _most_iops(policy: GrowthPolicy, sold: VolumeType) -> int:
    return max(sold.min_iops, policy.sizing.min_bytes * sold.max_iops_per_gib // GIB)


def _throughput(_: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    sold = VOLUME_TYPES[volume.type]
    if volume.throughput_mib_per_second is not None and not sold.takes_throughput:
        yield f"{volume.type} takes none, only gp3 does; leave it out or change volume.type"


def _kms(_: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    if volume.kms_key_id is not None and not volume.encrypted:
        yield "a key needs volume.encrypted: true"


LAWS: tuple[tuple[tuple[str, ...], Callable[[GrowthPolicy, VolumeSpec], Iterator[str]]], ...] = (
    (("growth.min", "growth.max"), _sizes),
    (("growth.size", "growth.min", "growth.max"), _fixed_size),
    (("growth.steps", "growth.min", "growth.max"), _rung_sizes),
    (("limits.total", "growth.min"), _total),
    (("poll.min", "poll.max"), _polling),
    (("growth.min", "volume.type"), _smallest_sold),
    (("growth.max", "volume.type"), _largest_sold),
    (("volume.iops", "volume.type", "growth.min"), _iops),
    (("volume.throughput", "volume.type"), _throughput),
    (("volume.kms_key_id", "volume.encrypted"), _kms),
)
