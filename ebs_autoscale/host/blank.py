"""Whether a block device is blank: no known signature, and zeroes where headers are kept."""

import os
from collections.abc import Callable
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.model import GIB, MIB

# Filesystems, arrays and partition tables keep their headers in the first or last MiB; the copies
# of BTRFS' superblock are elsewhere.
_EDGE_BYTES = 4 * MIB
BTRFS_SUPERBLOCK_AT = 64 * 1024
BTRFS_SUPERBLOCK_COPIES_AT = (64 * MIB, 256 * GIB)
_SUPERBLOCK_BYTES = 4096

_BLKID_TIMEOUT_SECONDS = 20.0
_BLKID_NOTHING_FOUND = 2

IsLeftover = Callable[[bytes, int], bool]
"""Whether content that was read at this offset in bytes counts as nothing."""

# EBS answers in milliseconds. A volume that takes longer than this is impaired; waiting on would
# cost more than another volume.
_WRITE_TIMEOUT_SECONDS = 20.0


def signature_of(node: Path) -> str:
    """What blkid recognises on this device; empty for nothing.

    Raises CommandFailed when it cannot tell, such as with signatures that contradict each other.
    """
    fields = probe(node)
    if not fields:
        return ""
    # A partition table can be beside a filesystem whose first sectors are free.
    kinds = [fields[name] for name in ("TYPE", "PTTYPE") if name in fields]
    kind = " and ".join(kinds) or "something that blkid recognises"
    uuid = fields.get("UUID") or fields.get("PTUUID")
    return f"{kind}, UUID {uuid}" if uuid else kind


def probe(node: Path, *more_arguments: str) -> dict[str, str]:
    """What blkid recognises on this device, field by field; none if it is nothing.

    Raises CommandFailed when it cannot tell.
    """
    argv = ["blkid", "-p", "-o", "export", *more_arguments, str(node)]
    try:
        found = run(argv, timeout_seconds=_BLKID_TIMEOUT_SECONDS)
    except CommandFailed as error:
        if error.status == _BLKID_NOTHING_FOUND:
            return {}
        raise
    return dict(line.split("=", 1) for line in found.split("\n") if "=" in line)


def content_at(fd: int, *, size_bytes: int, is_leftover: IsLeftover | None = None) -> int | None:
    """The offset of a range with content, read from the device itself; None when it is blank.

    Raises OSError.
    """
    # Not from pages that an earlier read left in the cache.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for offset, length in _inspected_ranges(size_bytes):
        content = os.pread(fd, length, offset)
        if content != bytes(length) and not (is_leftover and is_leftover(content, offset)):
            return offset
    return None


def _inspected_ranges(size_bytes: int) -> list[tuple[int, int]]:
    copies = [(offset, _SUPERBLOCK_BYTES) for offset in BTRFS_SUPERBLOCK_COPIES_AT]
    edge_bytes = min(_EDGE_BYTES, size_bytes)
    edges = [(0, edge_bytes), (size_bytes - edge_bytes, edge_bytes)]
    return edges + [(at, length) for at, length in copies if at + length <= size_bytes]


def require_writable(name: str) -> None:
    """Write a block of the device as it is. Raises Unfit if that fails, Transient without a device.

    It changes nothing, so that whatever else refuses a device with content still finds it. By a
    process: one that waits for a device in the kernel cannot be killed, only left behind.
    """
    node = Path("/dev", name)
    if not node.is_block_device():
        raise Transient(f"there is no block device {node} (yet)", cause=Cause.ADD)
    argv = [
        "dd",
        f"if={node}",
        f"of={node}",
        f"bs={_SUPERBLOCK_BYTES}",
        f"skip={BTRFS_SUPERBLOCK_AT // _SUPERBLOCK_BYTES}",
        f"seek={BTRFS_SUPERBLOCK_AT // _SUPERBLOCK_BYTES}",
        "count=1",
        "iflag=direct",
        "oflag=direct,sync",
        "conv=notrunc,nocreat",
    ]
    try:
        run(argv, timeout_seconds=_WRITE_TIMEOUT_SECONDS)
    except CommandFailed as error:
        how = f"did not respond within {_WRITE_TIMEOUT_SECONDS:.0f} s"
        if error.status is not None:
            if error.status < 0 or not error.stderr.strip():
                # Killed, for lack of memory for example: that says nothing about the device.
                raise Transient(str(error), cause=Cause.ADD) from error
            how = f"cannot be read and written: {error.stderr.strip().splitlines()[0]}"
        raise Unfit(
            f"{name} {how}",
            hint="nothing was added; detach and delete the volume (see dmesg)",
            cause=Cause.UNWRITABLE,
        ) from error
