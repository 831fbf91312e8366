"""What the policy would do to a steady writer: when it grows, by how much, at what price. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from ebs_autoscale.ec2.volume_types import HOURS_PER_MONTH, usd_per_month
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import (
    Device,
    Grow,
    GrowthId,
    Inventory,
    Observation,
    Reading,
    Refuse,
    Volume,
    VolumeSpec,
)
from ebs_autoscale.policy import GROWTH_SECONDS_PRIOR, Forecast, GrowthPolicy, decide
from ebs_autoscale.units import counted, format_size, parse_size

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
class Created:
    """A growth of the simulation; `total_bytes` is the filesystem's size with it."""

    at_seconds: float
    size_bytes: int
    total_bytes: int
    reason: str


@dataclass(slots=True, kw_only=True)
class Course:
    """How it went; `full_at_seconds` is when the writer got ENOSPC, None when it never did."""

    created: list[Created] = field(default_factory=list)
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
    return ConfigInvalid(f"--simulate: {what}", hint=hint, cause=Cause.USAGE)


def empty(size_bytes: int) -> Reading:
    """An empty filesystem of this size."""
    device = Device(devid=1, name="nvme0n1", size_bytes=size_bytes, unallocated_bytes=size_bytes)
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
        devices=(device,),
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
        arrived = [b for b in course.created if b is not course.created[-1] or now >= arrives]
        reading = _reading(start, arrived, used=int(used), now=now)
        if reading.available_bytes <= 0:
            course.full_at_seconds = now
            break
        if now >= arrives:
            decision = decide(
                _observation(start, reading, course.created, now), policy, forecast=forecast
            )
            if isinstance(decision, Grow):
                arrives = now + GROWTH_SECONDS_PRIOR
                course.created.append(
                    Created(
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


def _reading(start: Reading, arrived: Sequence[Created], *, used: int, now: float) -> Reading:
    added = sum(created.size_bytes for created in arrived)
    left = start.available_bytes - (used - start.used_bytes) + added
    count = len(start.devices)
    devices = tuple(
        Device(
            devid=count + i,
            name=f"simulated{i}",
            size_bytes=created.size_bytes,
            unallocated_bytes=created.size_bytes,
        )
        for i, created in enumerate(arrived, start=1)
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
        devices=(*start.devices, *devices),
    )


def _observation(
    start: Reading, reading: Reading, created: Sequence[Created], now: float
) -> Observation:
    volumes = tuple(
        Volume(
            id=f"vol-{i}",
            growth=GrowthId(start.filesystem, i),
            size_bytes=each.size_bytes,
            state="in-use",
        )
        for i, each in enumerate(created, start=1)
    )
    inventory = Inventory(
        instance_id="",
        volumes=volumes,
        device_names=frozenset(),
        slots_free=None,
        seconds_since_last_create=now - created[-1].at_seconds if created else None,
    )
    nodes = {volume.id: f"simulated{volume.growth.ordinal}" for volume in volumes}
    return Observation(reading=reading, inventory=inventory, nodes=nodes)


def as_text(scenario: Scenario, course: Course, volume: VolumeSpec) -> Iterator[str]:
    """The course in lines for people: each growth, then what it costs."""
    for each in course.created:
        size, total = format_size(each.size_bytes), format_size(each.total_bytes)
        yield f"  {_clock(each.at_seconds)}  + {size} to {total}: {each.reason}"
    if course.refused:
        reason = f"refused by {course.refused.limit.value}: {course.refused.reason}"
        yield f"  {_clock(course.refused_at_seconds)}  {reason}; {course.refused.hint}"
    if course.full_at_seconds is not None:
        yield f"  {_clock(course.full_at_seconds)}  full: the writer gets ENOSPC"
    monthly, spent = costs(scenario, course, volume)
    growths, all_bytes = (
        counted(len(course.created), "growth"),
        sum(each.size_bytes for each in course.created),
    )
    yield (
        f"{growths}, {format_size(all_bytes)} created: {monthly:.2f} USD a month at list price,"
        f" {spent:.2f} USD of it in {scenario.seconds / 3600:g} h"
    )


def as_json(scenario: Scenario, course: Course, volume: VolumeSpec) -> dict[str, object]:
    """The course for machines."""
    monthly, spent = costs(scenario, course, volume)
    return {
        "growths": [asdict(each) for each in course.created],
        "refused_by": course.refused.limit.value if course.refused else None,
        "refused_at_seconds": course.refused_at_seconds if course.refused else None,
        "full_at_seconds": course.full_at_seconds,
        "usd_per_month": round(monthly, 2),
        "usd_spent": round(spent, 2),
    }


def costs(scenario: Scenario, course: Course, volume: VolumeSpec) -> tuple[float, float]:
    """US dollars a month for all that was created, and for the time simulated."""
    prices = [usd_per_month(volume, each.size_bytes) for each in course.created]
    hours = [(scenario.seconds - each.at_seconds) / 3600 for each in course.created]
    spent = sum(usd * h for usd, h in zip(prices, hours, strict=True)) / HOURS_PER_MONTH
    return sum(prices), spent


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"
