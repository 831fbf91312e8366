"""What the limits allow: whether there may be another volume, how large, and at what cost. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, inf

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import GIB, Price, Refuse, Volume
from ebs_autoscale.policy.ownership import cost_of
from ebs_autoscale.policy.settings import GrowthPolicy, Limits, Sizing
from ebs_autoscale.policy.sizing import Size
from ebs_autoscale.units import counted, format_size

# A price that fits exactly must not fail by a rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """How large a volume a limit still allows, and the words that say why."""

    limit: Cause
    size_bytes: int
    why: str


def room_in(volume: Volume, sizing: Sizing) -> int:
    """How much can be added to this volume, in whole GiB; 0 or less for nothing."""
    most = min(sizing.max_bytes, volume.largest_bytes)
    return (most // GIB - -(-volume.size_bytes // GIB)) * GIB


def priced(size_bytes: int, price: Price | None) -> str:
    """A size with what it costs, as every reason to spend money says it."""
    words = f" for {price.words(size_bytes)}" if price else ""
    return f"{format_size(size_bytes)}{words}"


@dataclass(frozen=True, slots=True)
class Full:
    """Why there can be no other volume, and what to do about it."""

    why: str
    hint: str

    def refusal(self, reason: str) -> Refuse:
        """The growth for this reason, refused."""
        return Refuse(limit=Cause.LIMIT_VOLUMES, reason=f"{reason}, but {self.why}", hint=self.hint)


def full(volumes: Sequence[Volume], slots_free: int | None, limits: Limits) -> Full | None:
    """The limit that leaves no room for another volume."""
    count = len(volumes)
    if limits.volumes is not None and count >= limits.volumes:
        exist = "exists" if count == 1 else "exist"
        why = f"{count} of {counted(limits.volumes, 'volume')} {exist} already"
        return Full(why, "raise limits.volumes")
    if slots_free is not None and slots_free <= 0:
        return Full(
            "the instance has no free attachment slot",
            "use a larger instance type, or detach volumes that are not needed",
        )
    return None


def cooling(volumes: Sequence[Volume], limits: Limits, *, reason: str) -> Refuse | None:
    """The limit that forbids any growth so soon after the last one."""
    changes = [volume.modification for volume in volumes if volume.modification]
    ages = {
        done: min((each.age_seconds for each in found if each.age_seconds is not None), default=inf)
        for done, found in (("created", volumes), ("enlarged", changes))
    }
    done = min(ages, key=lambda each: ages[each])
    # EC2's clock can be ahead of ours.
    since = max(0.0, ages[done])
    if since >= limits.cooldown_seconds:
        return None
    wait = limits.cooldown_seconds - since
    return Refuse(
        limit=Cause.LIMIT_COOLDOWN,
        reason=f"{reason}, but the last volume was {done} {since:.0f} s ago",
        hint=f"the cooldown ends in {max(1.0, wait):.0f} s",
    )


@dataclass(frozen=True, slots=True)
class Granted:
    """What all limits on size and cost allow, the reason for it, and what it costs if known."""

    size_bytes: int
    reason: str
    usd_per_month: float | None


def granted(
    size: Size,
    volumes: Sequence[Volume],
    policy: GrowthPolicy,
    *,
    price: Price | None,
    reason: str,
    enlarged: Volume | None = None,
) -> Granted | Refuse:
    """The size of a new volume, or what is added to `enlarged`; or the limit that forbids it.

    A size that was requested is granted as it is or refused; others are made smaller.
    """
    rooms = list(_rooms(size, volumes, policy, price, enlarged))
    tightest = min(rooms, key=lambda room: room.size_bytes)
    sizing = policy.sizing
    sold_min = GIB if enlarged else sizing.sold_min_bytes
    if size.is_requested and size.size_bytes > tightest.size_bytes:
        keys = [room.limit.value for room in rooms if room.size_bytes < size.size_bytes]
        hint = f"raise {' and '.join(keys)}"
        if tightest.size_bytes >= sold_min:
            hint += f", or request at most {format_size(tightest.size_bytes)}"
        return Refuse(limit=tightest.limit, reason=f"{reason}, but {tightest.why}", hint=hint)
    if not enlarged and not sold_min <= size.size_bytes <= sizing.sold_max_bytes:
        return Refuse(
            limit=Cause.VOLUME_TYPE,
            reason=f"{reason}, but volumes of the configured type and IOPS can have "
            f"{format_size(sold_min)} to {format_size(sizing.sold_max_bytes)}, not "
            f"{format_size(size.size_bytes)}",
            hint="request another size, or change volume.type or volume.iops",
        )
    if tightest.size_bytes < sold_min:
        smallest = "the smallest volume of the configured type"
        least = "the least that can be added" if enlarged else smallest
        return Refuse(
            limit=tightest.limit,
            reason=f"{reason}, but {tightest.why}; {least} is {priced(sold_min, price)}",
            hint=f"raise {tightest.limit.value}",
        )
    return _granted(size, tightest, volumes, policy.limits, price=price, reason=reason)


def _granted(
    size: Size,
    tightest: _Room,
    volumes: Sequence[Volume],
    limits: Limits,
    *,
    price: Price | None,
    reason: str,
) -> Granted:
    allowed = min(size.size_bytes, tightest.size_bytes)
    if not size.is_requested:
        why = size.why
        if allowed < size.size_bytes:
            wanted = f"{format_size(size.size_bytes)} wanted: {why}"
            why = f"capped by {tightest.limit.value} ({wanted})"
        reason += f"; {priced(allowed, price)}: {why}"
    unpriced = cost_of(volumes).unpriced
    if unpriced and limits.monthly_usd is not None:
        reason += f"; limits.monthly leaves out {', '.join(unpriced)}, whose price is not known"
    return Granted(allowed, reason, price.usd_per_month(allowed) if price else None)


def _rooms(
    size: Size,
    volumes: Sequence[Volume],
    policy: GrowthPolicy,
    price: Price | None,
    enlarged: Volume | None,
) -> Iterator[_Room]:
    """What each limit leaves; growth.max is applied already to a size that was not requested."""
    limits, largest = policy.limits, policy.sizing.max_bytes
    if enlarged:
        room = room_in(enlarged, policy.sizing)
        why = (
            f"{enlarged.id} has {format_size(enlarged.size_bytes)} already, and can have at most "
            f"{format_size(room + enlarged.size_bytes)}"
        )
        yield _Room(limit=Cause.LIMIT_SIZE, size_bytes=room, why=why)
    elif size.is_requested:
        why = f"no volume may be larger than growth.max ({format_size(largest)})"
        yield _Room(limit=Cause.LIMIT_SIZE, size_bytes=largest // GIB * GIB, why=why)
    total_bytes = sum(volume.size_bytes for volume in volumes)
    yield _Room(
        limit=Cause.LIMIT_TOTAL,
        size_bytes=(limits.total_bytes - total_bytes) // GIB * GIB,
        why=f"managed volumes already total {format_size(total_bytes)} of "
        f"{format_size(limits.total_bytes)}",
    )
    if limits.monthly_usd is not None and price:
        cost = cost_of(volumes)
        left = limits.monthly_usd - cost.usd_per_month - price.usd_fixed
        yield _Room(
            limit=Cause.LIMIT_MONTHLY,
            size_bytes=floor(left / price.usd_per_gib + _ROUNDING) * GIB,
            why=f"managed volumes already cost {cost.words}, and limits.monthly is "
            f"{limits.monthly_usd:.2f} USD",
        )
