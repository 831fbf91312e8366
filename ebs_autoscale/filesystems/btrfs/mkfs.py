"""Make a BTRFS filesystem, and know what a killed mkfs.btrfs leaves behind."""

import uuid
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.host.command import run

# 0.1 s on an idle volume; the rest is for one that hangs.
_MKFS_TIMEOUT_SECONDS = 120.0
# mkfs.btrfs -L takes 255 bytes.
_LABEL_BYTES = 255

# The on-disk format: every tree node and superblock has the filesystem's UUID here.
_FSID = slice(32, 48)
_MAGIC = slice(64, 72)
# What mkfs.btrfs writes in place of `_BHRfS_M` until all else is written (since 4.2).
_UNFINISHED = b"!BHRfS_M"
# The default wherever pages are not larger; with larger ones the leavings are refused.
_NODE_BYTES = 16 * 1024
_SUPERBLOCKS_AT = (64 * 1024, 64 * 1024**2, 256 * 1024**3)


def make(node: Path, *, filesystem: str, label: str) -> None:
    """Make an empty filesystem with this UUID on a device that is proved blank.

    Data single, metadata in two copies: what a single device can have, whatever the default
    of the installed btrfs-progs is. Every option is older than 4.15, the oldest in
    use. Without force: what carries a signature is refused. Without TRIM: EBS has none,
    and it comes before all checks are over. Raises Unfit.
    """
    argv = ["mkfs.btrfs", "-q", "-K", "-d", "single", "-m", "dup"]
    argv += ["-U", filesystem, "-L", label.encode()[:_LABEL_BYTES].decode(errors="ignore")]
    try:
        run([*argv, str(node)], timeout_seconds=_MKFS_TIMEOUT_SECONDS)
    except CommandFailed as error:
        raise Unfit(
            f"no filesystem could be made on {node}: {error}",
            hint="see dmesg for errors of the device; btrfs-progs must be 4.15 or later",
            cause=Cause.MKFS,
        ) from error


def is_left_by_mkfs(content: bytes, *, at: int, filesystem: str) -> bool:
    """Whether nothing but a killed `make` of this filesystem can have written this content.

    `at` is where it was read, in bytes. mkfs.btrfs writes whole nodes and superblocks,
    each with the UUID, and gives the superblocks their magic last (measured with progs
    6.2: killed before each of its writes). A filesystem that was ever complete is told by
    that magic, also where somebody wiped it: then nothing stands in its place.
    """
    fsid = uuid.UUID(filesystem).bytes
    for offset in range(-at % _NODE_BYTES, len(content), _NODE_BYTES):
        block = content[offset : offset + _NODE_BYTES]
        if block.count(0) == len(block):
            continue
        if block[_FSID] != fsid:
            return False
        if at + offset in _SUPERBLOCKS_AT and block[_MAGIC] != _UNFINISHED:
            return False
    head = content[: -at % _NODE_BYTES]
    return head.count(0) == len(head)
