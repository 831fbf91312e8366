"""`uninstall --purge-empty`: unmount an empty filesystem and delete its volumes."""

from collections.abc import Callable
from pathlib import Path

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs import reserve
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.model import DEAD_VOLUME_STATES, Reading, Volume
from ebs_autoscale.policy import missing_device
from ebs_autoscale.resize import World
from ebs_autoscale.volumes import wait_detached

_TOOL_TIMEOUT_SECONDS = 120.0
# The filesystem is gone when `umount` returns (Linux 6.18), unless another process is just
# closing its last file there.
_LAST_USE_PATIENCE_SECONDS = 2.0
_LAST_USE_LOOK_SECONDS = 0.1


def purge_empty(world: World, say: Callable[[str], object]) -> None:
    """Unmount the filesystem, if it is empty, and delete the managed volumes among its devices.

    Kept and named are devices that are not managed volumes, and managed volumes that are not
    devices: their content has not been seen. Raises Unfit as require_empty does; Transient when
    the filesystem is in use, also in another mount namespace, or EC2 does not do as asked.
    """
    reading = world.filesystem.read()
    nodes = {
        volume: world.block_devices.node_of(volume)
        for volume in world.cloud.inventory(reading.filesystem).volumes
        if volume.state not in DEAD_VOLUME_STATES
    }
    managed = {volume: node for volume, node in nodes.items() if reading.has_device(node)}
    others = {device.name for device in reading.devices} - set(managed.values())
    world.filesystem.keep_reserve(0)
    # As late as possible: what is written after this look is lost.
    mount = require_empty(reading)
    _unmount(mount, reading, world.clock)
    say(f"unmounted {mount.point}, which was empty")
    for volume in managed:
        _delete(volume, world)
        say(f"deleted {volume.id}")
    for name in sorted(others):
        say(f"kept /dev/{name}, which is not a managed volume; to erase it, use `wipefs`")
    for volume in nodes:
        if volume not in managed:
            what = f"kept {volume.id}, {volume.state}, which is not a device of the filesystem"
            say(f"{what}; inspect it, and delete it in EC2 if its data is not needed")


def require_empty(reading: Reading) -> Mount:
    """The one mount of the filesystem; raises Unfit unless it shows all of it, and no content.

    The reserve file is no content; a subvolume is, mounted or not. With a missing device the
    filesystem is never empty.
    """
    if lost := missing_device(reading):
        raise Unfit(
            f"{lost.sentence}: the data on it cannot be checked",
            hint="attach its volume and mount the filesystem again; nothing was deleted",
            cause=Cause.MISSING_DEVICE,
        )
    mount = _only_mount(reading)
    content = sorted({path.name for path in Path(mount.point).iterdir()} - {reserve.NAME})
    argv = ["btrfs", "subvolume", "list", mount.point]
    content += run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS).splitlines()
    if content:
        raise Unfit(
            f"{mount.point} is not empty: {content[0]}",
            hint="delete its contents, or omit --purge-empty; nothing was deleted",
            cause=Cause.NOT_EMPTY,
        )
    return mount


def _only_mount(reading: Reading) -> Mount:
    point = reading.mountpoint
    table = MountTable()
    mount = table.at(point)
    if mount is None or mount.root != "/":
        # By the ID of the top level: a mount may show another subvolume by default.
        whole = f"umount {point} && mount -o subvolid=5 UUID={reading.filesystem} {point}"
        raise Unfit(
            f"{point} shows only {mount.root if mount else 'a directory'} of its filesystem",
            hint=f"mount the whole of it with `{whole}`; nothing was deleted",
            cause=Cause.NOT_EMPTY,
        )
    # The device number is that of the superblock: subvolumes and bind mounts have the same.
    others = [each for each in table.mounts() if each.device == mount.device and each != mount]
    if others:
        raise Unfit(
            f"{point} is also mounted on {others[0].point}",
            hint="unmount it there first; nothing was deleted",
            cause=Cause.IN_USE,
        )
    return mount


def _unmount(mount: Mount, reading: Reading, clock: Clock) -> None:
    """Unmount it; raises Transient unless that was its last use in any mount namespace."""
    try:
        run(["umount", mount.point], timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    except CommandFailed as error:
        raise Transient(
            f"{mount.point} is in use: {error}",
            hint=f"see `fuser -vm {mount.point}`; nothing was deleted",
            cause=Cause.MOUNT_IN_USE,
        ) from error
    deadline = clock.now_seconds() + _LAST_USE_PATIENCE_SECONDS
    while (SYSFS / reading.filesystem).exists():
        if clock.now_seconds() > deadline:
            raise Transient(
                f"{mount.point} was unmounted, but its filesystem is still mounted in another "
                "mount namespace, such as that of a container; nothing was deleted",
                hint=f"stop what uses it (`grep -l ' {mount.device} ' /proc/*/mountinfo`), "
                f"run `mount UUID={reading.filesystem} {mount.point}` and try again",
                cause=Cause.MOUNT_IN_USE,
            )
        clock.sleep(_LAST_USE_LOOK_SECONDS)


def _delete(volume: Volume, world: World) -> None:
    if volume.attached_to:
        world.cloud.detach(volume)
        wait_detached(world.cloud, volume, world.clock)
    world.cloud.delete(volume)
