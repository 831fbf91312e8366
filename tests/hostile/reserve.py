"""What an unprivileged user does to the emergency reserve, and to its name."""

import fcntl
import mmap
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tests.hostile.user import MIB, User, create_subvolume, exchange, mount_fuse, snapshot

_SNAPSHOTS_MAX = 3


def mount_on_reserve(user: User) -> None:
    """A mount that has the reserve's name."""
    user.take_reserve_name().mkdir()
    mount_fuse(user, user.reserve)


def reserve_as_file(user: User) -> None:
    """A file of its own, with content."""
    user.take_reserve_name().write_bytes(os.urandom(4096))


def reserve_as_empty_file(user: User) -> None:
    """A file of its own that holds nothing."""
    user.take_reserve_name().touch()


def reserve_as_folder(user: User) -> None:
    """A folder that is not empty."""
    (user.take_reserve_name() / "x").mkdir(parents=True)


def reserve_as_fifo(user: User) -> None:
    """A FIFO, which blocks whoever opens it."""
    os.mkfifo(user.take_reserve_name(), 0o666)


def reserve_as_socket(user: User) -> None:
    """A socket."""
    listener = socket.socket(socket.AF_UNIX)
    path = user.take_reserve_name()
    os.chdir(user.mountpoint)
    listener.bind(path.name)
    user.held.append(listener)


def reserve_as_link(user: User) -> None:
    """A symbolic link to a file of root's, or to itself."""
    target = user.dice.choice((user.outside / "precious", user.reserve, Path("/dev/zero")))
    user.take_reserve_name().symlink_to(target)


def reserve_as_hard_link(user: User) -> None:
    """A second name of a file of its own."""
    twin = user.new()
    twin.touch()
    os.link(twin, user.take_reserve_name())


def reserve_leased(user: User) -> None:
    """A lease: others wait for 45 s to open it."""
    fd = os.open(user.take_reserve_name(), os.O_RDWR | os.O_CREAT, 0o600)
    user.hold(fd)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)


def reserve_locked(user: User) -> None:
    """All kinds of locks at once."""
    file = user.take_reserve_name().open("wb")
    user.held.append(file)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def reserve_mapped(user: User) -> None:
    """A mapping that is written to."""
    with user.take_reserve_name().open("wb+") as file:
        file.truncate(MIB)
        mapping = mmap.mmap(file.fileno(), MIB)
    mapping[:4] = b"mine"
    user.held.append(mapping)


def reserve_executed(user: User) -> None:
    """A running program: it cannot be opened for writing."""
    shutil.copy("/bin/sleep", user.take_reserve_name())
    user.spawn("sleep", "3600", program=str(user.reserve))


def reserve_stolen(user: User) -> None:
    """The reserve under another name; root makes a new one."""
    user.reserve.rename(user.new())


def reserve_opened(user: User) -> None:
    """The reserve itself: open, chmod, chown, truncate, link, lease."""
    os.link(user.reserve, user.new())
    user.reserve.chmod(0o777)
    user.held.append(user.reserve.open("rb+"))


def reserve_as_subvolume(user: User) -> None:
    """A subvolume, which no unlink removes."""
    create_subvolume(user.mountpoint, user.take_reserve_name().name)


def reserve_swapped(user: User) -> None:
    """The reserve and a link that exchange their names while root looks."""
    link = user.new()
    link.symlink_to(user.outside / "precious")
    for _ in range(200):
        exchange(user.reserve, link)


def reserve_in_snapshot(user: User) -> None:
    """A snapshot of everything, which shares what the reserve holds."""
    if len(list(user.own.glob("everything-*"))) < _SNAPSHOTS_MAX:
        snapshot(user.mountpoint, user.own, f"everything-{user.dice.getrandbits(32):x}")


ON_RESERVE: tuple[Callable[[User], None], ...] = (
    mount_on_reserve,
    reserve_as_file,
    reserve_as_empty_file,
    reserve_as_folder,
    reserve_as_fifo,
    reserve_as_socket,
    reserve_as_link,
    reserve_as_hard_link,
    reserve_leased,
    reserve_locked,
    reserve_mapped,
    reserve_executed,
    reserve_stolen,
    reserve_opened,
    reserve_as_subvolume,
    reserve_swapped,
    reserve_in_snapshot,
)
