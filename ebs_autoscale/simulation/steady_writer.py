"""What the policy would do to a steady writer: when it grows, by how much, at what price. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from ebs_autoscale.ec2.volume_types import HOURS_PER_MONTH, usd_per_month
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import (
    Grow,
    GrowthId,
    Inventory,
    Member,
    Reading,
    Refuse,
    Volume,
    VolumeSpec,
)
from ebs_autoscale.policy.decision import decide
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import GROWTH_SECONDS_PRIOR, Forecast, gib
from ebs_autoscale.units import format_size, parse_size

# Fine enough to be right to a second in what people simulate, and never a long wait.
_TICK_SECONDS = 1.0
_TICKS_MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A steady writer; `size_bytes` is an empty filesystem to begin with, None the mounted one."""

    rate_bytes_per_second: float
    seconds: float
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """A growth of the simulation; `total_bytes` is the filesystem's size with it."""

    at_seconds: float
    size_bytes: int
    total_bytes: int
    reason: str


@dataclass(slots=True, kw_only=True)
class Course:
    """How it went; `full_at_seconds` is when the writer got ENOSPC, None when it never did."""

    bought: list[Bought] = field(default_factory=list)
    refused: Refuse | None = None
    refused_at_seconds: float = 0.0
    full_at_seconds: float | None = None


def parse_scenario(words: Sequence[str]) -> Scenario:
    """Read `rate=500MiB/s hours=2 size=100GiB`; raises ConfigInvalid with what is wrong."""
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := given.keys() - {"rate", "hours", "size"}:
        raise _invalid(f"no such word: {', '.join(sorted(unknown))}")
    if missing := {"rate", "hours"} - given.keys():
        raise _invalid(f"missing: {', '.join(sorted(missing))}")
    try:
        hours = float(given["hours"])
        rate = parse_size(given["rate"].removesuffix("/s"))
        size = parse_size(given["size"]) if "size" in given else None
    except ValueError as error:
        raise _invalid(str(error)) from error
    if not 0 < hours <= 24 * 366:
        raise _invalid(f"hours={given['hours']} is not between 0 and a year")
    return Scenario(rate_bytes_per_second=rate, seconds=hours * 3600, size_bytes=size)


def _invalid(what: str) -> ConfigInvalid:
    hint = "for example --simulate rate=500MiB/s hours=2, and size=100GiB for a filesystem to be"
    return ConfigInvalid(f"--simulate: {what}", hint=hint, cause="usage")


def empty(size_bytes: int) -> Reading:
    """An empty filesystem of this size."""
    member = Member(devid=1, name="nvme0n1", size_bytes=size_bytes, unallocated_bytes=size_bytes)
    return Reading(
        filesystem="0" * 8,
        mountpoint="/",
        taken_at_seconds=0.0,
        size_bytes=size_bytes,
        available_bytes=size_bytes,
        used_bytes=0,
        statvfs_available_bytes=size_bytes,
        metadata_headroom_bytes=size_bytes,
        metadata_profile="single",
        members=(member,),
    )


def simulate(scenario: Scenario, start: Reading, policy: GrowthPolicy) -> Course:
    """Let the writer go on to the end or to ENOSPC; each growth takes what is assumed of EC2.

    Attachment slots are not known here: only a number in `limits.volumes` counts.
    """
    course = Course()
    rate = scenario.rate_bytes_per_second
    forecast = Forecast(fill_bytes_per_second=rate, sustained_bytes_per_second=rate)
    tick = max(_TICK_SECONDS, scenario.seconds / _TICKS_MOST)
    now, used, arrives = 0.0, float(start.used_bytes), 0.0
    while now <= scenario.seconds:
        arrived = [b for b in course.bought if b is not course.bought[-1] or now >= arrives]
        reading = _reading(start, arrived, used=int(used), now=now)
        if reading.available_bytes <= 0:
            course.full_at_seconds = now
            break
        if now >= arrives:
            decision = decide(
                reading, _inventory(start, course.bought, now), policy, forecast=forecast
            )
            if isinstance(decision, Grow):
                arrives = now + GROWTH_SECONDS_PRIOR
                course.bought.append(
                    Bought(
                        at_seconds=now,
                        size_bytes=decision.size_bytes,
                        total_bytes=reading.size_bytes + decision.size_bytes,
                        reason=decision.reason,
                    )
                )
            elif isinstance(decision, Refuse) and course.refused is None:
                course.refused, course.refused_at_seconds = decision, now
        now += tick
        used += scenario.rate_bytes_per_second * tick
    return course


def _reading(start: Reading, arrived: Sequence[Bought], *, used: int, now: float) -> Reading:
    added = sum(bought.size_bytes for bought in arrived)
    left = start.available_bytes - (used - start.used_bytes) + added
    count = len(start.members)
    members = tuple(
        Member(
            devid=count + i,
            name=f"simulated{i}",
            size_bytes=bought.size_bytes,
            unallocated_bytes=bought.size_bytes,
        )
        for i, bought in enumerate(arrived, start=1)
    )
    return Reading(
        filesystem=start.filesystem,
        mountpoint=start.mountpoint,
        taken_at_seconds=now,
        size_bytes=start.size_bytes + added,
        available_bytes=left,
        used_bytes=used,
        statvfs_available_bytes=left,
        metadata_headroom_bytes=start.metadata_headroom_bytes + added,
        metadata_profile=start.metadata_profile,
        members=(*start.members, *members),
    )


def _inventory(start: Reading, bought: Sequence[Bought], now: float) -> Inventory:
    volumes = tuple(
        Volume(
            id=f"vol-{i}",
            growth=GrowthId(start.filesystem, i),
            size_bytes=each.size_bytes,
            state="in-use",
            node=f"simulated{i}",
        )
        for i, each in enumerate(bought, start=1)
    )
    return Inventory(
        instance_id="",
        volumes=volumes,
        device_names=frozenset(),
        slots_free=None,
        seconds_since_last_create=now - bought[-1].at_seconds if bought else None,
    )


def told(scenario: Scenario, course: Course, volume: VolumeSpec) -> Iterator[str]:
    """The course in lines for people: each growth, then what it costs."""
    for each in course.bought:
        size, total = format_size(each.size_bytes), format_size(each.total_bytes)
        yield f"  {_clock(each.at_seconds)}  + {size} to {total}: {each.reason}"
    if course.refused:
        reason = f"refused by {course.refused.limit}: {course.refused.reason}"
        yield f"  {_clock(course.refused_at_seconds)}  {reason}; {course.refused.hint}"
    if course.full_at_seconds is not None:
        yield f"  {_clock(course.full_at_seconds)}  full: the writer gets ENOSPC"
    monthly, spent = costs(scenario, course, volume)
    count, all_bytes = len(course.bought), sum(each.size_bytes for each in course.bought)
    yield (
        f"{count} growths, {gib(all_bytes)} GiB bought: {monthly:.2f} USD a month at list price,"
        f" {spent:.2f} USD of it in {scenario.seconds / 3600:g} h"
    )


def as_json(scenario: Scenario, course: Course, volume: VolumeSpec) -> dict[str, object]:
    """The course for machines."""
    monthly, spent = costs(scenario, course, volume)
    return {
        "growths": [asdict(each) for each in course.bought],
        "refused_by": course.refused.limit if course.refused else None,
        "refused_at_seconds": course.refused_at_seconds if course.refused else None,
        "full_at_seconds": course.full_at_seconds,
        "usd_per_month": round(monthly, 2),
        "usd_spent": round(spent, 2),
    }


def costs(scenario: Scenario, course: Course, volume: VolumeSpec) -> tuple[float, float]:
    """US dollars a month for all that was bought, and for the time simulated."""
    prices = [usd_per_month(volume, each.size_bytes) for each in course.bought]
    hours = [(scenario.seconds - each.at_seconds) / 3600 for each in course.bought]
    spent = sum(usd * h for usd, h in zip(prices, hours, strict=True)) / HOURS_PER_MONTH
    return sum(prices), spent


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"
