"""What `status` shows of mountpoints, for people: lines of text of a given width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, isinf

from ebs_autoscale.cli.look import FilesystemStatus, Status
from ebs_autoscale.cli.terminal import Look, Paint
from ebs_autoscale.cli.throttled import sentences
from ebs_autoscale.errors import with_hint
from ebs_autoscale.model import MIB, Device
from ebs_autoscale.policy import Limits, describe_inodes
from ebs_autoscale.telemetry import ManagedVolumes, RecentGrowth, State, View
from ebs_autoscale.units import counted, format_duration, format_size, printable, wrapped

_LABEL_COLUMNS = 12
# On a narrower screen the text begins below its label.
_NARROW_COLUMNS = 50
# Where lines are not wrapped.
_BAR_COLUMNS = 80
# Joins words that stay on one line.
_GLUE = "\xa0"


@dataclass(frozen=True, slots=True)
class Row:
    """A label and what there is to say, in one or more lines, each of which is wrapped."""

    label: str
    lines: Sequence[str]
    paint: Paint = Paint.PLAIN


def page(statuses: Sequence[Status], look: Look) -> list[str]:
    """The lines of all mountpoints, a blank one between two."""
    lines: list[str] = []
    for status in statuses:
        lines += ([""] if lines else []) + list(_lines_of(status, look))
    return lines


def _lines_of(status: Status, look: Look) -> Iterator[str]:
    title = printable(f"{status.mountpoint or status.config}: {_state(status)}")
    for line in wrapped(title, look.columns, indent="  ").split("\n"):
        yield look.painted(line, Paint.BOLD)
    if status.filesystem:
        yield from _bar(status.filesystem, look)
    for row in _rows(status):
        yield from _laid_out(row, look)


def _laid_out(row: Row, look: Look) -> Iterator[str]:
    label = f"  {row.label:<{_LABEL_COLUMNS}} "
    begin, indent = label, " " * len(label)
    if look.columns is not None and look.columns < _NARROW_COLUMNS:
        yield look.painted(label.rstrip(), Paint.DIM)
        begin = indent = "    "
    for number, text in enumerate(map(printable, row.lines)):
        first = indent if number else begin
        lines = wrapped(text, look.columns, first=first, indent=indent).split("\n")
        yield look.painted(first, Paint.DIM) + look.painted(lines[0][len(first) :], row.paint)
        for line in lines[1:]:
            yield look.painted(line, row.paint)


def _state(status: Status) -> str:
    if status.unfit and not status.is_waiting_for_mount:
        return "unfit"
    if status.daemon is None:
        return "no daemon is running" if not status.daemon_unknown else "unknown"
    return status.daemon.view.state.value


def _bar(seen: FilesystemStatus, look: Look) -> Iterator[str]:
    """The space as a bar of the whole width, and what each of its parts is."""
    reading = seen.reading
    size = reading.size_bytes or 1
    used = max(0, reading.size_bytes - reading.available_bytes)
    unallocated = min(reading.unallocated_bytes or 0, reading.available_bytes)
    columns = max(1, (look.columns or _BAR_COLUMNS) - 4)
    used_columns = min(columns, round(columns * used / size))
    unallocated_columns = min(columns - used_columns, round(columns * unallocated / size))
    free_columns = columns - used_columns - unallocated_columns
    paint = Paint.ALARM if seen.problems else Paint.WARNING if seen.shortage else Paint.GOOD
    bar = look.painted(look.used * used_columns, paint)
    yield f"  {bar}{look.free * free_columns}{look.unallocated * unallocated_columns}"
    is_allocated = reading.unallocated_bytes is not None
    free = look.free + look.unallocated if is_allocated else look.free
    parts = [
        f"{look.used} used {_share(used, size)}",
        f"{free} available {_share(reading.available_bytes, size)}",
    ]
    if is_allocated:
        parts.append(f"{look.unallocated} unallocated {_share(unallocated, size)}")
    legend = "  ".join(part.replace(" ", _GLUE) for part in parts)
    yield from wrapped(legend, look.columns, first="  ", indent="  ").split("\n")


def _share(part_bytes: int, size_bytes: int) -> str:
    # Rounded down, as in the decision.
    percent = floor(1000 * part_bytes / size_bytes) / 10
    return f"{format_size(part_bytes)}, {percent:.1f} %"


def _rows(status: Status) -> Iterator[Row]:
    """All that there is to say, what is wrong first."""
    for alarm in status.alarms:
        yield Row("alarm", [alarm], Paint.ALARM)
    if seen := status.filesystem:
        yield Row("decision", [f"{seen.decision}: {seen.reason}"])
        yield Row("fill rate", [_fill_rate(seen)])
    yield from _of_daemon(status)
    yield from _of_volumes(status)
    if seen:
        yield from _details(seen)


def _of_daemon(status: Status) -> Iterator[Row]:
    view = status.daemon.view if status.daemon else None
    if view and (waiting := _waiting(status, view)):
        label = "growing" if view.state is State.GROWING else "waiting"
        yield Row(label, [waiting], Paint.WARNING)
    yield Row("daemon", [_daemon(status)])
    if view and view.recent:
        newest_first = reversed(view.recent)
        yield Row("growths", _table([_growth(each, status.at_seconds) for each in newest_first]))


def _of_volumes(status: Status) -> Iterator[Row]:
    seen, settings = status.filesystem, status.settings
    managed = status.daemon.view.managed if status.daemon else ManagedVolumes()
    if devices := seen.reading.devices if seen else status.devices:
        volumes = seen.volumes if seen else {}
        # Of devices without a reading the kind is not known: where nothing is unallocated, XFS and
        # ext4 have no such thing.
        is_allocated = any(device.unallocated_bytes for device in devices)
        if seen:
            is_allocated = seen.reading.unallocated_bytes is not None
        rows = [
            _device(device, volumes.get(device.name, ""), is_allocated=is_allocated)
            for device in devices
        ]
        yield Row("devices", _table(rows))
    if seen and settings:
        for slow in sentences(seen.throttled, devices, seen.volumes, settings.volume):
            yield Row("slow", [slow], Paint.WARNING)
    if settings:
        yield Row("limits", list(_limits(settings.policy.limits, managed)))
    if words := status.cost[1]:
        yield Row("cost", [words])
    if managed.orphans:
        count = counted(managed.orphans, "volume")
        yield Row("orphaned", [f"{count} of no use; `ebs-autoscale check` names each"])


def _fill_rate(seen: FilesystemStatus) -> str:
    rate, full_in = seen.fill_bytes_per_second, seen.full_in_seconds
    if rate is None or full_in is None:
        return "not measured yet"
    if isinf(full_in):
        return "0 MiB/s"
    full = f"full in {format_duration(round(full_in))}" if full_in >= 1 else "full now"
    return f"{rate / MIB:.3g} MiB/s, {full}"


def _waiting(status: Status, view: View) -> str:
    """What the daemon waits for, with a countdown that is right at this moment."""
    parts, left = [view.activity], status.retry_in_seconds
    if left is not None and left < 1:
        parts.append("next retry now")
    elif left is not None:
        parts.append(f"next retry in {format_duration(round(left))}")
        parts.append(f"`{status.reload_command}` retries at once")
    return "; ".join(filter(None, parts))


def _daemon(status: Status) -> str:
    daemon = status.daemon
    if daemon is None:
        return str(status.daemon_unknown or "not running: nothing grows this filesystem")
    growths = counted(daemon.view.growths_since_start, "growth")
    memory = format_size(daemon.resident_bytes)
    return f"pid {daemon.pid}, {growths} since its start, {memory} of memory"


def _growth(growth: RecentGrowth, now_seconds: float) -> tuple[str, ...]:
    ago = format_duration(max(0, round(now_seconds - growth.ended_at)))
    return (
        f"+{format_size(growth.size_bytes)}" if growth.size_bytes else "",
        f"in {growth.seconds:.1f} s",
        growth.volume,
        f"{ago} ago",
    )


def _device(device: Device, volume: str, *, is_allocated: bool) -> tuple[str, ...]:
    if device.missing:
        name = f" ({device.name})" if device.name else ""
        return (f"devid {device.devid} MISSING{name}", volume)
    size = device.size_bytes
    allocated = 100 * (size - device.unallocated_bytes) / size if size else 0
    use = f"{allocated:.0f} % allocated" if device.writable else "no room"
    name = device.partition or device.label
    return (name, volume, format_size(size), use if is_allocated else "")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their columns aligned, without those that are empty in all."""
    count = max(map(len, rows))
    cells = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width
        ).rstrip()
        for row in cells
    ]


def _limits(limits: Limits, managed: ManagedVolumes) -> Iterator[str]:
    """What is used of what is allowed; the first only once the daemon has asked EC2."""
    slots, size, usd = managed.slots_free, managed.size_bytes, managed.usd_per_month
    parts = [] if slots is None else [counted(slots, "free attachment slot")]
    if limits.volumes is not None:
        parts.insert(0, _of(managed.volumes, str(limits.volumes), "volumes"))
    elif managed.volumes is not None:
        parts.insert(0, counted(managed.volumes, "volume"))
    if parts:
        yield ", ".join(parts)
    used = None if size is None else format_size(size)
    yield _of(used, format_size(limits.total_bytes), "in total")
    if limits.monthly_usd is not None:
        used = None if usd is None else f"{usd:.2f}"
        yield _of(used, f"{limits.monthly_usd:.2f}", "USD a month")


def _of(used: object, allowed: str, what: str) -> str:
    return f"{used} of {allowed} {what}" if used is not None else f"at most {allowed} {what}"


def _details(seen: FilesystemStatus) -> Iterator[Row]:
    reading = seen.reading
    held, wanted = format_size(reading.reserve_bytes), format_size(seen.reserve_wanted_bytes)
    if reading.metadata_headroom_bytes is not None:
        headroom = format_size(reading.metadata_headroom_bytes)
        yield Row("metadata", [f"{reading.metadata_profile}, room for {headroom} more"])
    if reading.inodes:
        yield Row("inodes", [describe_inodes(reading.inodes)])
    if reading.kind.takes_devices:
        yield Row("reserve", [f"{held} of {wanted} held for emergencies"])
    if quota := reading.quota:
        left, limit = format_size(quota.left_bytes), format_size(quota.limit_bytes)
        yield Row("quota", [f"{left} of {limit} left to quota group {quota.qgroup}"])
    if seen.operation != "none":
        yield Row("running", [", ".join(filter(None, (seen.operation, seen.progress)))])
    for remark in seen.remarks:
        yield Row("remark", [with_hint(remark.sentence, remark.hint)])
    if reading.statvfs_available_bytes != reading.available_bytes:
        yield Row("shown by df", [f"{format_size(reading.statvfs_available_bytes)} available"])
    yield Row("filesystem", [f"{reading.kind} {reading.filesystem}"])
