"""What the policy does for a steady writer: when it grows, by how much, at what price. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from ebs_autoscale.ec2.volume_types import HOURS_PER_MONTH, usd_per_month
from ebs_autoscale.errors import Cause, ConfigInvalid, with_hint
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
from ebs_autoscale.policy import GROWTH_SECONDS_PRIOR, Forecast, GrowthPolicy, decide, describe
from ebs_autoscale.units import counted, format_size, parse_size

# Exact to a second for up to a day, and never long to wait for.
_TICK_SECONDS = 1.0
_TICKS_MAX = 100_000
_HOURS_MAX = 24 * 366


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A steady writer; `size_bytes` is of an empty filesystem, None stands for the mounted one."""

    rate_bytes_per_second: float
    seconds: float
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A volume that was created; `total_bytes` is the size of the filesystem with it."""

    at_seconds: float
    size_bytes: int
    total_bytes: int
    reason: str


@dataclass(slots=True, kw_only=True)
class Course:
    """What happened; `full_at_seconds` is when the writer got ENOSPC, None if it never did."""

    created: list[Created] = field(default_factory=list)
    refused: Refuse | None = None
    refused_at_seconds: float = 0.0
    full_at_seconds: float | None = None


def parse_scenario(words: Sequence[str]) -> Scenario:
    """Read `rate=500MiB/s hours=2 size=100GiB`; raises ConfigInvalid with what is wrong."""
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := given.keys() - {"rate", "hours", "size"}:
        raise _invalid(f"unknown: {', '.join(sorted(unknown))}")
    if missing := {"rate", "hours"} - given.keys():
        raise _invalid(f"missing: {', '.join(sorted(missing))}")
    try:
        hours = float(given["hours"])
        rate = parse_size(given["rate"].removesuffix("/s"))
        size = parse_size(given["size"]) if "size" in given else None
    except ValueError as error:
        raise _invalid(str(error)) from error
    if not 0 < hours <= _HOURS_MAX:
        allowed = f"it must be above 0 and at most {_HOURS_MAX}"
        raise _invalid(f"hours={given['hours']} is out of range; {allowed}")
    return Scenario(rate_bytes_per_second=rate, seconds=hours * 3600, size_bytes=size)


def _invalid(what: str) -> ConfigInvalid:
    hint = "for example: --simulate rate=500MiB/s hours=2 (and size=100GiB for an empty filesystem)"
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
    """Let the writer write to the end or to ENOSPC; each growth takes the usual time.

    Attachment slots are not known here: only a number in `limits.volumes` limits the volumes.
    """
    course = Course()
    rate = scenario.rate_bytes_per_second
    forecast = Forecast(fill_bytes_per_second=rate, sustained_bytes_per_second=rate)
    tick_seconds = max(_TICK_SECONDS, scenario.seconds / _TICKS_MAX)
    now = added_at = 0.0
    while now <= scenario.seconds:
        added = course.created if now >= added_at else course.created[:-1]
        reading = _reading(start, added, used_bytes=int(start.used_bytes + rate * now), now=now)
        if reading.available_bytes <= 0:
            course.full_at_seconds = now
            break
        if now >= added_at:
            seen = _observation(reading, course.created)
            match decide(seen, policy, forecast=forecast):
                case Grow() as growth:
                    course.created.append(_created(growth, reading))
                    added_at = now + GROWTH_SECONDS_PRIOR
                case Refuse() as refusal if course.refused is None:
                    course.refused, course.refused_at_seconds = refusal, now
        now += tick_seconds
    return course


def _created(growth: Grow, reading: Reading) -> Created:
    return Created(
        at_seconds=reading.taken_at_seconds,
        size_bytes=growth.size_bytes,
        total_bytes=reading.size_bytes + growth.size_bytes,
        reason=growth.reason,
    )


def _reading(start: Reading, added: Sequence[Created], *, used_bytes: int, now: float) -> Reading:
    added_bytes = sum(created.size_bytes for created in added)
    available_bytes = start.available_bytes - (used_bytes - start.used_bytes) + added_bytes
    count = len(start.devices)
    devices = tuple(
        Device(
            devid=count + i,
            name=f"simulated{i}",
            size_bytes=created.size_bytes,
            unallocated_bytes=created.size_bytes,
        )
        for i, created in enumerate(added, start=1)
    )
    return Reading(
        filesystem=start.filesystem,
        mountpoint=start.mountpoint,
        taken_at_seconds=now,
        size_bytes=start.size_bytes + added_bytes,
        available_bytes=available_bytes,
        used_bytes=used_bytes,
        statvfs_available_bytes=available_bytes,
        metadata_headroom_bytes=start.metadata_headroom_bytes + added_bytes,
        metadata_profile=start.metadata_profile,
        devices=(*start.devices, *devices),
    )


def _observation(reading: Reading, created: Sequence[Created]) -> Observation:
    volumes = tuple(
        Volume(
            id=f"vol-{i}",
            growth=GrowthId(reading.filesystem, i),
            size_bytes=each.size_bytes,
            state="in-use",
            age_seconds=reading.taken_at_seconds - each.at_seconds,
        )
        for i, each in enumerate(created, start=1)
    )
    inventory = Inventory(
        instance_id="",
        volumes=volumes,
        device_names=frozenset(),
        slots_free=None,
    )
    nodes = {volume.id: f"simulated{volume.growth.ordinal}" for volume in volumes}
    return Observation(reading=reading, inventory=inventory, nodes=nodes)


def as_text(scenario: Scenario, course: Course, volume: VolumeSpec) -> Iterator[str]:
    """The course in lines: each growth, then the costs."""
    for each in course.created:
        size, total = format_size(each.size_bytes), format_size(each.total_bytes)
        yield f"  {_clock(each.at_seconds)}  + {size} to {total}: {each.reason}"
    if course.refused:
        line = with_hint(describe(course.refused), course.refused.hint)
        yield f"  {_clock(course.refused_at_seconds)}  {line}"
    if course.full_at_seconds is not None:
        yield f"  {_clock(course.full_at_seconds)}  the filesystem is full: writes fail with ENOSPC"
    monthly, spent = costs(scenario, course, volume)
    growths = counted(len(course.created), "growth")
    created = format_size(sum(each.size_bytes for each in course.created))
    yield (
        f"{growths}, {created} created: {monthly:.2f} USD per month at list price, "
        f"{spent:.2f} USD for these {scenario.seconds / 3600:g} h"
    )


def as_json(scenario: Scenario, course: Course, volume: VolumeSpec) -> dict[str, object]:
    """The course as values for JSON."""
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
    """US dollars a month for all volumes, and what they cost within the time simulated."""
    prices = [usd_per_month(volume, each.size_bytes) for each in course.created]
    hours = [(scenario.seconds - each.at_seconds) / 3600 for each in course.created]
    spent = sum(usd * h for usd, h in zip(prices, hours, strict=True)) / HOURS_PER_MONTH
    return sum(prices), spent


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"
