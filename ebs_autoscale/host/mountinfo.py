"""The kernel's mount table in the namespace of this process."""

import os
import select
import weakref
from dataclasses import dataclass

# What the kernel escapes (fs/proc_namespace.c). The backslash is last: none that it yields begins
# another escape. Not a regular expression: 1000 paths of backslashes would take it 1.6 s.
_ESCAPES = {b"\\040": b" ", b"\\011": b"\t", b"\\012": b"\n", b"\\043": b"#", b"\\134": b"\\"}
# The table is not read atomically, so it is read again when it has changed meanwhile. Containers
# that start change it often; a user who mounts without a pause can change it during every read.
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
        table = b""
        for _ in range(_TRIES):
            if not self._changes.poll(0) and (table or self._mounts):
                break
            table = self._read()
        if table:
            self._mounts = parse(table)
        return self._mounts

    def at(self, path: str) -> Mount | None:
        """The topmost mount on `path`, an absolute path without symlinks; None without one."""
        found = [mount for mount in self.mounts() if mount.point == path]
        return found[-1] if found else None

    def over(self, path: str) -> Mount | None:
        """The mount that contains `path`; None in a chroot whose root is no mountpoint."""
        found = [mount for mount in self.mounts() if _is_inside(path, mount.point)]
        return max(reversed(found), key=lambda mount: len(mount.point), default=None)

    def _read(self) -> bytes:
        pieces, offset = [], 0
        while piece := os.pread(self._fd, 1 << 16, offset):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


def parse(table: bytes) -> tuple[Mount, ...]:
    r"""The mounts in mountinfo, where space, tab, newline and backslash are escaped like `\040`.

    All other bytes are as whoever mounted chose them, a carriage return included; with
    fusermount3(1) any user can mount. A line that cannot be parsed is skipped.
    """
    lines = (line for line in table.split(b"\n") if line)
    return tuple(mount for line in lines if (mount := _mount_in(line)))


def _mount_in(line: bytes) -> Mount | None:
    left, _, right = line.partition(b" - ")
    before, after = left.split(b" "), right.split(b" ")
    if len(before) < 6 or len(after) < 3:
        return None
    return Mount(
        point=_unescape(before[4]),
        root=_unescape(before[3]),
        device=os.fsdecode(before[2]),
        kind=_unescape(after[0]),
        source=_unescape(after[1]),
        read_only=b"ro" in before[5].split(b","),
    )


def _unescape(field: bytes) -> str:
    for escape, byte in _ESCAPES.items():
        field = field.replace(escape, byte)
    return os.fsdecode(field)


def _is_inside(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
