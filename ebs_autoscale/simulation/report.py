"""A simulation as a table for whoever pays, and as values for JSON. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from ebs_autoscale.config import offered
from ebs_autoscale.ec2.volume_types import (
    HOURS_PER_MONTH,
    PRICE_SOURCE,
    price_of,
    usd_per_month,
)
from ebs_autoscale.errors import with_hint
from ebs_autoscale.model import MIB, Reading, VolumeSpec
from ebs_autoscale.policy import COMPLETION_SECONDS, GrowthPolicy, describe
from ebs_autoscale.simulation.faster import cheapest
from ebs_autoscale.simulation.scenario import Scenario
from ebs_autoscale.simulation.steady_writer import Course, simulate
from ebs_autoscale.units import counted, format_duration, format_size, wrapped

_WIDTH = 80

_BTRFS = (
    "data goes to the volume with the most unallocated space (BTRFS, profile single): to the "
    "newest one alone, until the others have as much left"
)
_BURSTS = "each volume is as configured and takes no bursts"
_PRICES = f"prices are estimates, from {PRICE_SOURCE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was simulated and what came of it; `faster` is what would carry the writer."""

    scenario: Scenario
    start: Reading
    volume: VolumeSpec
    course: Course
    assumed: tuple[str, ...]
    faster: tuple[VolumeSpec, Course] | None

    @property
    def is_limited(self) -> bool:
        """Whether the writer was ever slower than it wanted to be."""
        wanted = self.scenario.rate_bytes_per_second
        return any(rate < wanted for _, rate in self.course.rates)

    @property
    def sizes_bytes(self) -> list[int]:
        """The size of each volume at the end."""
        return self.course.sizes_bytes(self.start)

    @property
    def usd_spent(self) -> float:
        """US dollars for what was created, within the time simulated."""
        return sum(
            each.added_usd_per_month
            * (self.scenario.seconds - each.at_seconds)
            / 3600
            / HOURS_PER_MONTH
            for each in self.course.created
        )


def report(
    scenario: Scenario,
    start: Reading,
    policy: GrowthPolicy,
    volume: VolumeSpec,
    assumed: Sequence[str],
) -> Report:
    """Simulate, and if the volumes are too slow also with the cheapest that are not."""
    course = simulate(scenario, start, policy, volume)
    this = Report(
        scenario=scenario,
        start=start,
        volume=volume,
        course=course,
        assumed=(*assumed, *_assumed(start, course)),
        faster=None,
    )
    if not this.is_limited:
        return this
    fast = cheapest(scenario.rate_bytes_per_second, volume, policy, this.sizes_bytes)
    if fast is None:
        return this
    sizing = offered(policy.sizing, fast)
    faster = simulate(scenario, start, replace(policy, sizing=sizing), fast)
    return replace(this, faster=(fast, faster))


def _assumed(start: Reading, course: Course) -> Iterator[str]:
    yield _BURSTS
    yield _BTRFS if start.kind.takes_devices else "inodes are not used up before space is"
    yield _PRICES
    if any(each.enlarges is not None for each in course.created):
        minutes = format_duration(COMPLETION_SECONDS)
        yield (
            "the role may enlarge volumes (`iam-policy --enlarge`); EC2 does so at once, is ready "
            f"for the next modification after {minutes}, and allows four a day of each volume"
        )


def as_text(this: Report) -> str:
    """The table, the sums and what they assume, 80 columns wide."""
    scenario, size = this.scenario, format_size(this.start.size_bytes)
    wanted, hours = _speed(scenario.rate_bytes_per_second), format_duration(scenario.seconds)
    kind = this.start.kind
    on = f"a filesystem of {size}" if kind.takes_devices else f"{kind} of {size}, on one volume"
    title = f"A steady writer of {wanted} for {hours} on {on}:"
    table = "\n".join(_table(this.course))
    sums = "\n".join(wrapped(each, _WIDTH) for each in _sums(this))
    assumed = "\n".join(wrapped(each, _WIDTH, first="- ", indent="  ") for each in this.assumed)
    return "\n\n".join((title, table, sums, f"Assumed:\n{assumed}"))


def _table(course: Course) -> Iterator[str]:
    yield f"{_row('time', 'added', 'total', 'USD/month', 'MiB/s')}  reason"
    for each in course.created:
        cells = _row(
            _clock(each.at_seconds),
            format_size(each.size_bytes),
            format_size(each.total_bytes),
            f"{each.usd_per_month:.2f}",
            f"{each.bytes_per_second / MIB:.3g}",
        )
        yield _with_reason(cells, each.reason)
    if course.refused:
        reason = with_hint(describe(course.refused), course.refused.hint)
        yield _with_reason(_row(_clock(course.refused_at_seconds)), reason)
    if course.full_at_seconds is not None:
        reason = "the filesystem is full: writes fail with ENOSPC"
        yield _with_reason(_row(_clock(course.full_at_seconds)), reason)


def _row(time: str, added: str = "", total: str = "", usd: str = "", speed: str = "") -> str:
    return f"{time:>10} {added:>8} {total:>8} {usd:>10} {speed:>6}"


def _with_reason(cells: str, reason: str) -> str:
    return wrapped(reason, _WIDTH, first=f"{cells}  ", indent=" " * (len(cells) + 2))


def _sums(this: Report) -> Iterator[str]:
    course, scenario = this.course, this.scenario
    hours = format_duration(scenario.seconds)
    basis = price_of(this.volume).basis
    yield f"{_growths(course)} {basis}; {this.usd_spent:.2f} USD within {hours}"
    if not this.is_limited:
        return
    rates = [rate for _, rate in course.rates]
    limit = f"limited to {_speed(min(rates))} by the volume"
    if max(rates) > min(rates):
        several = "while several have as much unallocated space"
        when = several if this.start.kind.takes_devices else "once it is larger"
        limit += f", up to {_speed(max(rates))} {when}"
    average = course.written_bytes / (course.full_at_seconds or scenario.seconds)
    yield f"{limit}; {format_size(int(course.written_bytes))} written, {_speed(average)} on average"
    yield _faster(this)


def _growths(course: Course) -> str:
    created = format_size(sum(each.size_bytes for each in course.created))
    growths = counted(len(course.created), "growth")
    is_larger = any(each.enlarges is not None for each in course.created)
    how = "added" if is_larger else "created"
    return f"{growths}, {created} {how}: {_usd(course):.2f} USD a month"


def _usd(course: Course) -> float:
    return course.created[-1].usd_per_month if course.created else 0.0


def _faster(this: Report) -> str:
    wanted = _speed(this.scenario.rate_bytes_per_second)
    if this.faster is None:
        return f"no type of volume takes {wanted} with this configuration"
    volume, course = this.faster
    keys = ", ".join(f"`{key}: {value}`" for key, value in _changes(this.volume, volume))
    sizes = this.sizes_bytes
    usd = sum(usd_per_month(volume, size) - usd_per_month(this.volume, size) for size in sizes)
    each = f"{usd / len(sizes):.2f}".removesuffix(".00")
    full = course.full_at_seconds
    end = f"; full after {_clock(full)}" if full is not None else ""
    return (
        f"{keys} adds {each} USD a month for each volume and carries {wanted}: "
        f"{_growths(course)}{end}"
    )


def _changes(now: VolumeSpec, then: VolumeSpec) -> Iterator[tuple[str, object]]:
    """The keys to change, with their values."""
    for key, field in (
        ("volume.type", "type"),
        ("volume.iops", "iops"),
        ("volume.throughput", "throughput_mib_per_second"),
    ):
        value = getattr(then, field)
        if value != getattr(now, field):
            yield key, "null" if value is None else value


def as_json(this: Report) -> dict[str, object]:
    """The same as values for JSON."""
    course, scenario = this.course, this.scenario
    refused, faster = course.refused, None
    if this.faster:
        volume, other = this.faster
        faster = {
            **dict(_changes(this.volume, volume)),
            "growths": len(other.created),
            "usd_per_month": round(_usd(other), 2),
            "full_at_seconds": other.full_at_seconds,
        }
    return {
        "rate_bytes_per_second": scenario.rate_bytes_per_second,
        "seconds": scenario.seconds,
        "size_bytes": this.start.size_bytes,
        "growths": [asdict(each) for each in course.created],
        "refused_by": refused.limit.value if refused else None,
        "refused_at_seconds": course.refused_at_seconds if refused else None,
        "full_at_seconds": course.full_at_seconds,
        "written_bytes": int(course.written_bytes),
        "limited_to_bytes_per_second": [
            {"at_seconds": at_seconds, "bytes_per_second": rate}
            for at_seconds, rate in course.rates
            if this.is_limited
        ],
        "faster": faster,
        "created_bytes": sum(each.size_bytes for each in course.created),
        "usd_per_month": round(_usd(course), 2),
        "usd_spent": round(this.usd_spent, 2),
        "price_basis": price_of(this.volume).basis,
        "price_source": PRICE_SOURCE,
        "assumed": list(this.assumed),
    }


def _speed(bytes_per_second: float) -> str:
    return f"{format_size(int(bytes_per_second))}/s"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"
