"""Which volumes with our tags are devices, which one waits to become one, and which are neither.

A tag says who created a volume at some time, not what is on it: backups restore volumes with
their tags, operators copy them, and remove devices from a filesystem. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    GrowthId,
    Observation,
    Price,
    Volume,
)
from ebs_autoscale.units import counted, format_size

# A growth is one above all ordinals that it sees. What is this far above the devices was tagged by
# hand, and must not lead to ordinals that are longer than a tag.
_ORDINAL_GAP_MAX = 1000

_UNUSED_HINT = (
    "nothing is done with them: look at what is on each, then delete it, or remove its "
    "ebs-autoscale tags to keep it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The volumes that this run created, and those that it goes on without.

    `in_vain` are those set aside that were a growth's own, up to `ordinal`; `undeleted` those of
    them that were of no use at all and may still exist. `repeats` counts how often the run began
    again with the same volume. `not_enlarged` are the devices that could not be enlarged, with why.
    """

    created: frozenset[str] = frozenset()
    set_aside: frozenset[str] = frozenset()
    in_vain: frozenset[str] = frozenset()
    undeleted: frozenset[str] = frozenset()
    ordinal: int = 0
    repeats: int = 0
    not_enlarged: Mapping[str, Problem] = field(default_factory=dict)


NOTHING_TRIED = Tried()


def waiting(seen: Observation, tried: Tried = NOTHING_TRIED) -> Volume | None:
    """The one volume that can be waiting to be finished: that of the newest growth.

    Its ordinal is above those of all devices and of all other candidates, and nothing shows that
    it is not a growth's. Whether it is blank shows once it is attached.
    """
    candidates = unfinished(seen)
    newest = [v for v in candidates if v.growth == max(c.growth for c in candidates)]
    # Of two volumes with one ordinal one is a copy, and nothing tells which.
    if len(newest) != 1 or newest[0].id in tried.set_aside:
        return None
    return newest[0]


def unfinished(seen: Observation) -> list[Volume]:
    """The volumes above all devices that a growth may have created on this instance."""
    return [v for v in _above_devices(seen) if v.state not in DEAD_VOLUME_STATES]


def failed(seen: Observation) -> list[Volume]:
    """Those that EC2 could not create, and that still exist."""
    return [v for v in _above_devices(seen) if v.state == "error"]


def _above_devices(seen: Observation) -> Iterator[Volume]:
    if not seen.reading.kind.takes_devices:
        return
    first, last = _ordinals_above_devices(seen)
    for volume in seen.inventory.volumes:
        is_near = volume.attached_to in {"", seen.inventory.instance_id}
        if is_near and not volume.foreign and first <= volume.growth.ordinal <= last:
            yield volume


def next_growth(seen: Observation, tried: Tried = NOTHING_TRIED) -> GrowthId:
    """The id of the next growth; never one that was seen before, or tried in this run.

    A restored volume changes nothing: after a crash it may be listed before the volume that was
    created, which only the client token of the same id finds.
    """
    first, last = _ordinals_above_devices(seen)
    known = [volume for volume in seen.inventory.volumes if not volume.foreign]
    ordinals = [volume.growth.ordinal for volume in known if volume.growth.ordinal <= last]
    return GrowthId(
        seen.reading.filesystem, max([1, first, tried.ordinal + 1, *(o + 1 for o in ordinals)])
    )


def limited(seen: Observation, tried: Tried = NOTHING_TRIED) -> list[Volume]:
    """The volumes that count against limits.volumes, limits.total and limits.cooldown.

    Devices, what may be one, the volume that waits, and what this run created, as they will be when
    EC2 has modified them. Others are not for us to use, and must not keep the filesystem from
    growing.
    """
    waits = waiting(seen, tried)
    return [
        expected(volume)
        for volume in seen.inventory.volumes
        if volume.state not in DEAD_VOLUME_STATES
        and (may_be_device(volume, seen) or volume == waits or volume.id in tried.created)
    ]


def expected(volume: Volume) -> Volume:
    """The volume with the size that its modification leads to, even if EC2 does not list it yet."""
    change = volume.modification
    return volume.enlarged(change.target_bytes) if change and change.state != "failed" else volume


def unused(seen: Observation, tried: Tried = NOTHING_TRIED) -> list[Volume]:
    """The volumes with our tags that are neither devices nor waiting, but are paid for."""
    waits = waiting(seen, tried)
    return [
        volume
        for volume in seen.inventory.volumes
        if volume.state not in {"deleting", "deleted"}
        and volume != waits
        and not may_be_device(volume, seen)
    ]


def unused_volumes(seen: Observation, tried: Tried = NOTHING_TRIED) -> Problem | None:
    """What to tell the operator about the unused volumes; None when there are none."""
    volumes = unused(seen, tried)
    if not volumes:
        return None
    sentence = (
        f"{counted(len(volumes), 'volume')} with the tags of this filesystem but not in it: "
        f"{listed(volumes, seen.inventory.instance_id)}"
    )
    return Problem(Cause.UNUSED_VOLUMES, sentence, _UNUSED_HINT)


def listed(volumes: Sequence[Volume], instance_id: str) -> str:
    """Each volume with its size, its cost and how it stands, and what they cost together."""
    parts = []
    for volume in volumes:
        standing = ", ".join(_standing(volume, instance_id))
        parts.append(
            f"{volume.id} ({format_size(volume.size_bytes)}, {_price(volume)}, {standing})"
        )
    if len(volumes) > 1:
        parts.append(f"{cost_of(volumes).words} in all")
    return "; ".join(parts)


def may_be_device(volume: Volume, seen: Observation) -> bool:
    """Whether it is a device, or may be one whose block device cannot be told."""
    is_unknown = (
        volume.attached_to == seen.inventory.instance_id
        and volume.attachment_state != "attaching"
        and volume.id not in seen.nodes
        and 0 <= volume.growth.ordinal < _ordinals_above_devices(seen)[0]
        and not volume.foreign
    )
    return is_unknown or seen.is_device(volume)


def _price(volume: Volume) -> str:
    return "price unknown" if volume.usd_per_month is None else cost_of([volume]).words


def _standing(volume: Volume, instance_id: str) -> Iterator[str]:
    if volume.foreign:
        yield volume.foreign
    if volume.growth.ordinal < 0:
        yield "tag ebs-autoscale:growth is not an ordinal"
    if not volume.attached_to:
        yield "not attached" if volume.state == "available" else f"in state {volume.state}"
    elif volume.attached_to == instance_id:
        yield f"attached as {volume.device_name}"
    else:
        yield f"attached to {volume.attached_to}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What volumes cost a month, an estimate; those that are `unpriced` come on top."""

    usd_per_month: float
    unpriced: tuple[str, ...]
    basis: str = ""

    @property
    def words(self) -> str:
        """The same for people."""
        words = f"about {self.usd_per_month:.2f} USD a month {self.basis}".rstrip()
        if not self.unpriced:
            return words
        unknown = f"the unknown price of {', '.join(self.unpriced)}"
        return f"{words} and {unknown}" if self.usd_per_month else unknown


def cost_of(volumes: Iterable[Volume], price: Price | None = None) -> Cost:
    """The sum of the prices that are known; `price` has the words for whose prices they are."""
    volumes = tuple(volumes)
    return Cost(
        sum(volume.usd_per_month or 0.0 for volume in volumes),
        tuple(volume.id for volume in volumes if volume.usd_per_month is None),
        price.basis if price else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    """What counts against the limits and what it costs, and the volumes that do not count.

    `slots_free` is None where the limit of the instance type is not known.
    """

    volumes: int
    size_bytes: int
    cost: Cost
    orphans: int
    slots_free: int | None


def managed(
    seen: Observation, tried: Tried = NOTHING_TRIED, created: Mapping[str, Volume] | None = None
) -> Managed:
    """What there is at this look, or after the growth that followed it and `created` these."""
    counted_here = {volume.id: volume for volume in limited(seen, tried)}
    new = {id_: volume for id_, volume in (created or {}).items() if id_ not in tried.set_aside}
    volumes = {**new, **counted_here}.values()
    slots_free = seen.inventory.slots_free
    if slots_free is not None and created is not None:
        slots_free -= sum(not volume.attached_to for volume in volumes)
    return Managed(
        volumes=len(volumes),
        size_bytes=sum(volume.size_bytes for volume in volumes),
        cost=cost_of(volumes, seen.inventory.price),
        orphans=len(unused(seen, tried)),
        slots_free=slots_free,
    )


def _ordinals_above_devices(seen: Observation) -> tuple[int, int]:
    """The lowest and the highest ordinal that a growth after the newest device can have.

    BTRFS gives each device the highest devid plus one, and the first has devid 1 and ordinal 0. So
    devids show devices whose volume EC2 does not list, and devices that were removed since.
    """
    devids = (device.devid for device in seen.reading.devices)
    ordinals = (v.growth.ordinal for v in seen.inventory.volumes if seen.is_device(v))
    newest = max([max(devids, default=0) - 1, *ordinals])
    return newest + 1, newest + _ORDINAL_GAP_MAX
