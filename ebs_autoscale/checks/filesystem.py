"""`check` on the filesystem: mount, devices, their errors, and its line in fstab."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.checks.line import Line, Verdict, failed
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError
from ebs_autoscale.filesystems.btrfs.scan import PresentDevices, present_devices
from ebs_autoscale.host.fstab import FSTAB, FstabLine, line_for, parse
from ebs_autoscale.host.systemd import UNIT_FOLDER, mount_unit
from ebs_autoscale.model import Reading
from ebs_autoscale.policy import describe_available, missing_device, problems_of
from ebs_autoscale.units import format_size

_UNIT_FOLDERS = (UNIT_FOLDER, Path("/usr/lib/systemd/system"))
_SHOW_TIMEOUT_SECONDS = 3.0


@dataclass(slots=True)
class Seen:
    """What is known of the filesystem for the looks that follow; `filesystem` is its UUID."""

    mountpoint: str
    filesystem: str = ""
    reading: Reading | None = None


def look(seen: Seen, clock: SystemClock) -> Iterator[Line]:
    """Every line on the filesystem; fills in what it has seen."""
    text = ""
    with suppress(OSError):
        text = FSTAB.read_text("utf-8", errors="replace")
    lines = [line for line in parse(text) if line.mountpoint == seen.mountpoint]
    seen.filesystem = next((line.uuid for line in lines if line.uuid), "")
    try:
        filesystem = BtrfsFilesystem(seen.mountpoint, clock=clock)
        reading, operation = filesystem.read(), filesystem.exclusive_operation()
    except EbsAutoscaleError as error:
        yield failed("mount", error)
        if error.cause is Cause.NOT_MOUNTED and seen.filesystem:
            yield _absent_devices(seen.filesystem)
        yield from fstab_lines(lines, seen.mountpoint, "", by_unit=_has_unit(seen.mountpoint))
        return
    seen.filesystem, seen.reading = reading.filesystem, reading
    what = f"{describe_available(reading)}, metadata {reading.metadata_profile}"
    yield Line("mount", "ok", f"{reading.filesystem}: {what}")
    yield _devices(reading)
    yield from _operation(operation, reading.mountpoint)
    yield from _errors(reading)
    by_unit = _has_unit(seen.mountpoint)
    yield from fstab_lines(lines, seen.mountpoint, reading.filesystem, by_unit=by_unit)


def _devices(reading: Reading) -> Line:
    if lost := missing_device(reading):
        return Line("members", "fail", lost.sentence, lost.hint)
    each = (f"{m.name} ({format_size(m.size_bytes)})" for m in reading.devices)
    return Line("members", "ok", ", ".join(each))


def _operation(operation: str, point: str) -> Iterator[Line]:
    if operation == "balance paused":
        # One that `balance status` knows nothing of is left by two adds at once (measured).
        hint = f"`btrfs balance resume {point}`; when that finds none, unmount and mount it again"
        yield Line("operation", "warn", "a balance is paused", hint)
    elif operation != "none":
        yield Line("operation", "ok", f"{operation} is under way; a growth waits for its end")


def _errors(reading: Reading) -> Iterator[Line]:
    for problem in problems_of(reading):
        if problem.cause is Cause.DEVICE_ERRORS:
            yield Line("errors", "warn", problem.sentence, problem.hint)


def _absent_devices(filesystem: str) -> Line:
    """Which devices of a filesystem that is not mounted this host has."""
    present = PresentDevices()
    with suppress(CommandFailed):
        present = present_devices(filesystem, timeout_seconds=_SHOW_TIMEOUT_SECONDS)
    if present.complete:
        return Line("members", "ok", f"{filesystem}: {present.sentence}")
    hint = "attach the volumes that are not here, see `lsblk`; never mount it degraded for writing"
    return Line("members", "fail", f"{filesystem}: {present.sentence}", hint)


def _has_unit(mountpoint: str) -> bool:
    """Whether a mount unit mounts it without a line in fstab."""
    return any((folder / mount_unit(mountpoint)).exists() for folder in _UNIT_FOLDERS)


def fstab_lines(
    lines: Sequence[FstabLine], mountpoint: str, filesystem: str, *, by_unit: bool
) -> Iterator[Line]:
    """The verdicts on the lines for this mountpoint; `filesystem` is what is mounted there now."""
    uuid = filesystem or next((line.uuid for line in lines if line.uuid), "…")
    wanted = f"`{line_for(uuid, mountpoint)}`"
    if not lines and by_unit:
        yield Line("fstab", "ok", f"a mount unit mounts {mountpoint}")
    elif not lines:
        what = f"no line for {mountpoint}: it is not mounted at boot"
        yield Line("fstab", "warn", what, f"add {wanted}")
    elif len(lines) > 1:
        what = f"{len(lines)} lines for {mountpoint}"
        yield Line("fstab", "warn", what, f"keep only {wanted}")
    else:
        found = list(_faults(lines[0], filesystem))
        for verdict, what in found:
            yield Line("fstab", verdict, what, f"make it {wanted}")
        if not found:
            yield Line("fstab", "ok", f"{lines[0].source} on {mountpoint}")


def _faults(line: FstabLine, filesystem: str) -> Iterator[tuple[Verdict, str]]:
    if line.kind not in {"btrfs", "auto"}:
        yield "fail", f"the line for {line.mountpoint} mounts {line.kind}, not btrfs"
    if filesystem and line.uuid and line.uuid != filesystem:
        what = f"names filesystem {line.uuid}; mounted is {filesystem}"
        yield "fail", f"the line for {line.mountpoint} {what}"
    if line.is_by_device:
        # Names of NVMe devices change over a reboot, and systemd waits for one device for
        # ever where the others are late (systemd#6605).
        yield "warn", f"{line.source} may be another device after the next boot"
    if not {"nofail", "noauto"} & {*line.options}:
        yield "warn", "without nofail a volume that is late at boot ends in emergency mode"
    if "degraded" in line.options:
        yield "warn", "degraded lets it be mounted without a device, and written to"
    if any(option.startswith("device=") for option in line.options):
        yield "warn", "with device= the mount fails as soon as one of these names has changed"
