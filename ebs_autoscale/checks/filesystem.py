"""Checks of the filesystem: its mount, its devices, a running operation, its line in fstab."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ebs_autoscale.checks.line import Line, Verdict, failed
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Exit, Problem
from ebs_autoscale.filesystems.btrfs.scan import PresentDevices, present_devices
from ebs_autoscale.filesystems.copies import copies_of, devices_of
from ebs_autoscale.filesystems.mounted import mount_hint, require_mountable
from ebs_autoscale.host import files
from ebs_autoscale.host.fstab import FSTAB, FstabLine, line_for, lines_at
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.systemd import UNIT_FOLDER, mount_unit
from ebs_autoscale.host.trusted_path import trusted_path
from ebs_autoscale.model import Device, FilesystemKind, Reading
from ebs_autoscale.policy import (
    Forecast,
    Remark,
    describe_available,
    describe_inodes,
    device_problems,
    misfit_of,
    missing_reserve,
    problems_of,
)
from ebs_autoscale.units import counted, format_size
from ebs_autoscale.wiring import devices_despite, mounted_at, remarks_on, volumes_behind

_UNIT_FOLDERS = (UNIT_FOLDER, Path("/usr/lib/systemd/system"))
_SHOW_TIMEOUT_SECONDS = 3.0

# The name of the line that tells a problem.
_NAME_OF = {
    Cause.MISSING_DEVICE: "members",
    Cause.COPY: "copies",
    Cause.DEVICE_ERRORS: "errors",
    Cause.FULL: "space",
    Cause.QGROUP_LIMIT: "quota",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemSeen:
    """What the kernel and fstab say about the filesystem.

    `kind` and `uuid` are those of the mounted filesystem, else those in fstab; where neither says,
    it is to be BTRFS, and the UUID is empty.
    Before `init`, as long as nothing is mounted, `is_free` is whether something can be.
    `error` is why there is no `reading`, `incomplete` what is wrong with an add, `not_growable` why
    an XFS or ext4 cannot use more space; `devices` are those of a read-only filesystem, `present`
    those of one that is not mounted; `copies` is what is wrong with copies of its devices,
    `remarks` what to know about the devices.
    """

    mountpoint: str
    kind: FilesystemKind = FilesystemKind.BTRFS
    uuid: str = ""
    is_set_up: bool = True
    is_free: bool = False
    reading: Reading | None = None
    operation: str = "none"
    error: EbsAutoscaleError | None = None
    devices: tuple[Device, ...] = ()
    incomplete: EbsAutoscaleError | None = None
    not_growable: EbsAutoscaleError | None = None
    present: PresentDevices | None = None
    copies: tuple[Problem, ...] = ()
    remarks: tuple[Remark, ...] = ()
    fstab: tuple[FstabLine, ...] = ()
    has_mount_unit: bool = False


def expected(mountpoint: str, *, is_set_up: bool = True) -> FilesystemSeen:
    """What fstab and systemd say of the filesystem, before it is looked at.

    Without a configuration it is not set up: it may not exist yet.
    """
    table = ""
    with suppress(EbsAutoscaleError):
        table = files.read_text(FSTAB)
    lines = lines_at(table, mountpoint)
    mount = MountTable().at(mountpoint)
    names = ([mount.kind] if mount else []) + [line.kind for line in lines]
    known = [FilesystemKind(name) for name in names if name in set(FilesystemKind)]
    return FilesystemSeen(
        mountpoint=mountpoint,
        kind=known[0] if known else FilesystemKind.BTRFS,
        is_set_up=is_set_up,
        uuid=next((line.uuid for line in lines if line.uuid), ""),
        fstab=lines,
        has_mount_unit=any(
            os.path.lexists(path / mount_unit(mountpoint)) for path in _UNIT_FOLDERS
        ),
    )


def look(before: FilesystemSeen, clock: SystemClock) -> FilesystemSeen:
    """Look at the expected filesystem, mounted or not."""
    seen = _look(before, clock)
    reading = seen.reading
    remarks = remarks_on(reading, volumes_behind(reading)) if reading else []
    if seen.not_growable and seen.not_growable.cause is Cause.PARTITION:
        # What is behind this partition may be another one, and is not to be had.
        remarks = [remark for remark in remarks if remark.name != "slack"]
    copies = copies_of(seen.uuid) if seen.uuid else []
    return replace(seen, copies=tuple(copies), remarks=tuple(remarks))


def _look(before: FilesystemSeen, clock: SystemClock) -> FilesystemSeen:
    try:
        filesystem = mounted_at(before.mountpoint, clock)
        reading, operation = filesystem.read(), filesystem.exclusive_operation()
    except EbsAutoscaleError as error:
        seen = replace(before, error=error, devices=devices_despite(error, before.mountpoint))
        if error.cause is Cause.NOT_MOUNTED and seen.uuid:
            seen = replace(seen, present=_present_devices(seen.uuid, seen.kind))
        if error.cause in {Cause.NOT_MOUNTED, Cause.MISSING} and not seen.is_set_up:
            return _rehearse_mount(seen)
        return seen
    seen = replace(
        before,
        kind=reading.kind,
        uuid=reading.filesystem,
        reading=reading,
        operation=operation,
    )
    try:
        filesystem.verify_devices()
    except EbsAutoscaleError as error:
        return replace(seen, incomplete=error)
    if not seen.kind.takes_devices:
        try:
            filesystem.require_growable()
        except EbsAutoscaleError as error:
            return replace(seen, not_growable=error)
    return seen


def _rehearse_mount(seen: FilesystemSeen) -> FilesystemSeen:
    """What `init` requires of the path."""
    try:
        trusted_path(seen.mountpoint)
        require_mountable(Path(seen.mountpoint))
    except EbsAutoscaleError as error:
        return replace(seen, error=error)
    return replace(seen, error=None, is_free=True)


def _present_devices(uuid: str, kind: FilesystemKind) -> PresentDevices:
    """The devices there are; none where the tool lists none, or cannot be run."""
    with suppress(EbsAutoscaleError):
        if not kind.takes_devices:
            return PresentDevices(1, tuple(claim.devid for claim in devices_of(uuid).values())[:1])
        return present_devices(uuid, timeout_seconds=_SHOW_TIMEOUT_SECONDS)
    return PresentDevices()


def lines(seen: FilesystemSeen) -> Iterator[Line]:
    """Every line about the filesystem."""
    if seen.is_free:
        yield Line("mount", "ok", f"nothing is mounted on {seen.mountpoint} yet, `init` can do so")
    if seen.error:
        yield _error_line(seen, seen.error)
    yield from map(_problem_line, device_problems(seen.mountpoint, seen.devices))
    if seen.present:
        yield _presence_line(seen.uuid, seen.present, seen.mountpoint)
    if seen.incomplete:
        yield failed("add", seen.incomplete)
    # What concerns the host is told by its own checks.
    if seen.not_growable and seen.not_growable.cause not in {Cause.CAPABILITY, Cause.NOT_ROOT}:
        yield failed("growth", seen.not_growable)
    for copy in seen.copies:
        yield _problem_line(copy)
    for remark in seen.remarks:
        yield Line(remark.name, "warn", remark.sentence, remark.hint)
    mounted = ""
    if seen.reading:
        yield from _reading_lines(seen.reading)
        yield from _operation_lines(seen.operation, seen.mountpoint)
        mounted = seen.reading.filesystem
    yield from fstab_lines(
        seen.fstab,
        seen.mountpoint,
        mounted=mounted,
        has_mount_unit=seen.has_mount_unit,
        kind=seen.kind,
    )


def policy_lines(seen: FilesystemSeen, settings: Settings) -> Iterator[Line]:
    """Whether it can grow as it is configured to, and whether the emergency reserve is missing."""
    if misfit := misfit_of(settings.policy.sizing.method, seen.kind):
        yield Line("method", "fail", misfit.sentence, misfit.hint)
    if seen.reading and (
        missing := missing_reserve(
            settings.reserve_bytes, seen.reading, settings.policy, Forecast()
        )
    ):
        yield Line("reserve", "warn", missing.sentence, missing.hint)


def _error_line(seen: FilesystemSeen, error: EbsAutoscaleError) -> Line:
    """What keeps the filesystem from being used; a mount is no advice while a device is missing."""
    if seen.present and not seen.present.complete:
        hint = mount_hint(seen.mountpoint, is_incomplete=True)
        return Line("mount", "fail", error.what, hint)
    return failed("mount", error)


def _presence_line(uuid: str, present: PresentDevices, path: str) -> Line:
    if present.complete:
        return Line("members", "ok", f"{uuid}: {present.sentence}")
    hint = mount_hint(path, is_incomplete=True)
    return Line("members", "fail", f"{uuid}: {present.sentence}", hint)


def _reading_lines(reading: Reading) -> Iterator[Line]:
    what = describe_available(reading)
    if reading.metadata_profile:
        what += f", metadata {reading.metadata_profile}"
    if reading.inodes:
        what += f", {describe_inodes(reading.inodes)}"
    yield Line("mount", "ok", f"{reading.kind} {reading.filesystem}: {what}")
    problems = {problem.cause: problem for problem in problems_of(reading)}
    if Cause.MISSING_DEVICE not in problems:
        each = (
            f"{device.partition or device.label} ({format_size(device.size_bytes)})"
            for device in reading.devices
        )
        yield Line("members", "ok", ", ".join(each))
    for problem in problems.values():
        yield _problem_line(problem)


def _problem_line(problem: Problem) -> Line:
    verdict: Verdict = "fail" if problem.cause.exit is Exit.UNFIT else "warn"
    hint = problem.hint or "see `ebs-autoscale plan`"
    return Line(_NAME_OF.get(problem.cause, "problem"), verdict, problem.sentence, hint)


def _operation_lines(operation: str, mountpoint: str) -> Iterator[Line]:
    if operation == "balance paused":
        # Two adds at once leave one that `btrfs balance status` does not know of (measured).
        hint = (
            f"run `btrfs balance resume {mountpoint}`; "
            "if that finds no balance, unmount the filesystem and mount it again"
        )
        yield Line("operation", "warn", "a balance is paused", hint)
    elif operation != "none":
        yield Line("operation", "ok", f"{operation} is running; a growth waits for it to finish")


def fstab_lines(
    entries: Sequence[FstabLine],
    mountpoint: str,
    *,
    mounted: str,
    has_mount_unit: bool,
    kind: FilesystemKind = FilesystemKind.BTRFS,
) -> Iterator[Line]:
    """The verdicts on the lines for this mountpoint.

    `mounted` is the UUID of the filesystem that is mounted there now, empty when none is.
    """
    uuid = mounted or next((entry.uuid for entry in entries if entry.uuid), "…")
    wanted = f"`{line_for(uuid, mountpoint, kind=kind)}`"
    if not entries and has_mount_unit:
        yield Line("fstab", "ok", f"a mount unit mounts {mountpoint}")
    elif not entries and mountpoint == "/":
        # From the kernel's command line, `root=`.
        yield Line("fstab", "ok", "no line for /, which every boot mounts")
    elif not entries:
        what = f"no line for {mountpoint}: it is not mounted at boot"
        hint = f"add {wanted}" if mounted else f"run `ebs-autoscale init {mountpoint}`"
        yield Line("fstab", "warn", what, hint)
    elif len(entries) > 1:
        what = f"{counted(len(entries), 'line')} for {mountpoint}"
        yield Line("fstab", "warn", what, f"keep only {wanted}")
    else:
        found = list(_faults(entries[0], mounted, kind))
        for verdict, what in found:
            yield Line("fstab", verdict, what, f"change it to {wanted}")
        if not found:
            yield Line("fstab", "ok", f"{entries[0].source} on {mountpoint}")


def _faults(entry: FstabLine, mounted: str, kind: FilesystemKind) -> Iterator[tuple[Verdict, str]]:
    if entry.kind not in {kind, "auto"}:
        yield "fail", f"the line for {entry.mountpoint} mounts {entry.kind}, not {kind}"
    if mounted and entry.uuid and entry.uuid != mounted:
        what = f"names filesystem {entry.uuid}, but {mounted} is mounted"
        yield "fail", f"the line for {entry.mountpoint} {what}"
    if entry.is_by_device:
        # NVMe devices are numbered anew at each boot. When the one named here appears before the
        # other devices of its filesystem, systemd waits for ever:
        # https://github.com/systemd/systemd/issues/6605
        yield "warn", f"{entry.source} may name another device after the next boot"
    if entry.mountpoint != "/" and not {"nofail", "noauto"} & {*entry.options}:
        yield "warn", "without nofail, a volume that appears late puts the boot into emergency mode"
    if "degraded" in entry.options:
        yield "warn", "with degraded, it is mounted read-write even if a device is missing"
    if any(option.startswith("device=") for option in entry.options):
        yield "warn", "with device=, the mount fails once a device has another name"
