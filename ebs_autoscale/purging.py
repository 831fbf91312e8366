"""An empty filesystem given up: unmounted, and its volumes deleted, by the operator's wish."""

from collections.abc import Callable
from pathlib import Path

from ebs_autoscale import btrfs_reserve
from ebs_autoscale.command import run
from ebs_autoscale.errors import CommandFailed, Transient, Unfit
from ebs_autoscale.model import Volume
from ebs_autoscale.policy import DEAD_STATES
from ebs_autoscale.ports import World

_TOOL_TIMEOUT_SECONDS = 120.0
# Most detaches take 1 to 4 s; `busy` can last for ever.
_DETACH_PATIENCE_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 2.0


def purge_empty(mountpoint: str, world: World, say: Callable[[str], object]) -> None:
    """Unmount the filesystem and delete its volumes of ours, when there is nothing in it at all.

    Members that are not ours stay as they are. Raises Unfit when it is not empty or one of
    its members is missing; Transient when it is in use or EC2 does not do as asked.
    """
    reading = world.filesystem.read()
    world.filesystem.keep_reserve(0)
    require_empty(mountpoint)
    volumes = [
        volume
        for volume in world.cloud.inventory(reading.filesystem).volumes
        if volume.state not in DEAD_STATES
    ]
    strangers = {member.name for member in reading.members}
    strangers -= {world.nodes.node_of(volume) for volume in volumes}
    try:
        run(["umount", mountpoint], timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    except CommandFailed as error:
        hint = f"see `fuser -vm {mountpoint}`; nothing is deleted"
        raise Transient(f"{mountpoint} is in use: {error}", hint=hint, cause="in use") from error
    say(f"unmounted {mountpoint}, which was empty")
    for volume in volumes:
        _give_back(volume, world)
        say(f"deleted {volume.id}")
    for name in sorted(strangers):
        say(f"kept /dev/{name}: it is not a volume of ours; `wipefs` makes it blank")


def require_empty(mountpoint: str) -> None:
    """Raise Unfit when there is any file but the reserve, or any subvolume, mounted or not."""
    content = sorted({path.name for path in Path(mountpoint).iterdir()} - {btrfs_reserve.NAME})
    argv = ["btrfs", "subvolume", "list", mountpoint]
    content += run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS).splitlines()
    if content:
        raise Unfit(
            f"{mountpoint} is not empty: {content[0]}",
            hint="empty it first, or leave --purge-empty away; nothing is deleted",
            cause="not empty",
        )


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
