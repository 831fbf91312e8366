"""What an unprivileged user tries: a table of attacks, and the process that draws from it.

No attack undoes what need not be undone. What would fill the filesystem, the process table or the
processors by itself is bounded: that is any user's right, and a growth would be the answer to it.
"""

import ctypes
import encodings.idna  # noqa: F401 -- this user may be unable to read it later
import errno
import fcntl
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event

from tests.hostile.user import ODD_NAMES, User, checked, mount_fuse

MIB = 1024**2

_OURS = ("ebs-autoscale", "btrfs", "systemd", "journald")
_FALLOC_KEEP_SIZE = 1
_IN_ALL_EVENTS = 0xFFF
_PR_SET_NAME = 15
_CLONE_NEWUSER_AND_NS = 0x10000000 | 0x20000
# linux/btrfs.h
_SUBVOLUME_CREATE, _SNAPSHOT_CREATE, _SYNC = 0x5000940E, 0x50009401, 0x9408
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount_inside(user: User) -> None:
    """A mount with an odd name, below its own folder."""
    point = user.odd(user.own)
    point.mkdir()
    mount_fuse(user, point)


def mount_in_mountpoint(user: User) -> None:
    """A mount with an odd name, right in the mountpoint."""
    point = user.mountpoint / os.fsdecode(user.dice.choice(ODD_NAMES))
    with suppress(FileExistsError):
        point.mkdir()
    mount_fuse(user, point)


def mount_outside(user: User) -> None:
    """A mount outside the filesystem whose name starts as the mountpoint's does."""
    name = os.fsencode(user.mountpoint.name) + user.dice.choice(ODD_NAMES)[:200]
    point = user.outside / os.fsdecode(name)
    with suppress(FileExistsError):
        point.mkdir()
    mount_fuse(user, point)


def mount_on_reserve(user: User) -> None:
    """A mount that has the reserve's name."""
    user.take_reserve_name().mkdir()
    mount_fuse(user, user.reserve)


def mount_in_namespace(user: User) -> None:
    """Mounts in a user namespace of its own, one of them over the mountpoint."""
    script = 'mount -t tmpfs none "$0"; exec sleep 3600'
    argv = ("unshare", "-Urm", "sh", "-c", script, str(user.mountpoint))
    user.spawn(*argv, program="/usr/bin/unshare")


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


def odd_file(user: User) -> None:
    """A file with an odd name, in the mountpoint or in its own folder."""
    user.odd(user.dice.choice((user.own, user.mountpoint))).touch()


def deep_folders(user: User) -> None:
    """A path longer than PATH_MAX."""
    os.chdir(user.own)
    with suppress(FileExistsError):
        for _ in range(200):
            Path("d" * 100).mkdir()
            os.chdir("d" * 100)


def many_files(user: User) -> None:
    """Many empty files: metadata without data."""
    folder = user.new()
    folder.mkdir()
    for number in range(500):
        (folder / str(number)).touch()


def sparse_file(user: User) -> None:
    """A file of 1 EiB that has no blocks."""
    path = user.new()
    path.touch()
    os.truncate(path, 2**60)


def allocated_file(user: User) -> None:
    """Space that is only reserved, partly beyond the end of the file."""
    with user.new().open("wb") as file:
        checked(
            _LIBC.fallocate(
                file.fileno(), _FALLOC_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(8 * MIB)
            )
        )


def deleted_but_open(user: User) -> None:
    """Space that no name leads to."""
    path = user.new()
    file = path.open("wb")
    file.write(os.urandom(MIB))
    path.unlink()
    user.held.append(file)


def reflinks(user: User) -> None:
    """Extents that are shared by many files."""
    source = user.new()
    source.write_bytes(os.urandom(MIB))
    with source.open("rb") as file:
        for _ in range(20):
            with user.new().open("wb") as copy:
                fcntl.ioctl(copy, 0x40049409, file.fileno())  # FICLONE


def subvolumes(user: User) -> None:
    """Subvolumes and read-only snapshots, which every user may create."""
    name = b"s%x" % user.dice.getrandbits(64)
    fd = os.open(user.own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SUBVOLUME_CREATE, bytearray(struct.pack("=q4088s", 0, name)))
        sub = user.hold(os.open(name, os.O_RDONLY, dir_fd=fd))
        fcntl.ioctl(fd, _SNAPSHOT_CREATE, bytearray(struct.pack("=q4088s", sub, name + b"-copy")))
    finally:
        os.close(fd)


def synced_often(user: User) -> None:
    """Commits, which a growth has to wait for."""
    fd = os.open(user.own, os.O_RDONLY)
    try:
        for _ in range(20):
            (user.own / "synced").write_bytes(os.urandom(4096))
            checked(_LIBC.syncfs(fd))
    finally:
        os.close(fd)


def attributes(user: User) -> None:
    """Extended attributes, up to what fits into a leaf."""
    path = user.new()
    path.touch()
    for number in range(50):
        os.setxattr(path, f"user.ebs-autoscale.{number}", bytes(3000))
    os.setxattr(path, "trusted.ebs-autoscale.0", b"")


def watches(user: User) -> None:
    """Watches on everything that can be opened."""
    fd = user.hold(checked(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)))
    for path in (user.mountpoint, Path("/run/ebs-autoscale"), Path("/etc"), Path("/dev"), user.own):
        checked(_LIBC.inotify_add_watch(fd, os.fsencode(path), _IN_ALL_EVENTS))


def locks_everywhere(user: User) -> None:
    """An flock on each file of root's that can be opened, and on the mountpoint."""
    folders = (Path("/run/ebs-autoscale"), Path("/etc"), Path("/dev"))
    paths = [user.mountpoint, *folders, *(path for each in folders for path in each.iterdir())]
    user.dice.shuffle(paths)
    for path in paths[:60]:
        with suppress(OSError):
            fd = user.hold(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def named_as_ours(user: User) -> None:
    """Processes that look like ours and like operations on this filesystem."""
    argv = user.dice.choice(
        (
            ("ebs-autoscale", "run"),
            ("ebs-autoscale", "grow"),
            ("btrfs", "device", "add", "/dev/xvdf", str(user.mountpoint)),
            ("btrfs", "balance", "start", str(user.mountpoint)),
            ("btrfs", "replace", "start", "1", "/dev/xvdf", str(user.mountpoint)),
        )
    )
    # The shell takes these words for its own name and for parameters of the script.
    user.spawn(argv[0], "-c", "read x; :", *argv[1:], program="/bin/sh")
    _LIBC.prctl(_PR_SET_NAME, b"\nebs-auto)(\xff")


def command_lines(user: User) -> None:
    """A command line of 100 KiB of other bytes."""
    words = ["device\nadd\x1b\udcff"] * 5000
    user.spawn("btrfs", "-c", "read x; :", *words, program="/bin/sh")


def small_limits(user: User) -> None:
    """Limits of its own, and of the daemon."""
    resource.prlimit(user.pid, resource.RLIMIT_NOFILE, (0, 0))


def priorities(user: User) -> None:
    """The daemon's priority."""
    os.setpriority(os.PRIO_PROCESS, user.pid, 19)


def processors(user: User) -> None:
    """The daemon's processors."""
    os.sched_setaffinity(user.pid, {0})


def memory_of_daemon(user: User) -> None:
    """The daemon's memory and files."""
    user.hold(os.open(f"/proc/{user.pid}/mem", os.O_RDWR))


def signals(user: User) -> None:
    """SIGTERM, SIGSTOP and SIGKILL to the daemon, then to everybody."""
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL, signal.SIGHUP):
        with suppress(PermissionError):
            os.kill(user.pid, number)
    # Not to this process itself; its children are the only ones that may get it.
    os.kill(-1, signal.SIGTERM)
    raise PermissionError(errno.EPERM, "the daemon is root's")


def sockets(user: User) -> None:
    """Sockets with names that could be ours."""
    for name in _OURS:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        user.held.append(listener)
        with suppress(OSError):
            listener.bind(f"\0{name}")
    os.chdir(user.outside)
    with suppress(FileExistsError):
        os.mkfifo("ebs-autoscale.sock")


def metadata_service(user: User) -> None:
    """Connections to the metadata service that never ask, and requests for tokens."""
    for number in range(20):
        connection = socket.create_connection(user.address, timeout=2)
        user.held.append(connection)
        if number % 2:
            connection.sendall(b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\n")


def closed_folders(user: User) -> None:
    """Folders that only root can enter, and a folder that nobody but their owner can."""
    for mode in (0o000, 0o100, 0o700, 0o7777):
        folder = user.new()
        folder.mkdir()
        folder.chmod(mode)


def closed_mountpoint(user: User) -> None:
    """The mountpoint, where it is this user's; else this user would be locked out, not for long."""
    user.mountpoint.chmod(user.dice.choice((0o000, 0o700, 0o7777)))
    Event().wait(1)
    user.mountpoint.chmod(0o755)


def swapped_folders(user: User) -> None:
    """A folder that is a link a moment later, many times."""
    folder, link = user.new(), user.new()
    folder.mkdir()
    link.symlink_to(user.dice.choice(("/", "/dev", "/run/ebs-autoscale", str(link))))
    for _ in range(200):
        # RENAME_EXCHANGE of renameat2(2)
        checked(_LIBC.renameat2(-100, os.fsencode(folder), -100, os.fsencode(link), 2))


def privileged_tools(user: User) -> None:
    """What only root may do to a filesystem, by the tools that do it."""
    argv = user.dice.choice(
        (
            ("device", "add", "-f", "/dev/loop0"),
            ("device", "remove", "1"),
            ("balance", "start", "--full-balance"),
            ("balance", "cancel"),
            ("scrub", "start"),
            ("quota", "enable"),
            ("filesystem", "resize", "-100M"),
        )
    )
    done = subprocess.run(
        ["btrfs", *argv, str(user.mountpoint)], capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        raise PermissionError(errno.EPERM, done.stderr.decode(errors="replace"))


def program_itself(user: User) -> None:
    """The program's own verbs, as this user."""
    argv = [
        sys.executable,
        "-I",
        "-m",
        "ebs_autoscale",
        user.dice.choice(("status", "grow", "run")),
    ]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise PermissionError(errno.EPERM, done.stderr.decode(errors="replace"))


def busy(_: User) -> None:
    """A processor, for a moment."""
    for _number in range(2_000_000):
        pass


ATTACKS: Mapping[str, tuple[Callable[[User], None], ...]] = {
    "mounts": (
        mount_inside,
        mount_in_mountpoint,
        mount_outside,
        mount_on_reserve,
        mount_in_namespace,
    ),
    "reserve": (
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
    ),
    "files": (
        odd_file,
        deep_folders,
        many_files,
        sparse_file,
        allocated_file,
        deleted_but_open,
        reflinks,
        subvolumes,
        synced_often,
        attributes,
        closed_folders,
        closed_mountpoint,
        swapped_folders,
    ),
    "locks and watches": (watches, locks_everywhere),
    "processes": (
        named_as_ours,
        command_lines,
        small_limits,
        priorities,
        processors,
        memory_of_daemon,
        signals,
        sockets,
        metadata_service,
        privileged_tools,
        program_itself,
        busy,
    ),
}


def main(argv: list[str]) -> None:
    """Attack as another user until standard input ends; a JSON line for each attack."""
    mountpoint, outside, uid, pid, host, port, seed = argv
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    resource.setrlimit(resource.RLIMIT_NPROC, (200, 200))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    dice = Random(seed)  # noqa: S311 -- repeatable on purpose
    user = User(Path(mountpoint), Path(outside), int(pid), (host, int(port)), dice)
    attacks = [attack for each in ATTACKS.values() for attack in each]
    order: list[Callable[[User], None]] = []
    while True:
        # Each of them once before any of them again.
        order = order or user.dice.sample(attacks, len(attacks))
        attack = order.pop()
        outcome = ""
        try:
            attack(user)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            outcome = str(getattr(error, "strerror", "") or error)
        line = {"attack": attack.__name__, "refused": ascii(outcome.strip()[-80:])[1:-1]}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        Event().wait(user.dice.uniform(0.05, 0.4))


if __name__ == "__main__":
    main(sys.argv[1:])
