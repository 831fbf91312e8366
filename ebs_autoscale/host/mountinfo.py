"""The kernel's mount table: what is mounted where, as this process sees it."""

import os
import re
import select
import weakref
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")
# The table is not read in one piece. Mounts come in bursts (containers starting), so
# a read that a change overtook is repeated, but not for ever.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of the table; `device` is major:minor, `kind` the type of the filesystem.

    `root` is the folder of the filesystem that is mounted: / but for binds and subvolumes.
    `read_only` is what was asked of this mount; the filesystem itself can be read-only besides.
    """

    point: str
    root: str
    device: str
    kind: str
    source: str
    read_only: bool


class MountTable:
    """The mounts of this process's namespace, parsed again only after the kernel signals a change.

    Source: proc_pid_mountinfo(5); the file is pollable since Linux 2.6.26.
    """

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        self._changes = select.poll()
        self._changes.register(self._fd, select.POLLPRI | select.POLLERR)
        self._mounts: tuple[Mount, ...] = ()

    def mounts(self) -> tuple[Mount, ...]:
        """All mounts, oldest first."""
        tries = 0
        while not self._mounts or (tries < _TRIES and self._changes.poll(0)):
            self._mounts = parse(self._read())
            tries += 1
        return self._mounts

    def at(self, path: str) -> Mount | None:
        """The mount whose root is `path`, an absolute path without symlinks: the topmost one."""
        found = [mount for mount in self.mounts() if mount.point == path]
        return found[-1] if found else None

    def over(self, path: str) -> Mount:
        """The mount that `path` lies in."""
        found = [mount for mount in self.mounts() if _is_inside(path, mount.point)]
        return max(reversed(found), key=lambda mount: len(mount.point))

    def _read(self) -> bytes:
        pieces, offset = [], 0
        while piece := os.pread(self._fd, 1 << 16, offset):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


def parse(table: bytes) -> tuple[Mount, ...]:
    r"""Mounts out of mountinfo; spaces, newlines and backslashes in it are escaped as `\040`."""
    mounts = []
    for line in table.splitlines():
        left, _, right = line.partition(b" - ")
        kind, source, _ = right.split(b" ", 2)
        _, _, device, root, point, options = left.split(b" ")[:6]
        mounts.append(
            Mount(
                point=_unescape(point),
                root=_unescape(root),
                device=device.decode(),
                kind=_unescape(kind),
                source=_unescape(source),
                read_only=b"ro" in options.split(b","),
            )
        )
    return tuple(mounts)


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def _is_inside(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
