"""What the limits allow: whether there may be another volume, how large, and at what cost. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, inf

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import GIB, Grow, GrowthId, Price, Refuse, Volume
from ebs_autoscale.policy.ownership import cost_of
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
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


def priced(size_bytes: int, price: Price | None) -> str:
    """A size with what it costs, as every reason to spend money says it."""
    words = f" for {price.words(size_bytes)}" if price else ""
    return f"{format_size(size_bytes)}{words}"


def refused(
    volumes: Sequence[Volume], slots_free: int | None, limits: Limits, *, reason: str
) -> Refuse | None:
    """The limit that forbids any growth now."""
    count = len(volumes)
    if limits.volumes is not None and count >= limits.volumes:
        return Refuse(
            limit=Cause.LIMIT_VOLUMES,
            reason=f"{reason}, but {count} of {counted(limits.volumes, 'volume')} exist already",
            hint="raise limits.volumes",
        )
    if slots_free is not None and slots_free <= 0:
        return Refuse(
            limit=Cause.LIMIT_VOLUMES,
            reason=f"{reason}, but the instance has no free attachment slot",
            hint="use a larger instance type, or detach volumes that are not needed",
        )
    ages = [volume.age_seconds for volume in volumes if volume.age_seconds is not None]
    # EC2's clock can be ahead of ours.
    since = max(0.0, min(ages, default=inf))
    if since < limits.cooldown_seconds:
        wait = limits.cooldown_seconds - since
        return Refuse(
            limit=Cause.LIMIT_COOLDOWN,
            reason=f"{reason}, but the last volume was created {since:.0f} s ago",
            hint=f"the cooldown ends in {max(1.0, wait):.0f} s",
        )
    return None


def sized(
    size: Size,
    volumes: Sequence[Volume],
    policy: GrowthPolicy,
    growth: GrowthId,
    *,
    price: Price | None,
    reason: str,
) -> Grow | Refuse:
    """The growth within all limits on size and cost, or which of them forbids it.

    A size that was requested is granted as it is or refused; others are made smaller.
    """
    rooms = list(_rooms(size, volumes, policy, price))
    tightest = min(rooms, key=lambda room: room.size_bytes)
    sold_min, sold_max = policy.sizing.sold_min_bytes, policy.sizing.sold_max_bytes
    if size.is_requested and size.size_bytes > tightest.size_bytes:
        keys = [room.limit.value for room in rooms if room.size_bytes < size.size_bytes]
        hint = f"raise {' and '.join(keys)}"
        if tightest.size_bytes >= sold_min:
            hint += f", or request at most {format_size(tightest.size_bytes)}"
        return Refuse(limit=tightest.limit, reason=f"{reason}, but {tightest.why}", hint=hint)
    if not sold_min <= size.size_bytes <= sold_max:
        return Refuse(
            limit=Cause.VOLUME_TYPE,
            reason=f"{reason}, but volumes of the configured type and IOPS can have "
            f"{format_size(sold_min)} to {format_size(sold_max)}, not "
            f"{format_size(size.size_bytes)}",
            hint="request another size, or change volume.type or volume.iops",
        )
    if tightest.size_bytes < sold_min:
        smallest = priced(sold_min, price)
        return Refuse(
            limit=tightest.limit,
            reason=f"{reason}, but {tightest.why}; the smallest volume of the configured type is "
            f"{smallest}",
            hint=f"raise {tightest.limit.value}",
        )
    granted = min(size.size_bytes, tightest.size_bytes)
    if not size.is_requested:
        why = size.why
        if granted < size.size_bytes:
            wanted = f"{format_size(size.size_bytes)} wanted: {why}"
            why = f"capped by {tightest.limit.value} ({wanted})"
        reason += f"; {priced(granted, price)}: {why}"
    unpriced = cost_of(volumes).unpriced
    if unpriced and policy.limits.monthly_usd is not None:
        reason += f"; limits.monthly leaves out {', '.join(unpriced)}, whose price is not known"
    usd = price.usd_per_month(granted) if price else None
    return Grow(growth=growth, size_bytes=granted, reason=reason, usd_per_month=usd)


def _rooms(
    size: Size, volumes: Sequence[Volume], policy: GrowthPolicy, price: Price | None
) -> Iterator[_Room]:
    """What each limit leaves; growth.max is applied already to a size that was not requested."""
    limits, largest = policy.limits, policy.sizing.max_bytes
    if size.is_requested:
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
