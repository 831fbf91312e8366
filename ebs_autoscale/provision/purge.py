"""`uninstall --purge-empty`: unmount an empty filesystem and delete its volumes."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.filesystems.btrfs import reserve
from ebs_autoscale.filesystems.btrfs.superblock import read_superblock
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.filesystems.one_device import superblock as one_device_superblock
from ebs_autoscale.host import files, paths
from ebs_autoscale.host.blank import signature_of
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import Mount, MountTable
from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    AttachVolume,
    FilesystemKind,
    Inventory,
    Observation,
    Reading,
    Volume,
)
from ebs_autoscale.policy import missing_device
from ebs_autoscale.provision.first_volume import NoFilesystem
from ebs_autoscale.resize import Attached, World, carry_out
from ebs_autoscale.volumes import wait_detached

_TOOL_TIMEOUT_SECONDS = 120.0
# The filesystem is gone when `umount` returns (Linux 6.18), unless another process is just
# closing its last file there.
_LAST_USE_PATIENCE_SECONDS = 2.0
_LAST_USE_LOOK_SECONDS = 0.1
_LOST_AND_FOUND = "lost+found"


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
    managed = {
        volume: node
        for volume, node in nodes.items()
        if reading.has_device(node) and not volume.adopted
    }
    others = {device.name for device in reading.devices} - set(managed.values())
    world.filesystem.keep_reserve(0)
    mark = Mark(filesystem=reading.filesystem, kind=reading.kind)
    mark.write(reading.mountpoint)
    try:
        # Read-only first: nothing is written between the look and the unmount.
        _remount("ro", reading.mountpoint)
        # Ours is gone: what has its name now is somebody's file.
        mount = require_empty(reading, ignored="")
        seen = {volume.id: _generation(node, mark.kind) for volume, node in managed.items()}
        mark = replace(mark, volumes=seen)
        mark.write(reading.mountpoint)
        _unmount(mount, reading, world.clock)
    except EbsAutoscaleError:
        with suppress(EbsAutoscaleError):
            _remount("rw", reading.mountpoint)
        paths.purge_mark(reading.mountpoint).unlink(missing_ok=True)
        raise
    say(f"unmounted {mount.point}, which was empty")
    finish(mark, world, say)
    for name in sorted(others):
        say(f"kept /dev/{name}, which is not a managed volume; to erase it, use `wipefs`")
    for volume in nodes:
        if volume not in managed:
            what = f"kept {volume.id}, {volume.state}, which is not a device of the filesystem"
            say(f"{what}; inspect it, and delete it in EC2 if its data is not needed")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was seen of an empty filesystem before it was unmounted.

    `volumes` are the volumes to delete, each with what `_generation` says of it; None before the
    filesystem was seen to be empty. That a filesystem was empty cannot be seen any more
    once one of its volumes is deleted; so it is written under /run, for a run that is interrupted.
    """

    filesystem: str
    volumes: Mapping[str, int] | None = None
    kind: str = FilesystemKind.BTRFS

    def write(self, mountpoint: str) -> None:
        """Write it, before what it is about."""
        files.replace(paths.purge_mark(mountpoint), json.dumps(asdict(self)))


def interrupted(mountpoint: str) -> Mark | None:
    """What an interrupted purge has left of a filesystem that it unmounted; None if nothing.

    One that it left mounted read-only is made writable again.
    """
    try:
        mark = Mark(**json.loads(files.read_text(paths.purge_mark(mountpoint))))
    except (ValueError, TypeError):
        return None
    mount = MountTable().at(mountpoint)
    if mount is None:
        return mark if mark.volumes is not None else None
    with suppress(Transient):
        _remount("rw", mountpoint)
    return None


def finish(mark: Mark, world: World, say: Callable[[str], object]) -> None:
    """Delete the volumes of a filesystem that was empty; nothing was written to them since.

    Each is looked at before any is deleted, also one that is detached: where it has been since is
    not known, so it is attached again. Raises Unfit that names what must not be deleted.
    """
    generations = mark.volumes or {}
    inventory = world.cloud.inventory(mark.filesystem)
    doomed = [
        _attached(volume, inventory, world)
        for volume in inventory.volumes
        if volume.id in generations and volume.state not in DEAD_VOLUME_STATES
    ]
    for volume, node, _ in doomed:
        if not _is_as_seen(node, mark, generations[volume.id]):
            raise Unfit(
                f"{volume.id} ({node}) was written to after it was seen to be empty",
                hint=f"see `wipefs /dev/{node}`, mount it and look what it contains; it was not "
                "deleted",
                cause=Cause.NOT_EMPTY,
            )
    for each in doomed:
        _delete(each.volume, world)
        say(f"deleted {each.volume.id}")


def _attached(volume: Volume, inventory: Inventory, world: World) -> Attached:
    """The volume with its block device; it is attached if it is not."""
    if node := world.block_devices.node_of(volume):
        return Attached(volume, node)
    if volume.attachment_state == "detaching":
        volume = wait_detached(world.cloud, volume, world.clock) or volume
    gone = NoFilesystem(volume.growth.filesystem, "")
    seen = Observation(reading=gone.read(), inventory=inventory)
    plan = (AttachVolume(growth=volume.growth),)
    return carry_out(plan, volume, seen, replace(world, filesystem=gone))


def _is_as_seen(node: str, mark: Mark, generation: int) -> bool:
    """Whether the device still has this filesystem, as it was, and nothing beside it.

    A partition table leaves the superblock as it is.
    """
    try:
        found = signature_of(Path("/dev", node))
    except CommandFailed:
        return False
    is_same = found == f"{mark.kind}, UUID {mark.filesystem}"
    return is_same and _generation(node, mark.kind) == generation


def _generation(node: str, kind: str) -> int:
    """What changes with the content of the filesystem on the device.

    With BTRFS it is a number in the superblock, with XFS and ext4 the superblock itself.
    """
    try:
        if kind == FilesystemKind.BTRFS:
            superblock = read_superblock(f"/dev/{node}")
            return superblock.generation if superblock else -1
        other = one_device_superblock.read_superblock(f"/dev/{node}")
    except OSError as error:
        what = f"cannot read the superblock on {node}: {error}"
        raise Unfit(what, cause=Cause.DEVICE_UNREADABLE) from error
    return other.checksum if other else -1


def _remount(mode: str, point: str) -> None:
    argv = ["mount", "-o", f"remount,{mode}", point]
    try:
        run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    except CommandFailed as error:
        raise _in_use(point, error) from error


def _in_use(point: str, error: CommandFailed) -> Transient:
    return Transient(
        f"{point} is in use: {error}",
        hint=f"see `fuser -vm {point}`; nothing was deleted",
        cause=Cause.MOUNT_IN_USE,
    )


def require_created(reading: Reading, world: World) -> None:
    """Raise Unfit if its only volume was in use before `init`: it is the operator's to delete."""
    if reading.kind.takes_devices:
        return
    volumes = world.cloud.inventory(reading.filesystem).volumes
    if all(volume.adopted for volume in volumes):
        names = ", ".join(volume.id for volume in volumes) or "its volume"
        raise Unfit(
            f"`init` did not create {names} of {reading.mountpoint}, so it is not deleted",
            hint="omit --purge-empty",
            cause=Cause.NOT_EMPTY,
        )


def require_empty(reading: Reading, *, ignored: str = reserve.NAME) -> Mount:
    """The one mount of the filesystem; raises Unfit unless it shows all of it, and no content.

    A file with the `ignored` name, the reserve, is no content; a subvolume is, mounted or not. With
    a missing device the filesystem is never empty.
    """
    if lost := missing_device(reading):
        raise Unfit(
            f"{lost.sentence}: the data on it cannot be checked",
            hint="attach its volume and mount the filesystem again; nothing was deleted",
            cause=Cause.MISSING_DEVICE,
        )
    mount = _only_mount(reading)
    if content := _content_of(mount.point, reading.kind, ignored):
        raise Unfit(
            f"{mount.point} is not empty: {content[0]}",
            hint="delete its contents, or omit --purge-empty; nothing was deleted",
            cause=Cause.NOT_EMPTY,
        )
    return mount


def _content_of(point: str, kind: FilesystemKind, ignored: str) -> list[str]:
    """What is in the filesystem that an operator may want to keep."""
    paths_in_it = list(Path(point).iterdir())
    if kind.takes_devices:
        content = sorted({path.name for path in paths_in_it} - {ignored})
        argv = ["btrfs", "subvolume", "list", point]
        return content + run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS).splitlines()
    # mkfs.ext4 makes it, for e2fsck to put there what it finds.
    if kind is FilesystemKind.EXT4:
        found = Path(point, _LOST_AND_FOUND)
        paths_in_it += found.iterdir() if found.is_dir() and not found.is_symlink() else ()
        paths_in_it = [path for path in paths_in_it if path != found]
    return sorted(path.name for path in paths_in_it)


def _only_mount(reading: Reading) -> Mount:
    point = reading.mountpoint
    table = MountTable()
    mount = table.at(point)
    if mount is None or mount.root != "/":
        # By the ID of the top level: a mount may show another subvolume by default.
        option = "-o subvolid=5 " if reading.kind.takes_devices else ""
        whole = f"umount {point} && mount {option}UUID={reading.filesystem} {point}"
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
        raise _in_use(mount.point, error) from error
    deadline = clock.now_seconds() + _LAST_USE_PATIENCE_SECONDS
    # The kernel has this folder as long as it is mounted anywhere.
    in_kernel = SYSFS / reading.filesystem
    if not reading.kind.takes_devices:
        (device,) = reading.devices
        in_kernel = Path("/sys/fs", reading.kind, device.partition or device.name)
    while in_kernel.exists():
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
