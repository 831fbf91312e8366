"""The attacking user: where it may write, what it knows of the daemon, and what it holds open."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import subprocess
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ebs_autoscale.filesystems.btrfs.reserve import NAME as RESERVE_NAME

# Bytes that break lines, terminals and decoders, and names as mountinfo escapes them.
ODD_NAMES = (
    *(b"a\rb", b"a\nb", b"\x1b[2J\x1b]0;x\x07", b"\xff\xfe", b"\xed\xa0\x80", b"a\\040b"),
    *(b" ", b"\t", b"a\x85b", b"\xe2\x80\xa8", b"#", b"'$(id)'", b"-f", b"x" * 255),
)
MIB = 1024**2

# linux/btrfs.h
_SUBVOLUME_CREATE, _SNAPSHOT_CREATE = 0x5000940E, 0x50009401
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)
_HELD_MAX = 150
_CHILDREN_MAX = 24
_FUSE_MOUNTS_MAX = 40


@dataclass(slots=True)
class User:
    """The attacking user: where it may write, whom it knows of, and what it holds open."""

    mountpoint: Path
    outside: Path
    pid: int
    address: tuple[str, int]
    dice: Random
    held: deque[Any] = field(default_factory=lambda: deque(maxlen=_HELD_MAX))
    descriptors: deque[int] = field(default_factory=deque)
    children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    mounts: int = 0

    @property
    def own(self) -> Path:
        """The folder in the filesystem that is this user's."""
        return self.mountpoint / "theirs"

    @property
    def reserve(self) -> Path:
        """The name of the emergency reserve."""
        return self.mountpoint / RESERVE_NAME

    def new(self, folder: Path | None = None) -> Path:
        """A name that nothing has."""
        return (folder or self.own) / f"{self.dice.getrandbits(64):x}"

    def odd(self, folder: Path) -> Path:
        """A name with bytes that nobody expects, in a folder of its own."""
        parent = self.new(folder)
        parent.mkdir()
        return parent / os.fsdecode(self.dice.choice(ODD_NAMES))

    def hold(self, fd: int) -> int:
        """Keep it open; the oldest one is closed when there are many."""
        self.descriptors.append(fd)
        if len(self.descriptors) > _HELD_MAX:
            os.close(self.descriptors.popleft())
        return fd

    def spawn(self, *argv: str, program: str = "/bin/sleep") -> None:
        """Run a program under any name; the oldest one ends when there are many."""
        if len(self.children) >= _CHILDREN_MAX:
            child = self.children.pop(0)
            child.kill()
            child.wait()
        self.children.append(
            subprocess.Popen(
                argv, executable=program, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        )

    def take_reserve_name(self) -> Path:
        """Move away what has the reserve's name, which needs a mountpoint of this user's."""
        argv = ["fusermount3", "-u", "-z", "--", str(self.reserve)]
        subprocess.run(argv, check=False, capture_output=True, timeout=10)
        with suppress(FileNotFoundError):
            self.reserve.rename(self.new())
        return self.reserve


def checked(result: int) -> int:
    """The result of a C function; raises OSError if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def exchange(one: Path, other: Path) -> None:
    """Let two files exchange their names; see renameat2(2)."""
    names = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    checked(_LIBC.renameat2(*names, _RENAME_EXCHANGE))


def create_subvolume(folder: Path, name: str) -> None:
    """Create a subvolume, which any user may do in a folder of their own."""
    _call_with_name(folder, _SUBVOLUME_CREATE, 0, name)


def snapshot(subvolume: Path, folder: Path, name: str) -> None:
    """Take a snapshot, which any user may do of a subvolume of their own."""
    fd = os.open(subvolume, os.O_RDONLY)
    try:
        _call_with_name(folder, _SNAPSHOT_CREATE, fd, name)
    finally:
        os.close(fd)


def _call_with_name(folder: Path, request: int, argument: int, name: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, request, bytearray(struct.pack("=q4088s", argument, name.encode())))
    finally:
        os.close(fd)


def mount_fuse(user: User, point: Path) -> None:
    """Mount a filesystem that never answers; see fusermount3(1) and mount.fuse3(8)."""
    if user.mounts >= _FUSE_MOUNTS_MAX:
        raise OSError(errno.EMFILE, "enough of them")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        done = subprocess.run(
            [b"fusermount3", b"-o", b"fsname=ebs-autoscale", b"--", os.fsencode(point)],
            env={"_FUSE_COMMFD": str(theirs.fileno()), "PATH": "/usr/bin:/bin"},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            check=False,
            timeout=10,
        )
        if done.returncode:
            raise OSError(errno.EPERM, done.stderr.decode(errors="replace").strip())
        # Closing it would end the mount, so it is kept for good.
        socket.recv_fds(ours, 1, 1)
    user.mounts += 1
