"""What `init` put on a host, taken away again: unit, line of fstab, configuration."""

import argparse
from contextlib import ExitStack, suppress

from ebs_autoscale import config
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import EbsAutoscaleError, Exit
from ebs_autoscale.host import files, fstab, paths, systemd
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.provision.purge import purge_empty, require_empty
from ebs_autoscale.telemetry.logs import LogSink
from ebs_autoscale.wiring import filesystem_of, require_fit_host, world_of


def uninstall(arguments: argparse.Namespace) -> int:
    """Stop the daemon and take its traces away; safe to repeat.

    Volumes and data stay, unless `purge_empty` and the filesystem is empty.
    """
    if not config.exists(arguments.config):
        print(f"nothing to do: there is no {arguments.config}")
        return Exit.FINE
    settings = config.load(arguments.config)
    require_fit_host()
    mountpoint = settings.mountpoint
    if arguments.purge_empty:
        # What is empty because nothing is mounted there proves nothing.
        require_empty(filesystem_of(settings, SystemClock()).read())
    uuid, devices = _filesystem(settings)
    for sentence in systemd.disable_service(mountpoint=mountpoint, config_path=arguments.config):
        print(sentence)
    with ExitStack() as stack:
        if uuid:
            # A daemon that systemd does not know of, or a growth, would go on without these.
            stack.enter_context(Lock(paths.daemon_lock(uuid)))
            stack.enter_context(Lock(paths.growth_lock(uuid)))
        _give_up_reserve(settings)
        if arguments.purge_empty:
            _purge(settings)
            devices = 0
        way_back = _forget_mount(uuid, mountpoint, is_purged=arguments.purge_empty)
    arguments.config.unlink()
    print(f"removed {arguments.config}")
    for sentence in systemd.remove_units():
        print(sentence)
    with suppress(OSError):
        arguments.config.parent.rmdir()
    if devices:
        print(f"kept: {mountpoint} stays mounted, with its data on {devices} volumes")
        print(f"      after a boot: {way_back}")
    return Exit.FINE


def _filesystem(settings: Settings) -> tuple[str, int]:
    """UUID and number of devices; of one that is not mounted fstab knows the UUID, and no more."""
    try:
        reading = filesystem_of(settings, SystemClock()).read()
    except EbsAutoscaleError:
        return fstab.uuid_at(files.read_text(fstab.FSTAB), settings.mountpoint), 0
    return reading.filesystem, len(reading.devices)


def _give_up_reserve(settings: Settings) -> None:
    """Take away the one file that is in the filesystem itself; one that is not ours is named."""
    try:
        filesystem = filesystem_of(settings, SystemClock())
        if done := filesystem.keep_reserve(0):
            print(f"{done} in {settings.mountpoint}")
    except EbsAutoscaleError as error:
        print(f"kept the reserve, if there is one: {error}")


def _forget_mount(uuid: str, mountpoint: str, *, is_purged: bool) -> str:
    """Take the line of `init` out of fstab and name what stays; says what mounts it from now on."""
    table = files.read_text(fstab.FSTAB)
    lines = fstab.lines_at(table, mountpoint)
    gone = [line for line in lines if line.is_by_init and line.uuid == uuid != ""]
    if gone:
        files.replace(fstab.FSTAB, fstab.without(table, gone))
    rows = table.split("\n")
    for line in lines:
        if line in gone:
            print(f"removed from {fstab.FSTAB}: {rows[line.number]}")
            continue
        print(f"kept in {fstab.FSTAB}, since `init` did not write it so: {rows[line.number]}")
        if is_purged:
            print("      remove it if it means the filesystem that is gone: a boot may wait for it")
    if len(lines) > len(gone):
        return f"as {fstab.FSTAB} says"
    options = ",".join(option for line in gone for option in line.chosen)
    return f"mount {f'-o {options} ' if options else ''}UUID={uuid} {mountpoint}"


def _purge(settings: Settings) -> None:
    clock = SystemClock()
    filesystem = filesystem_of(settings, clock)
    world = world_of(settings, filesystem, clock, LogSink())
    purge_empty(world, print)
