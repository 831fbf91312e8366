"""XFS and ext4 on loop devices, for the tests of filesystems that have one device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ec2_sandbox.devices.partitions import show_partitions

from ebs_autoscale.errors import CommandFailed, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.host.requirements import require_able_to_grow
from ebs_autoscale.model import FilesystemKind

MIB = 1024**2
# The least that mkfs.xfs takes, and what mkfs.ext4 takes for a filesystem with blocks of 4 KiB.
SIZE_BYTES = 512 * MIB
KINDS = (FilesystemKind.XFS, FilesystemKind.EXT4)

Make = Callable[..., Path]


def growable_kinds() -> list[FilesystemKind]:
    """The kinds that this process can grow: ext4 takes a capability that root may lack."""
    kinds = []
    for kind in KINDS:
        with suppress(Unfit):
            require_able_to_grow(kind)
            kinds.append(kind)
    return kinds


def make(kind: str, node: str, *options: str) -> str:
    """Make a filesystem on this device; its UUID."""
    force = ("-f",) if kind == "xfs" else ("-F",)
    run([f"mkfs.{kind}", "-q", *force, *options, node], timeout_seconds=60)
    found = run(["blkid", "-p", "-o", "value", "-s", "UUID", node], timeout_seconds=60)
    return found.strip()


@contextmanager
def mounted(node: str, point: Path, *options: str) -> Iterator[Path]:
    """Mount it as long as this is entered."""
    point.mkdir(exist_ok=True)
    run(["mount", *options, node, str(point)], timeout_seconds=60)
    try:
        yield point
    finally:
        with suppress(CommandFailed):
            run(["umount", "--lazy", str(point)], timeout_seconds=60)


def partitioned(name: str, size_mib: int) -> str:
    """Give it a GPT with one partition of this size, known to the kernel; the partition's node."""
    script = f"label: gpt\nstart=2048, size={size_mib}MiB, type=linux\n"
    run(["sfdisk", "--quiet", f"/dev/{name}"], stdin=script, timeout_seconds=60)
    [partition] = show_partitions(name)
    return f"/dev/{partition}"
