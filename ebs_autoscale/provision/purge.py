"""An empty filesystem given up: unmounted, and its volumes deleted, by the operator's wish."""

from collections.abc import Callable
from pathlib import Path

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs import reserve as btrfs_reserve
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.model import DEAD_VOLUME_STATES, Reading, Volume
from ebs_autoscale.policy import missing_device
from ebs_autoscale.resize import World
from ebs_autoscale.volumes import wait_detached

_TOOL_TIMEOUT_SECONDS = 120.0
# `umount` returns when it is over (6.18), unless somebody is closing his last file just then.
_LAST_USE_PATIENCE_SECONDS = 2.0
_LAST_USE_LOOK_SECONDS = 0.1


def purge_empty(world: World, say: Callable[[str], object]) -> None:
    """Unmount the filesystem and delete those of its devices that are volumes of ours.

    Only when there is nothing in it at all. Kept and named are devices that are not ours, and
    volumes of ours that are no devices: what is on these was not seen. Raises Unfit as
    require_empty does; Transient when it is in use, here or in another mount namespace, or EC2
    does not do as asked.
    """
    reading = world.filesystem.read()
    nodes = {
        volume: world.block_devices.node_of(volume)
        for volume in world.cloud.inventory(reading.filesystem).volumes
        if volume.state not in DEAD_VOLUME_STATES
    }
    devices = [volume for volume, node in nodes.items() if reading.has_device(node)]
    strangers = {device.name for device in reading.devices} - {nodes[v] for v in devices}
    world.filesystem.keep_reserve(0)
    # The last look before the end, since what is written after it is lost.
    mount = require_empty(reading)
    _unmount(mount, reading, world.clock)
    say(f"unmounted {mount.point}, which was empty")
    for volume in devices:
        _delete(volume, world)
        say(f"deleted {volume.id}")
    for name in sorted(strangers):
        say(f"kept /dev/{name}: it is not a volume of ours; `wipefs` makes it blank")
    for volume in nodes:
        if volume not in devices:
            what = f"kept {volume.id}, {volume.state} and no device of the filesystem"
            say(f"{what}: see what is on it, and delete it in EC2 when nobody needs that")


def require_empty(reading: Reading) -> Mount:
    """The one mount of the filesystem; raises Unfit unless it shows all of it, and that is nothing.

    The reserve does not count, a subvolume does, mounted or not, and so does a lost device.
    """
    if lost := missing_device(reading):
        raise Unfit(
            f"{lost.sentence}, and what is on it cannot be seen",
            hint="bring its volume back and mount it again; nothing is deleted",
            cause=Cause.MISSING_DEVICE,
        )
    mount = _only_mount(reading)
    content = sorted({path.name for path in Path(mount.point).iterdir()} - {btrfs_reserve.NAME})
    argv = ["btrfs", "subvolume", "list", mount.point]
    content += run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS).splitlines()
    if content:
        raise Unfit(
            f"{mount.point} is not empty: {content[0]}",
            hint="empty it first, or leave --purge-empty away; nothing is deleted",
            cause=Cause.NOT_EMPTY,
        )
    return mount


def _only_mount(reading: Reading) -> Mount:
    point = reading.mountpoint
    table = MountTable()
    mount = table.at(point)
    if mount is None or mount.root != "/":
        # By the id of the top: another subvolume can be what a mount shows by default.
        whole = f"umount {point} && mount -o subvolid=5 UUID={reading.filesystem} {point}"
        raise Unfit(
            f"{point} is only {mount.root if mount else 'a folder'} of its filesystem",
            hint=f"look at all of it: `{whole}`; nothing is deleted",
            cause=Cause.NOT_EMPTY,
        )
    # Its subvolumes and binds have the same number: it is the superblock's.
    others = [each for each in table.mounts() if each.device == mount.device and each != mount]
    if others:
        raise Unfit(
            f"{point} is also mounted on {others[0].point}",
            hint="unmount it there first; nothing is deleted",
            cause=Cause.IN_USE,
        )
    return mount


def _unmount(mount: Mount, reading: Reading, clock: Clock) -> None:
    """Unmount it, and raise Transient unless that was its last use in any mount namespace."""
    try:
        run(["umount", mount.point], timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    except CommandFailed as error:
        hint = f"see `fuser -vm {mount.point}`; nothing is deleted"
        raise Transient(
            f"{mount.point} is in use: {error}", hint=hint, cause=Cause.MOUNT_IN_USE
        ) from error
    deadline = clock.now_seconds() + _LAST_USE_PATIENCE_SECONDS
    while (SYSFS / reading.filesystem).exists():
        if clock.now_seconds() > deadline:
            raise Transient(
                f"{mount.point} is unmounted, but its filesystem is still mounted elsewhere, "
                "such as in a container; nothing is deleted",
                hint=f"end what uses it, see `grep -l ' {mount.device} ' /proc/*/mountinfo`; then "
                f"`mount UUID={reading.filesystem} {mount.point}`, and repeat",
                cause=Cause.MOUNT_IN_USE,
            )
        clock.sleep(_LAST_USE_LOOK_SECONDS)


def _delete(volume: Volume, world: World) -> None:
    if volume.attached_to:
        world.cloud.detach(volume)
        if wait_detached(world.cloud, volume, world.clock) is None:
            return
    world.cloud.delete(volume)
