"""The kernel's mount table in the namespace of this process."""

import os
import re
import select
import weakref
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")
# The table is not read atomically, so it is read again when it has changed meanwhile. Containers
# that start change it often.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount; `device` is major:minor, `kind` the type of the filesystem.

    `root` is the folder of the filesystem that is mounted, other than / for bind mounts and
    subvolumes. `read_only` is an option of the mount; the filesystem may be read-only besides.
    """

    point: str
    root: str
    device: str
    kind: str
    source: str
    read_only: bool


class MountTable:
    """The current mounts; parsed again only after the kernel has signalled a change.

    Source: proc_pid_mountinfo(5).
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
        """The topmost mount on `path`, an absolute path without symlinks; None without one."""
        found = [mount for mount in self.mounts() if mount.point == path]
        return found[-1] if found else None

    def over(self, path: str) -> Mount:
        """The mount that contains `path`."""
        found = [mount for mount in self.mounts() if _is_inside(path, mount.point)]
        return max(reversed(found), key=lambda mount: len(mount.point))

    def _read(self) -> bytes:
        pieces, offset = [], 0
        while piece := os.pread(self._fd, 1 << 16, offset):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


def parse(table: bytes) -> tuple[Mount, ...]:
    r"""The mounts in mountinfo, where white space and backslashes are escaped like `\040`."""
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
