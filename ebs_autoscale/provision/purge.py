"""An empty filesystem given up: unmounted, and its volumes deleted, by the operator's wish."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs import reserve as btrfs_reserve
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.model import Reading, Volume
from ebs_autoscale.policy.decision import DEAD_STATES, lost_members
from ebs_autoscale.resize.ports import World

_TOOL_TIMEOUT_SECONDS = 120.0
# `umount` returns when it is over (6.18), unless somebody is closing his last file just then.
_LAST_USE_PATIENCE_SECONDS = 2.0
_LAST_USE_LOOK_SECONDS = 0.1
# Most detaches take 1 to 4 s; `busy` can last for ever.
_DETACH_PATIENCE_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 2.0


def purge_empty(world: World, say: Callable[[str], object]) -> None:
    """Unmount the filesystem and delete those of its members that are volumes of ours.

    Only when there is nothing in it at all. Kept and named are members that are not ours, and
    volumes of ours that are no members: what is on these was not seen. Raises Unfit as
    require_empty does; Transient when it is in use, here or in another mount namespace, or EC2
    does not do as asked.
    """
    reading = world.filesystem.read()
    volumes = [
        replace(volume, node=world.nodes.node_of(volume))
        for volume in world.cloud.inventory(reading.filesystem).volumes
        if volume.state not in DEAD_STATES
    ]
    members = [volume for volume in volumes if reading.has_member(volume.node)]
    strangers = {member.name for member in reading.members} - {each.node for each in members}
    world.filesystem.keep_reserve(0)
    # The last look before the end, since what is written after it is lost.
    mount = require_empty(reading)
    _unmount(mount, reading, world.clock)
    say(f"unmounted {mount.point}, which was empty")
    for volume in members:
        _give_back(volume, world)
        say(f"deleted {volume.id}")
    for name in sorted(strangers):
        say(f"kept /dev/{name}: it is not a volume of ours; `wipefs` makes it blank")
    for volume in volumes:
        if volume not in members:
            what = f"kept {volume.id}, {volume.state} and no member of the filesystem"
            say(f"{what}: see what is on it, and delete it in EC2 when nobody needs that")


def require_empty(reading: Reading) -> Mount:
    """The one mount of the filesystem; raises Unfit unless it shows all of it, and that is nothing.

    The reserve does not count, a subvolume does, mounted or not, and so does a lost member.
    """
    if lost := lost_members(reading):
        raise Unfit(
            f"{lost}, and what is on it cannot be seen",
            hint="bring its volume back and mount it again; nothing is deleted",
            cause="missing member",
        )
    mount = _only_mount(reading)
    content = sorted({path.name for path in Path(mount.point).iterdir()} - {btrfs_reserve.NAME})
    argv = ["btrfs", "subvolume", "list", mount.point]
    content += run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS).splitlines()
    if content:
        raise Unfit(
            f"{mount.point} is not empty: {content[0]}",
            hint="empty it first, or leave --purge-empty away; nothing is deleted",
            cause="not empty",
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
            cause="not empty",
        )
    # Its subvolumes and binds have the same number: it is the superblock's.
    others = [each for each in table.mounts() if each.device == mount.device and each != mount]
    if others:
        raise Unfit(
            f"{point} is also mounted on {others[0].point}",
            hint="unmount it there first; nothing is deleted",
            cause="in use",
        )
    return mount


def _unmount(mount: Mount, reading: Reading, clock: Clock) -> None:
    """Unmount it, and raise Transient unless that was its last use in any mount namespace."""
    try:
        run(["umount", mount.point], timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    except CommandFailed as error:
        hint = f"see `fuser -vm {mount.point}`; nothing is deleted"
        raise Transient(f"{mount.point} is in use: {error}", hint=hint, cause="in use") from error
    deadline = clock.now_seconds() + _LAST_USE_PATIENCE_SECONDS
    while (SYSFS / reading.filesystem).exists():
        if clock.now_seconds() > deadline:
            raise Transient(
                f"{mount.point} is unmounted, but its filesystem is still mounted elsewhere, "
                "such as in a container; nothing is deleted",
                hint=f"end what uses it, see `grep -l ' {mount.device} ' /proc/*/mountinfo`; then "
                f"`mount UUID={reading.filesystem} {mount.point}`, and repeat",
                cause="in use",
            )
        clock.sleep(_LAST_USE_LOOK_SECONDS)


def _give_back(volume: Volume, world: World) -> None:
    if volume.attached_to:
        world.cloud.detach(volume)
    deadline = world.clock.now_seconds() + _DETACH_PATIENCE_SECONDS
    while (seen := world.cloud.refresh(volume)) and seen.state != "available":
        if world.clock.now_seconds() > deadline:
            raise Transient(
                f"{volume.id} is still {seen.attachment_state or seen.state}",
                hint="delete it in EC2 once it is detached",
                cause="stuck detach",
            )
        world.clock.sleep(_LOOK_EVERY_SECONDS)
    world.cloud.delete(volume)
