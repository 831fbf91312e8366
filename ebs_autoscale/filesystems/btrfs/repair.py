"""Which devices of a filesystem lack a superblock, and the commands that repair it. One home."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs import ioctl
from ebs_autoscale.filesystems.btrfs.superblock import read_superblock, superblock_uuid
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.model import MIB, Device, Reading
from ebs_autoscale.units import format_size

_PROC = Path("/proc")

# A growth begins with 20 % by default: so much is left for a balance to end by itself.
_NEARLY_FULL_SHARE = 1 / 20
_NEARLY_FULL_METADATA_BYTES = 64 * MIB

_WAIT = "wait for the other operation to finish, or cancel it"


def add_command(name: str, path: str) -> list[str]:
    """The command that adds a device: without TRIM (-K), which EBS does not support."""
    return ["btrfs", "device", "add", "-K", f"/dev/{name}", path]


def add_at_once(fd: int, name: str) -> None:
    """The same by the system call alone, see `ioctl.add_device`; raises CommandFailed."""
    try:
        ioctl.add_device(fd, f"/dev/{name}")
    except OSError as error:
        argv = ("BTRFS_IOC_ADD_DEV", f"/dev/{name}")
        raise CommandFailed(argv, error.errno, error.strerror or "") from error


def adding_process(path: str) -> tuple[str, int] | None:
    """The device that a process started as `add_command` is adding now, and its process id.

    A process that waits for a device in the kernel cannot be killed; it outlives its growth.
    """
    wanted = add_command("", path)
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # Any user can start a process with these arguments.
            if folder.stat().st_uid != os.geteuid():
                continue
            argv = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")[:-1]
        except OSError:
            continue
        if len(argv) == len(wanted) and [*argv[:4], argv[5]] == [*wanted[:4], wanted[5]]:
            return argv[4].removeprefix("/dev/"), int(folder.name)
    return None


def stuck_add(name: str, process_id: int, volume: str = "") -> Unfit:
    """Our own add, which the kernel has not finished: nothing else is done until it has."""
    return Unfit(
        f"`btrfs device add` of {_named(name, volume)} has not ended (process {process_id}): the "
        "device does not respond",
        hint="detach its volume by force, which ends it, or reboot the instance; it cannot be "
        "killed, and no other device is added meanwhile",
        cause=Cause.STUCK_ADD,
    )


def incomplete_add(device: Device, path: str, volume: str = "") -> Unfit:
    """A device of a writable filesystem that has no superblock.

    Its add is committed, so that the filesystem cannot be mounted again without it, and forgetting
    it does not help (measured: 4 of 4). Removing it does, also with content (measured on 6.18: 3
    of 3). If it can be written again, the next commit writes its superblock.
    """
    return Unfit(
        f"{_named(device.name, volume)} (devid {device.devid}) of {path} has no superblock, since "
        f"it refused to be written: without it {path} cannot be mounted again",
        hint=f"while {path} is writable, run `btrfs device remove {device.devid} {path}`; then "
        "detach and delete the volume of that device",
        cause=Cause.INCOMPLETE_ADD,
    )


def verify_superblocks(
    devices: Iterable[Device], uuid: str, path: str, volumes: Mapping[str, str]
) -> None:
    """Raise Unfit when a present device has no superblock of its filesystem, as read from it."""
    for device in devices:
        is_here = device.name and not device.missing
        if is_here and not _device_count(device.name, uuid):
            raise incomplete_add(device, path, volumes.get(device.name, ""))


def is_device(name: str, reading: Reading, path: str) -> bool:
    """Whether it is a device in sysfs and on disk; raises Unfit when only one says so."""
    listed = reading.has_device(name)
    try:
        written = superblock_uuid(f"/dev/{name}") == reading.filesystem
    except OSError as error:
        if not listed:
            return False
        what = f"cannot read the superblock on {name}: {error}"
        raise Transient(what, cause=Cause.ADD) from error
    if listed and not written:
        device = next(each for each in reading.devices if each.name == name)
        raise incomplete_add(device, path)
    if written and not listed:
        raise Unfit(
            f"{name} has a superblock of {reading.filesystem}, but the kernel does not list it as "
            "a device: it is a restored snapshot, or was removed from the filesystem",
            hint=f"inspect it; if its data is not needed, run `wipefs --all /dev/{name}`",
            cause=Cause.NOT_BLANK,
        )
    return listed


def add_failure(name: str, error: CommandFailed) -> Transient | Unfit:
    """What a failed add means to the growth."""
    if "appears to contain" in error.stderr:
        return Unfit(
            f"{name} is not blank: {error.stderr.splitlines()[0]}",
            hint=f"inspect it with `wipefs /dev/{name}`; nothing was overwritten",
            cause=Cause.NOT_BLANK,
        )
    if is_exclusive(error):
        older = "; before Linux 5.17, a paused balance also prevents it"
        return prevented(f"add {name}", error, hint=f"{_WAIT}{older}")
    return Transient(f"cannot add {name}: {error}", cause=Cause.ADD)


def prevented(what: str, why: object, *, hint: str = _WAIT) -> Transient:
    """Another exclusive operation prevents what changes devices or moves chunks."""
    return Transient(f"cannot {what}: {why}", hint=hint, cause=Cause.EXCLUSIVE_OPERATION)


def is_nearly_full(reading: Reading) -> bool:
    """Whether programs need space more than another process needs its balance."""
    is_short = reading.available_bytes < reading.size_bytes * _NEARLY_FULL_SHARE
    return is_short or reading.metadata_room_bytes < _NEARLY_FULL_METADATA_BYTES


def resize_command(devid: int, path: str) -> list[str]:
    """The command that extends a device to the size of its block device."""
    return ["btrfs", "filesystem", "resize", f"{devid}:max", path]


def resize_failure(device: Device, path: str, error: CommandFailed | None) -> Transient:
    """What a resize that failed, or changed nothing, means to the growth."""
    if error and is_exclusive(error):
        return prevented(f"extend {device.name}", error)
    command = " ".join(resize_command(device.devid, path))
    hint = f"see `dmesg`, then run `{command}`"
    why = error or f"the command succeeded, but it still has {format_size(device.size_bytes)}"
    return Transient(f"cannot extend {device.name}: {why}", hint=hint, cause=Cause.RESIZE)


def is_exclusive(error: CommandFailed) -> bool:
    """Whether another exclusive operation prevented it."""
    return "exclusive operation" in error.stderr or "in progress" in error.stderr


def no_balance_beside(operation: str, path: str, uuid: str, *, lost: bool) -> Transient:
    """Why metadata is not balanced now; `lost` is a paused balance that does not exist."""
    what = f"another operation is in progress ({operation})"
    hint = f"see `btrfs balance status {path}`"
    if lost:
        # Seen on 6.18 after two adds at once; only an unmount ends this state.
        what = "the kernel reports a paused balance, but there is none"
        hint = f"run `{remount_command(path, uuid)}`; no data is lost"
    return prevented("balance metadata", what, hint=hint)


def remount_command(path: str, uuid: str) -> str:
    """The commands that mount the filesystem anew, without devices that were never fully added.

    An add that was aborted: the kernel still lists the device, and takes it for the newest, so that
    a mount fails with "failed to read devices" unless it is forgotten (measured on 6.18: 6 of 6
    failed without `--forget`, none of 6 with it). One that was committed: the filesystem counts the
    device, which has to be removed while it is missing.
    """
    try:
        names = sorted(node.name for node in (SYSFS / uuid / "devices").iterdir())
    except OSError:
        names = []
    counts = {name: _device_count(name, uuid) for name in names}
    nodes = [f"/dev/{name}" for name, count in counts.items() if not count]
    commands = [f"umount {path}"]
    if nodes:
        commands.append(f"btrfs device scan --forget {' '.join(nodes)}")
    if nodes and max(counts.values()) > len(counts) - len(nodes):
        commands += [
            f"mount -o degraded {path}",
            f"btrfs device remove missing {path}",
            f"umount {path}",
        ]
    return " && ".join([*commands, f"mount {path}"])


def _device_count(name: str, uuid: str) -> int:
    """How many devices the filesystem has, by the superblock on this one; 0 without one.

    A seed device has the superblock of the filesystem that it was, which counts for nothing. One
    that this user may not read is not known to lack it.
    """
    try:
        found = read_superblock(f"/dev/{name}")
    except PermissionError:
        return 1
    except OSError:
        return 0
    if found is None:
        return 0
    return found.device_count if found.filesystem == uuid else 1


def _named(name: str, volume: str) -> str:
    return f"{name} ({volume})" if volume else name
