"""The metrics of one daemon in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/: written here, since the client library
costs 14 MB in a daemon that has 25.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import isinf, isnan

from ebs_autoscale import __version__
from ebs_autoscale.errors import Cause
from ebs_autoscale.model import Reading
from ebs_autoscale.policy import seconds_until_full
from ebs_autoscale.telemetry.tally import STEP_BUCKETS_SECONDS
from ebs_autoscale.telemetry.view import State, View

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "ebs_autoscale"

Sample = tuple[str, Mapping[str, str], float | None]
"""What follows the name of the metric, the labels, and the value; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, and how its samples come from a view of some time of the epoch."""

    name: str
    kind: str
    help: str
    samples: Callable[[View, float], Iterable[Sample]]


def render(view: View, *, mountpoint: str, seen_at_seconds: float) -> str:
    """All metrics of a view of that time of the epoch; each series is always there."""
    common = {"mountpoint": mountpoint}
    lines = []
    for metric in METRICS:
        name = f"{_PREFIX}_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for suffix, labels, value in metric.samples(view, seen_at_seconds):
            pairs = ",".join(f'{key}="{_escaped(v)}"' for key, v in {**common, **labels}.items())
            lines.append(f"{name}{suffix}{{{pairs}}} {_number(value)}")
    return "\n".join([*lines, ""])


def _gauge(name: str, help_text: str, value: Callable[[View], float | None]) -> Metric:
    return Metric(name, "gauge", help_text, lambda view, _: [("", {}, value(view))])


def _of_reading(name: str, help_text: str, value: Callable[[Reading], float | None]) -> Metric:
    return _gauge(name, help_text, lambda view: value(view.reading) if view.reading else None)


def _full_in_seconds(view: View) -> float | None:
    return seconds_until_full(view.reading, view.forecast) if view.reading else None


def _conditions(view: View, _: float) -> Iterator[Sample]:
    for cause in Cause:
        yield "", {"cause": cause.value}, view.has_condition(cause)


def _dropped(view: View, _: float) -> Iterator[Sample]:
    yield "", {"sink": "log"}, view.dropped_log_lines
    yield "", {"sink": "systemd"}, view.dropped_notifications
    yield "", {"sink": "metrics"}, view.dropped_metrics
    yield "", {"sink": "notify"}, view.dropped_events


def _step_durations(view: View, _: float) -> Iterator[Sample]:
    bounds = [*map(_number, STEP_BUCKETS_SECONDS), "+Inf"]
    for step, histogram in view.tally.steps.items():
        counts = list(accumulate(histogram.counts))
        for bound, count in zip(bounds, counts, strict=True):
            yield "_bucket", {"step": step, "le": bound}, count
        yield "_sum", {"step": step}, histogram.sum_seconds
        yield "_count", {"step": step}, counts[-1]


def _last_growth(view: View) -> float:
    return view.recent[-1].ended_at if view.recent else 0


METRICS = (
    Metric(
        "build_info",
        "gauge",
        "The version of the daemon; always 1.",
        lambda *_: [("", {"version": __version__}, 1)],
    ),
    Metric(
        "last_tick_timestamp_seconds",
        "gauge",
        "When the daemon last looked at the filesystem.",
        lambda _, seen_at_seconds: [("", {}, seen_at_seconds)],
    ),
    _gauge(
        "readable",
        "Whether the filesystem is mounted and can be read.",
        lambda view: view.reading is not None,
    ),
    _of_reading("size_bytes", "Size of the filesystem.", lambda reading: reading.size_bytes),
    _of_reading(
        "available_bytes",
        "What programs can still write; on BTRFS df shows another figure.",
        lambda reading: reading.available_bytes,
    ),
    _of_reading(
        "unallocated_bytes",
        "Space on the devices that is in no chunk of BTRFS yet.",
        lambda reading: reading.unallocated_bytes,
    ),
    _of_reading(
        "metadata_headroom_bytes",
        "What metadata of BTRFS can still take.",
        lambda reading: reading.metadata_headroom_bytes,
    ),
    _of_reading(
        "inodes",
        "Inodes that ext4 or XFS can have at its size, used or not.",
        lambda reading: reading.inodes.total if reading.inodes else None,
    ),
    _of_reading(
        "inodes_available",
        "Inodes of these that are left for new files.",
        lambda reading: reading.inodes.available if reading.inodes else None,
    ),
    _of_reading(
        "reserve_bytes",
        "What is held for emergencies; counts as used.",
        lambda reading: reading.reserve_bytes,
    ),
    _of_reading("devices", "Devices of the filesystem.", lambda reading: len(reading.devices)),
    _of_reading(
        "devices_missing",
        "Devices of the filesystem that the kernel no longer has.",
        lambda reading: sum(device.missing for device in reading.devices),
    ),
    _gauge(
        "fill_bytes_per_second",
        "How fast the filesystem is being filled, at the peak of the last 10 seconds.",
        lambda view: view.forecast.fill_bytes_per_second,
    ),
    _gauge(
        "full_in_seconds",
        "Time until the filesystem is full at the present rate; +Inf while it is not being filled.",
        _full_in_seconds,
    ),
    _gauge("short", "Whether space is short.", lambda view: bool(view.reading and view.shortage)),
    _gauge("growing", "Whether a growth is running.", lambda view: view.state is State.GROWING),
    Metric(
        "growths_total",
        "counter",
        "Growths that ended since the start of the daemon, by result and cause.",
        lambda view, _: [
            ("", {"result": result, "cause": cause}, count)
            for (result, cause), count in list(view.tally.growths.items())
        ],
    ),
    _gauge(
        "last_growth_timestamp_seconds",
        "When the last growth was completed; 0 if there was none since the start of the daemon.",
        _last_growth,
    ),
    Metric(
        "step_duration_seconds",
        "histogram",
        "How long the steps of growths took.",
        _step_durations,
    ),
    Metric(
        "ec2_calls_total",
        "counter",
        "Requests to EC2 by action and result, repetitions included.",
        lambda view, _: [
            ("", {"action": action, "result": result}, count)
            for (action, result), count in list(view.tally.ec2_calls.items())
        ],
    ),
    _gauge(
        "attachment_slots_free",
        "Volumes that can still be attached to the instance, at the latest look at EC2.",
        lambda view: view.managed.slots_free,
    ),
    _gauge(
        "managed_volumes",
        "Volumes that count against the limits, at the latest look at EC2.",
        lambda view: view.managed.volumes,
    ),
    _gauge(
        "managed_bytes",
        "Size of these volumes.",
        lambda view: view.managed.size_bytes,
    ),
    _gauge(
        "cost_usd_per_month",
        "What these volumes cost a month, an estimate.",
        lambda view: view.managed.usd_per_month,
    ),
    _gauge(
        "orphaned_volumes",
        "Volumes with the tags of this filesystem that are not in it but paid for.",
        lambda view: view.managed.orphans,
    ),
    Metric(
        "condition",
        "gauge",
        "Whether something is wrong, by cause.",
        _conditions,
    ),
    Metric(
        "late_ticks_total",
        "counter",
        "Looks at the filesystem that were late by a second or more.",
        lambda view, _: [("", {}, view.tally.late_ticks)],
    ),
    Metric(
        "dropped_events_total",
        "counter",
        "Events that a log, systemd, the metrics file or notify.command has not taken.",
        _dropped,
    ),
)
"""Every metric, in the order of its output."""


def _number(value: float | None) -> str:
    if value is None or isnan(value):
        return "NaN"
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
