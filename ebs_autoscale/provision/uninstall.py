"""`uninstall`: remove what `init` set up, which is unit, line of fstab and configuration."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Exit, Unfit
from ebs_autoscale.host import files, fstab, paths, systemd
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.requirements import require_tools_of
from ebs_autoscale.host.trusted_path import trusted_path
from ebs_autoscale.model import FilesystemKind
from ebs_autoscale.provision.first_volume import NoFilesystem, begun_here
from ebs_autoscale.provision.purge import (
    Mark,
    finish,
    interrupted,
    purge_empty,
    require_created,
    require_empty,
)
from ebs_autoscale.resize import World
from ebs_autoscale.telemetry import LogSink
from ebs_autoscale.units import counted
from ebs_autoscale.volumes import VISIBLE_AFTER_SECONDS
from ebs_autoscale.wiring import cloud_of, filesystem_of, world_of

_IMDS_PATIENCE_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 2.0


def uninstall(config_path: Path, *, purge: bool) -> int:
    """Stop the daemon and remove what `init` set up; safe to repeat.

    Volumes and data stay, unless `purge` is set and the filesystem is empty.
    """
    if not config.exists(config_path):
        print(f"nothing to do: {config_path} does not exist")
        return Exit.SUCCESS
    settings = config.load(config_path)
    require_tools_of(_kind_of(settings.mountpoint))
    _require_not_needed(settings.mountpoint)
    mark = None
    if purge:
        # By name: it has to lead to the mount that is looked at.
        trusted_path(settings.mountpoint)
        mark = interrupted(settings.mountpoint)
    if purge and not mark:
        _require_purgeable(settings)
    uuid, devices = (mark.filesystem, 0) if mark else _uuid_and_devices(settings)
    _print(systemd.disable_service(mountpoint=settings.mountpoint, config_path=config_path))
    with ExitStack() as stack:
        if uuid:
            # A growth, or a daemon that systemd does not know of, holds one of these.
            stack.enter_context(Lock(paths.daemon_lock(uuid)))
            stack.enter_context(Lock(paths.growth_lock(uuid)))
        if mark:
            _finish_purge(settings, mark)
        else:
            _remove_reserve(settings, uuid)
            if purge:
                purge_empty(_world_of(settings), print)
        mount_by = _remove_fstab_lines(uuid, settings.mountpoint, is_purged=purge)
    if not uuid:
        _name_volumes_of_init(settings)
    _remove_metrics(settings.metrics.textfile)
    _remove_config(config_path)
    paths.purge_mark(settings.mountpoint).unlink(missing_ok=True)
    if purge:
        paths.init_mark(settings.mountpoint).unlink(missing_ok=True)
    if devices and not purge:
        print(f"kept {settings.mountpoint}: mounted, with its data on {counted(devices, 'volume')}")
        print(f"      to mount it after a reboot: {mount_by}")
    return Exit.SUCCESS


def _require_not_needed(mountpoint: str) -> None:
    """Raise Unfit if what fstab mounts elsewhere could not be mounted without the filesystem."""
    needs = f"x-systemd.requires-mounts-for={mountpoint}"
    lines = fstab.parse(files.read_text(fstab.FSTAB))
    if found := [line.mountpoint for line in lines if needs in line.options]:
        raise Unfit(
            f"{fstab.FSTAB} requires {mountpoint} for {' and '.join(found)}",
            hint="move their data back, as docs/containers.md says, or remove those lines",
            cause=Cause.FSTAB,
        )


def _uuid_and_devices(settings: Settings) -> tuple[str, int]:
    """UUID and number of devices; of a filesystem that is not mounted, the UUID in fstab and 0."""
    try:
        reading = filesystem_of(settings, SystemClock()).read()
    except EbsAutoscaleError:
        return fstab.uuid_at(files.read_text(fstab.FSTAB), settings.mountpoint), 0
    return reading.filesystem, len(reading.devices)


def _remove_reserve(settings: Settings, uuid: str) -> None:
    """Remove the reserve file; when that fails the rest is removed all the same."""
    if not uuid or not _kind_of(settings.mountpoint).takes_devices:
        return
    try:
        filesystem = filesystem_of(settings, SystemClock())
        if done := filesystem.keep_reserve(0):
            print(f"{done} in {settings.mountpoint}")
    except EbsAutoscaleError as error:
        print(f"cannot remove the emergency reserve: {error.what}")


def _require_purgeable(settings: Settings) -> None:
    """Not only an empty folder: a filesystem that is mounted there, and empty."""
    reading = filesystem_of(settings, SystemClock()).read()
    require_empty(reading)
    if not reading.kind.takes_devices:
        require_created(reading, _world_of(settings))


def _world_of(settings: Settings) -> World:
    clock = SystemClock()
    return world_of(settings, filesystem_of(settings, clock), clock, LogSink())


def _kind_of(mountpoint: str) -> FilesystemKind:
    """What is mounted there or, while nothing is, what fstab mounts there."""
    mount = MountTable().at(os.path.realpath(mountpoint))
    lines = fstab.lines_at(files.read_text(fstab.FSTAB), mountpoint)
    found = [mount.kind] if mount else [line.kind for line in lines]
    return next((kind for kind in FilesystemKind if kind in found), FilesystemKind.BTRFS)


def _finish_purge(settings: Settings, mark: Mark) -> None:
    clock = SystemClock()
    gone = NoFilesystem(mark.filesystem, settings.mountpoint)
    finish(mark, world_of(settings, gone, clock, LogSink()), print)


def _name_volumes_of_init(settings: Settings) -> None:
    """Name what an `init` has created that did not come to a filesystem in fstab."""
    from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- seldom needed

    clock = SystemClock()
    try:
        identity = Imds(clock).identity(patience_seconds=_IMDS_PATIENCE_SECONDS)
        cloud = cloud_of(settings, clock, identity)
        found = begun_here(cloud.owned(), identity.owner, settings.mountpoint)
        deadline = clock.now_seconds() + VISIBLE_AFTER_SECONDS
        while not found and paths.init_mark(settings.mountpoint).exists():
            if clock.now_seconds() > deadline:
                break
            # What it asked for as it was interrupted may not be listed yet.
            clock.sleep(_LOOK_EVERY_SECONDS)
            found = begun_here(cloud.owned(), identity.owner, settings.mountpoint)
    except EbsAutoscaleError as error:
        print(f"cannot ask EC2 whether `init` has left a volume: {error}")
        return
    for volume in found:
        print(f"kept {volume.id}, {volume.state}, which `init` created and which costs money")
        print(f"      `init {settings.mountpoint}` uses it; otherwise delete it in EC2")


def _remove_fstab_lines(uuid: str, mountpoint: str, *, is_purged: bool) -> str:
    """Remove the lines that `init` wrote, name the others; returns how to mount it from now on."""
    table = files.read_text(fstab.FSTAB)
    lines = fstab.lines_at(table, mountpoint)
    removed = [line for line in lines if line.is_by_init and line.uuid == uuid != ""]
    kept = [line for line in lines if line not in removed]
    if removed:
        files.replace(fstab.FSTAB, fstab.without(table, removed))
    rows = table.split("\n")
    _print([f"removed from {fstab.FSTAB}: {rows[line.number]}" for line in removed])
    for line in kept:
        print(f"kept in {fstab.FSTAB}, not written by `init`: {rows[line.number]}")
        if is_purged:
            print("      if it is for the deleted filesystem, remove it: a boot may wait for it")
    if kept:
        return f"as in {fstab.FSTAB}"
    options = ",".join(option for line in removed for option in line.chosen)
    return f"mount {f'-o {options} ' if options else ''}UUID={uuid} {mountpoint}"


def _remove_metrics(textfile: Path | None) -> None:
    """Remove the metrics of the daemon, which node_exporter would go on to show."""
    if textfile is None or not textfile.is_file():
        return
    try:
        textfile.unlink()
        print(f"removed {textfile}")
    except OSError as error:
        print(f"cannot remove {textfile}: {error.strerror}")


def _remove_config(config_path: Path) -> None:
    config_path.unlink()
    print(f"removed {config_path}")
    _print(systemd.remove_units())
    with suppress(OSError):
        config_path.parent.rmdir()


def _print(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(sentence)
