"""Constraints between the values of a configuration."""

from collections.abc import Callable, Collection, Iterator

from ebs_autoscale.ec2.volume_types import IOPS_PER_MIB_PER_SECOND, VOLUME_TYPES, largest_gib
from ebs_autoscale.model import GIB, VolumeSpec
from ebs_autoscale.policy import GrowthMethod, GrowthPolicy
from ebs_autoscale.units import format_duration, format_size

Constraint = Callable[[GrowthPolicy, VolumeSpec], Iterator[str]]
"""Yields a sentence for each violation."""


def violations(
    policy: GrowthPolicy, volume: VolumeSpec, unread: Collection[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each violation: the key paths concerned, the first of them at fault, and a sentence.

    Constraints on `unread` keys are skipped, because their values are not the operator's.
    """
    for paths, constraint in CONSTRAINTS:
        if not set(paths) & set(unread):
            for sentence in constraint(policy, volume):
                yield paths, sentence


def _growth_min_at_most_max(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    sizing = policy.sizing
    if sizing.min_bytes > sizing.max_bytes:
        largest = format_size(sizing.max_bytes)
        yield f"{format_size(sizing.min_bytes)} is more than growth.max ({largest})"


def _fixed_size_within_bounds(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    yield from _outside_bounds(policy, policy.sizing.fixed_bytes)


def _ladder_sizes_within_bounds(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    for step in policy.sizing.steps:
        yield from _outside_bounds(policy, step.size_bytes)


def _outside_bounds(policy: GrowthPolicy, size_bytes: int | None) -> Iterator[str]:
    sizing = policy.sizing
    if size_bytes is None or sizing.min_bytes > sizing.max_bytes:
        return
    if not sizing.min_bytes <= size_bytes <= sizing.max_bytes:
        bounds = f"{format_size(sizing.min_bytes)} to {format_size(sizing.max_bytes)}"
        yield f"{format_size(size_bytes)} is outside growth.min to growth.max ({bounds})"


def _total_allows_a_growth(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    smallest, total = policy.sizing.min_bytes, policy.limits.total_bytes
    if total < smallest:
        yield f"{format_size(total)} is less than growth.min ({format_size(smallest)})"


def _poll_min_at_most_max(policy: GrowthPolicy, _: VolumeSpec) -> Iterator[str]:
    shortest, longest = policy.polling.min_seconds, policy.polling.max_seconds
    if shortest > longest:
        yield f"{format_duration(shortest)} is more than poll.max ({format_duration(longest)})"


def _growth_min_is_offered(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    smallest_bytes = VOLUME_TYPES[volume.type].min_gib * GIB
    if policy.sizing.min_bytes < smallest_bytes:
        configured, smallest = format_size(policy.sizing.min_bytes), format_size(smallest_bytes)
        yield f"{configured} is less than the smallest {volume.type} volume ({smallest})"


def _growth_max_is_offered(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    largest_bytes = VOLUME_TYPES[volume.type].max_gib * GIB
    if policy.sizing.max_bytes > largest_bytes:
        configured, largest = format_size(policy.sizing.max_bytes), format_size(largest_bytes)
        yield f"{configured} is more than the largest {volume.type} volume ({largest})"


def _iops_are_offered(_: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    offer, iops = VOLUME_TYPES[volume.type], volume.iops
    if iops is None:
        if offer.needs_iops:
            yield f"required for {volume.type}"
    elif not offer.min_iops:
        types = ", ".join(name for name, kind in VOLUME_TYPES.items() if kind.min_iops)
        yield f"cannot be set for {volume.type}, only for {types}; remove it or change volume.type"
    elif not offer.min_iops <= iops <= offer.max_iops:
        bounds = f"{offer.min_iops} to {offer.max_iops}"
        yield f"{iops} is outside the range for {volume.type} ({bounds})"


def _sizes_have_the_iops(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    """The smallest volume that may be created must be large enough for the IOPS."""
    offer, iops = VOLUME_TYPES[volume.type], volume.iops
    if iops is None or not offer.min_iops <= iops <= offer.max_iops:
        return
    needed_bytes, smallest_bytes = offer.min_gib_with(iops) * GIB, policy.sizing.min_bytes
    if smallest_bytes < needed_bytes:
        most = max(offer.min_iops, smallest_bytes * offer.max_iops_per_gib // GIB)
        smallest = f"{format_size(smallest_bytes)} of {volume.type}"
        raise_min = f"raise growth.min to {format_size(needed_bytes)}"
        yield f"{iops} is more than {smallest} can have ({most}); {raise_min}"


def _throughput_is_offered(_: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    offer, throughput = VOLUME_TYPES[volume.type], volume.throughput_mib_per_second
    if throughput is None:
        return
    least, most = offer.min_mib_per_second, offer.max_mib_per_second
    if not most:
        yield f"cannot be set for {volume.type}, only for gp3; remove it or change volume.type"
    elif not least <= throughput <= most:
        yield f"{throughput} is outside the range for {volume.type} ({least} to {most} MiB/s)"


def _iops_have_the_throughput(_: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    offer, throughput = VOLUME_TYPES[volume.type], volume.throughput_mib_per_second
    if throughput is None or not 0 < throughput <= offer.max_mib_per_second:
        return
    iops, needed = volume.iops or offer.included_iops, offer.min_iops_with(throughput)
    if iops < needed:
        most = iops // IOPS_PER_MIB_PER_SECOND
        raise_iops = f"set volume.iops to {needed}"
        yield f"{throughput} is more than {iops} IOPS can have ({most}); {raise_iops}"


def _type_can_be_enlarged(policy: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    if policy.sizing.method is GrowthMethod.ENLARGE and not largest_gib(volume.type):
        yield f"EC2 cannot enlarge volumes of type {volume.type}; use auto or add"


def _kms_key_needs_encryption(_: GrowthPolicy, volume: VolumeSpec) -> Iterator[str]:
    if volume.kms_key_id is not None and not volume.encrypted:
        yield "requires volume.encrypted: true"


CONSTRAINTS: tuple[tuple[tuple[str, ...], Constraint], ...] = (
    (("growth.min", "growth.max"), _growth_min_at_most_max),
    (("growth.size", "growth.min", "growth.max"), _fixed_size_within_bounds),
    (("growth.steps", "growth.min", "growth.max"), _ladder_sizes_within_bounds),
    (("limits.total", "growth.min"), _total_allows_a_growth),
    (("poll.min", "poll.max"), _poll_min_at_most_max),
    (("growth.min", "volume.type"), _growth_min_is_offered),
    (("growth.max", "volume.type"), _growth_max_is_offered),
    (("volume.iops", "volume.type"), _iops_are_offered),
    (("volume.iops", "volume.type", "growth.min"), _sizes_have_the_iops),
    (("volume.throughput", "volume.type"), _throughput_is_offered),
    (("volume.throughput", "volume.iops", "volume.type"), _iops_have_the_throughput),
    (("growth.method", "volume.type"), _type_can_be_enlarged),
    (("volume.kms_key_id", "volume.encrypted"), _kms_key_needs_encryption),
)
