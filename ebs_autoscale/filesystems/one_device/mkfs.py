"""Make an XFS or ext4 filesystem on a blank device, so that an interrupted one is recognised."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.filesystems.one_device.superblock import read_superblock
from ebs_autoscale.host.blank import signature_of
from ebs_autoscale.host.command import run
from ebs_autoscale.model import GIB, MIB, FilesystemKind

# Takes 0.1 s on an idle volume, plus the zeroes of a log or journal of up to 2 GiB.
_MKFS_TIMEOUT_SECONDS = 300.0

# What mkfs.ext4 has written before its superblock, the last of its writes, has no UUID. So a block
# near the end of the device says that it was blank and whose mkfs is running. Both tools write the
# last 128 KiB at the most there (e2fsprogs 1.47, xfsprogs 6.1); where a tool overwrites the block
# after all, what it left is not recognised, and refused.
_MARK_BYTES = 4096
_MARK_BEFORE_END_BYTES = MIB
_MARK = re.compile(rb"ebs-autoscale: unfinished mkfs of (xfs|ext4) ([0-9a-f-]{36})\n\0+")

_XFS_SUPERBLOCK_BYTES = 512

_LABEL_MAX = {FilesystemKind.XFS: 12, FilesystemKind.EXT4: 16}

# What xfsprogs before 5.15 chooses for small volumes is 10 MiB, and a log cannot grow with its
# filesystem: writers then wait for each other. Larger volumes get more than this by default.
_XFS_LOG = "size=64m"
_XFS_LOG_WANTED_BYTES = GIB, 128 * GIB


def make(node: Path, *, kind: FilesystemKind, filesystem: str, label: str) -> None:
    """Make an empty filesystem with this UUID on a device that was verified to be blank.

    What an interrupted `make` of the same left is replaced. Without force. Raises Unfit.
    """
    _erase_incomplete(node, filesystem)
    _require_no_signature(node)
    _mark(node, kind, filesystem)
    name = label if len(label.encode()) <= _LABEL_MAX[kind] else ""
    options = _xfs(node, filesystem) if kind is FilesystemKind.XFS else _ext4(filesystem)
    argv = [f"mkfs.{kind}", "-q", *options, *(["-L", name] if name else []), str(node)]
    try:
        run(argv, timeout_seconds=_MKFS_TIMEOUT_SECONDS)
    except CommandFailed as error:
        raise Unfit(
            f"cannot make a filesystem on {node}: {error}",
            hint="see dmesg for device errors; once that is fixed, run `init` again",
            cause=Cause.MKFS,
        ) from error
    finish(node)


def finish(node: Path) -> None:
    """Remove what `make` left beside a complete filesystem; nothing else is ever changed."""
    with _claimed(node, os.O_RDWR) as fd:
        if _read_mark(fd):
            os.pwrite(fd, bytes(_MARK_BYTES), _mark_at(fd))
            os.fsync(fd)


def unfinished_on(node: str) -> tuple[FilesystemKind, str] | None:
    """The kind and UUID of a filesystem that `make` has begun and not completed; else None.

    Raises OSError.
    """
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        found = _read_mark(fd)
    finally:
        os.close(fd)
    superblock = read_superblock(node) if found else None
    return None if superblock and superblock.is_complete else found


def _xfs(node: Path, filesystem: str) -> list[str]:
    """Allocation groups as mkfs.xfs chooses them: four.

    A hundred times as large there are 400: growing one from 20 GiB to 1 TiB (205) takes 0.2 s, and
    from 1 GiB (4096) 2 s, as does the next mount.
    """
    with _claimed(node, os.O_RDONLY) as fd:
        size_bytes = os.lseek(fd, 0, os.SEEK_END)
    least, most = _XFS_LOG_WANTED_BYTES
    log = ["-l", _XFS_LOG] if least <= size_bytes < most else []
    return ["-K", "-m", f"uuid={filesystem}", *log]


def _ext4(filesystem: str) -> list[str]:
    """Blocks of 4 KiB, also where mkfs.ext4 chooses 1 KiB for less than 512 MiB.

    With `64bit`, else it ends at 16 TiB. Without blocks reserved for root: programs could not use
    5 % of each volume that is paid for, and a filesystem that grows is not meant to be full. By
    default, it has room for the descriptors of a thousand times as many groups, up to 8 TiB;
    beyond, the kernel places them elsewhere by itself.
    """
    extended = "nodiscard,lazy_itable_init=1"
    return ["-U", filesystem, "-b", "4096", "-m", "0", "-O", "64bit", "-E", extended]


def _mark(node: Path, kind: FilesystemKind, filesystem: str) -> None:
    block = f"ebs-autoscale: unfinished mkfs of {kind} {filesystem}\n".encode()
    with _claimed(node, os.O_RDWR) as fd:
        os.pwrite(fd, block.ljust(_MARK_BYTES, b"\0"), _mark_at(fd))
        os.fsync(fd)


def _erase_incomplete(node: Path, filesystem: str) -> None:
    """Make mkfs.xfs accept the device again, which takes its own incomplete superblock for XFS."""
    found = read_superblock(str(node))
    if found and not found.is_complete and found.uuid == filesystem:
        with _claimed(node, os.O_RDWR) as fd:
            os.pwrite(fd, bytes(_XFS_SUPERBLOCK_BYTES), 0)
            os.fsync(fd)


def _require_no_signature(node: Path) -> None:
    """mkfs.ext4 itself looks for one only if it can ask on a terminal."""
    if found := signature_of(node):
        raise Unfit(
            f"{node} contains {found}",
            hint="it was not changed: inspect it with `wipefs`",
            cause=Cause.NOT_BLANK,
        )


def _read_mark(fd: int) -> tuple[FilesystemKind, str] | None:
    found = _MARK.fullmatch(os.pread(fd, _MARK_BYTES, _mark_at(fd)))
    return (FilesystemKind(found[1].decode()), found[2].decode()) if found else None


def _mark_at(fd: int) -> int:
    size_bytes = os.lseek(fd, 0, os.SEEK_END)
    return max(0, size_bytes - _MARK_BEFORE_END_BYTES) // _MARK_BYTES * _MARK_BYTES


@contextmanager
def _claimed(node: Path, flags: int) -> Iterator[int]:
    """The device, with no other claim on it; raises Unfit."""
    try:
        fd = os.open(node, flags | os.O_EXCL | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        what = f"cannot open {node} to make a filesystem: {error.strerror}"
        raise Unfit(what, hint="see dmesg", cause=Cause.MKFS) from error
