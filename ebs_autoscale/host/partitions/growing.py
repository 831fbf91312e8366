"""Extend a partition to the end of its block device: what must be true, and the steps."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.host import blank
from ebs_autoscale.host.command import require_tools, run
from ebs_autoscale.host.partitions import kernel, table
from ebs_autoscale.host.partitions.backup import back_up
from ebs_autoscale.host.partitions.kernel import Partition
from ebs_autoscale.host.partitions.table import SECTOR_BYTES, Entry, IrregularTable, Table
from ebs_autoscale.model import MIB
from ebs_autoscale.units import format_size

# The backup of a GPT takes 33 sectors, and every tool aligns to MiB.
_GRAIN_SECTORS = MIB // SECTOR_BYTES
# An array has its superblock in the last 128 KiB, and images leave 1 MiB behind a partition.
_INSPECTED_BYTES = 4 * MIB

# Those of LVM, md, swap, LUKS and the like are not among them: what says that it is something else
# is not extended. Sources: https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
_KINDS = {
    "dos": {"83"},
    "gpt": {
        "0fc63daf-8483-4772-8e79-3d69d8477de4",  # a Linux filesystem
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",  # what older versions of parted make of that
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # root, x86-64
        "b921b045-1df0-41c3-af44-4c6f280d3fae",  # root, 64-bit ARM
        "8484680c-9521-48c6-9c11-b0720656f69e",  # /usr, x86-64
        "b0e01050-ee5f-4390-949a-9101b17104e9",  # /usr, 64-bit ARM
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915",  # /home
        "3b8f8425-20e0-4f3b-907f-1a25a76f98e8",  # /srv
        "4d21b016-b534-45c2-a9fb-5c16e091fd2d",  # /var
        "7ec6f557-3bc5-4aca-b293-16ef5df639d1",  # /var/tmp
    },
}
_FILESYSTEMS = {"xfs", "ext4"}

_PROBES = 3
_TOOL_TIMEOUT_SECONDS = 60.0
# systemd-udevd has it for as long as it reads the device, growpart as long as it changes the table.
_LOCK_TIMEOUT_SECONDS = 20


def require_growable(partition: Partition) -> int | None:
    """Raise Unfit unless it is certain that `grow` extends this partition and changes nothing else.

    That is: the table is intact and the same for us, sfdisk, blkid and the kernel, this partition
    is the last one and has an XFS or ext4, and nothing else is known to be on the block device.
    Returns the size of the largest one that its table can describe; None without such a limit.
    """
    require_tools("wipefs", "blkid", "flock", "sfdisk", "partx")
    with _opened(partition.disk) as fd:
        found, _ = _require_growable(fd, partition)
    sectors = table.sectors_max(found.label)
    return sectors and sectors * SECTOR_BYTES


def grow(partition: Partition, *, tell: Callable[[str], None]) -> Path | None:
    """Extend the partition to the end of its block device, in the table and in the kernel.

    Done when both have it, so that it can be repeated after a crash anywhere. The table is kept in
    a file before, which is told and returned; None if there was nothing to change in it. Raises
    Transient or Unfit; until the table is written, nothing has changed.
    """
    kept = None
    with _locked(partition.disk) as fd:
        found, entry = _require_growable(fd, partition)
        end = _end(partition.disk, found)
        if end > entry.end or found.is_unfinished:
            end = max(end, entry.end)
            kept = back_up(partition.disk, found)
            tell(f"the partition table of {partition.disk} is kept in {kept}")
            _write(partition, entry, end)
            expected = found.extended(
                partition.number, end=end, sectors=_disk_sectors(partition.disk)
            )
            _verify_table(fd, partition, expected, kept)
        end = max(end, entry.end)
        _tell_kernel(partition, end - entry.start)
    size = format_size((end - entry.start) * SECTOR_BYTES)
    tell(f"{partition.name} has {size}")
    return kept


def _require_growable(fd: int, partition: Partition) -> tuple[Table, Entry]:
    disk = partition.disk
    _require_usable(partition)
    found = _table(fd, disk)
    entry = _matching_entry(found, partition)
    if entry.kind not in _KINDS[found.label]:
        raise _unfit(
            partition,
            f"has the type {entry.kind}, not that of a Linux filesystem",
            hint="if it is one, say so with `sfdisk --no-reread --no-tell-kernel --part-type "
            f"/dev/{disk} {entry.number} linux`",
        )
    if behind := [each.number for each in found.entries if each.start > entry.start]:
        raise _unfit(partition, f"is not the last one: partition {behind[0]} is behind it")
    _require_no_other_content(partition, found, entry)
    if found.label == "dos":
        _require_nothing_behind(fd, partition, entry)
    return found, entry


def _require_usable(partition: Partition) -> None:
    disk = partition.disk
    for name in (disk, partition.name):
        if kernel.attribute(name, "ro") != "0":
            raise _unfit(partition, f"cannot be extended: {name} is read-only")
        if users := kernel.users_of(name):
            raise _unfit(partition, f"cannot be extended: {', '.join(users)} is on {name}")
    if parts := kernel.parts_of(disk):
        raise _unfit(partition, f"cannot be extended: {disk} consists of {', '.join(parts)}")
    if (size := kernel.attribute(disk, "queue/logical_block_size")) != str(SECTOR_BYTES):
        what = f"cannot be extended: {disk} has sectors of {size} bytes, not {SECTOR_BYTES}"
        raise _unfit(partition, what)


def _table(fd: int, disk: str) -> Table:
    try:
        return table.read(fd, _disk_sectors(disk))
    except IrregularTable as error:
        raise Unfit(f"{disk}: {error}", hint=_hint(disk), cause=Cause.PARTITION) from error
    except OSError as error:
        what = f"{disk} cannot be read: {error.strerror}"
        raise Unfit(what, hint="see `dmesg`", cause=Cause.DEVICE_UNREADABLE) from error


def _matching_entry(found: Table, partition: Partition) -> Entry:
    """The partition's entry; raises Unfit unless the kernel has what the table says.

    Only this partition may be larger in the table: the kernel was not told of it yet.
    """
    partitions = kernel.partitions_of(partition.disk)
    known = {
        number: (each.start_bytes // SECTOR_BYTES, each.size_bytes // SECTOR_BYTES)
        for number, each in partitions.items()
    }
    entries = {each.number: each for each in found.entries}
    differing = known.keys() ^ entries.keys() | {
        number
        for number in known.keys() & entries.keys()
        if known[number] != (entries[number].start, entries[number].sectors)
    }
    start, sectors = known.get(partition.number, (0, 0))
    entry = entries.get(partition.number)
    if entry and (entry.start, entry.sectors) >= (start, sectors) == (entry.start, sectors):
        differing.discard(partition.number)
    if differing or entry is None:
        numbers = ", ".join(map(str, sorted(differing or {partition.number})))
        raise _unfit(
            partition,
            f"cannot be extended: the table of {partition.disk} and the kernel differ in partition "
            f"{numbers}",
            hint=f"compare `sfdisk --dump /dev/{partition.disk}` with `lsblk`, then reboot",
        )
    return entry


def _require_nothing_behind(fd: int, partition: Partition, entry: Entry) -> None:
    """Raise Unfit if there is content behind the last partition in an MBR.

    How large the block device was is not known, so that blkid does not find what is at its old end.
    """
    start, end = entry.end * SECTOR_BYTES, _disk_sectors(partition.disk) * SECTOR_BYTES
    length = min(_INSPECTED_BYTES, end - start)
    if any(os.pread(fd, length, start)):
        raise _unfit(
            partition,
            f"cannot be extended: {partition.disk} has data behind it, at or after offset {start}",
        )


def _require_no_other_content(partition: Partition, found: Table, entry: Entry) -> None:
    """Raise Unfit unless there is the filesystem, the table and nothing else that is known.

    Also where the block device ended when the table was written, and behind the partition.
    """
    node, sectors = Path("/dev", partition.disk), _disk_sectors(partition.disk)
    content = _content_of(Path("/dev", partition.name))
    if content not in _FILESYSTEMS:
        raise _unfit(partition, f"has {content or 'nothing that blkid knows'}, not XFS or ext4")
    # All of them: blkid tells of no LVM where there is a partition table, too.
    argv = ["wipefs", "--noheadings", "--output=TYPE", str(node)]
    others = set(run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS).split())
    others -= {found.label, *(["PMBR"] if found.label == "gpt" else [])}
    probes = []
    if found.sectors not in (None, sectors):
        probes.append(_probed(node, sectors=found.sectors))
    if sectors > entry.end:
        probes.append(_probed(node, start=entry.end, sectors=sectors - entry.end))
    others |= {each["TYPE"] for each in probes if "TYPE" in each}
    if others:
        names = ", ".join(sorted(others))
        raise _unfit(partition, f"cannot be extended: {partition.disk} also contains {names}")


def _content_of(node: Path) -> str:
    """What blkid takes it for; the kernel may be about to write the checksum of a mounted ext4."""
    found = ""
    for _ in range(_PROBES):
        if found := _probed(node).get("TYPE", ""):
            break
    return found


def _probed(node: Path, *, start: int = 0, sectors: int | None = None) -> dict[str, str]:
    place = [f"--offset={start * SECTOR_BYTES}"]
    if sectors is not None:
        place.append(f"--size={sectors * SECTOR_BYTES}")
    try:
        return blank.probe(node, *place)
    except CommandFailed as error:
        raise Unfit(
            f"it is not certain what is on {node.name}: {error}",
            hint=f"nothing was changed; see `wipefs {node}`",
            cause=Cause.PARTITION,
        ) from error


def _end(disk: str, found: Table) -> int:
    """Where the last partition ends when it is as large as it can be, with a MiB to spare."""
    sectors = min(_disk_sectors(disk), table.sectors_max(found.label) or _disk_sectors(disk))
    return (sectors // _GRAIN_SECTORS - 1) * _GRAIN_SECTORS


def _write(partition: Partition, entry: Entry, end: int) -> None:
    # It ends by itself if we are killed. One that runs beside it then writes the same.
    argv = [
        "sfdisk",
        "--quiet",
        "--no-reread",
        "--no-tell-kernel",
        "--lock=no",  # whatever its environment says: we have the lock
        "--wipe=never",
        "--wipe-partitions=never",
        f"--partno={partition.number}",
        f"/dev/{partition.disk}",
    ]
    script = f"start={entry.start}, size={end - entry.start}\n"
    try:
        run(argv, stdin=script, timeout_seconds=_TOOL_TIMEOUT_SECONDS)
    except CommandFailed as error:
        what = f"cannot extend {partition.name}: {error}"
        raise Transient(what, cause=Cause.RESIZE) from error


def _verify_table(fd: int, partition: Partition, expected: Table, kept: Path) -> None:
    if _table(fd, partition.disk) != expected:
        disk = f"/dev/{partition.disk}"
        raise _unfit(
            partition,
            f"was extended, but the table of {partition.disk} is not what it has to be",
            hint=f"inspect it with `sfdisk --dump {disk}`; how it was is in {kept}",
        )


def _tell_kernel(partition: Partition, sectors: int) -> None:
    size_bytes = sectors * SECTOR_BYTES
    if _size_in_kernel(partition) != size_bytes:
        argv = ["partx", "--update", f"--nr={partition.number}", f"/dev/{partition.disk}"]
        try:
            run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS)
        except CommandFailed as error:
            what = f"cannot tell the kernel that {partition.name} is larger: {error}"
            raise Transient(what, cause=Cause.RESIZE) from error
    if (found := _size_in_kernel(partition)) != size_bytes:
        raise Transient(
            f"{partition.name} has {size_bytes} bytes in the partition table, but {found} in the "
            "kernel",
            hint="it is tried again; a reboot helps as well",
            cause=Cause.RESIZE,
        )


def _size_in_kernel(partition: Partition) -> int:
    found = kernel.partition_of(partition.name)
    return found.size_bytes if found else 0


def _disk_sectors(disk: str) -> int:
    return int(kernel.attribute(disk, "size") or 0)


@contextmanager
def _opened(disk: str) -> Iterator[int]:
    try:
        fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        what = f"cannot open {disk}: {error.strerror}"
        raise Unfit(what, hint="see `lsblk`", cause=Cause.DEVICE_UNREADABLE) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _locked(disk: str) -> Iterator[int]:
    """The block device, open, with the lock that udev, growpart and `sfdisk --lock` respect.

    Source: https://systemd.io/BLOCK_DEVICE_LOCKING/
    """
    with _opened(disk) as fd:
        argv = ["flock", f"--timeout={_LOCK_TIMEOUT_SECONDS}", str(fd)]
        try:
            run(argv, keep_open=[fd], timeout_seconds=2.0 * _LOCK_TIMEOUT_SECONDS)
        except CommandFailed as error:
            what = f"{disk} is locked by another process (flock)"
            hint = "see `lslocks`; it is tried again"
            raise Transient(what, cause=Cause.RESIZE, hint=hint) from error
        yield fd


def _hint(disk: str) -> str:
    return f"nothing was changed; inspect it with `sfdisk --verify /dev/{disk}` and `wipefs`"


def _unfit(partition: Partition, what: str, *, hint: str = "") -> Unfit:
    return Unfit(
        f"{partition.name} {what}", hint=hint or _hint(partition.disk), cause=Cause.PARTITION
    )
