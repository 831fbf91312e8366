"""What an unprivileged user tries: a table of attacks, and the process that draws from it.

No attack undoes what need not be undone. What would fill the filesystem, the process table or the
processors by itself is bounded: that is any user's right, and a growth would be the answer to it.
"""

import ctypes
import encodings.idna  # noqa: F401 -- this user may be unable to read it later
import errno
import fcntl
import json
import os
import resource
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

from tests.hostile.reserve import ON_RESERVE
from tests.hostile.user import (
    MIB,
    ODD_NAMES,
    User,
    checked,
    create_subvolume,
    exchange,
    mount_fuse,
    snapshot,
)

_OURS = ("ebs-autoscale", "btrfs", "systemd", "journald")
_FALLOC_KEEP_SIZE = 1
_IN_ALL_EVENTS = 0xFFF
_PR_SET_NAME = 15
_PTRACE_SEIZE = 0x4206
_PIDFD_GETFD = 438
_DEFRAGMENT = 0x50009402  # linux/btrfs.h
# linux/fs.h
_SET_FLAGS, _COMPRESSED, _NO_COW = 0x40086602, 0x4, 0x800000
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


def mount_in_namespace(user: User) -> None:
    """Mounts in a user namespace of its own, one of them over the mountpoint."""
    script = 'mount -t tmpfs none "$0"; exec sleep 3600'
    argv = ("unshare", "-Urm", "sh", "-c", script, str(user.mountpoint))
    user.spawn(*argv, program="/usr/bin/unshare")


def overlay_in_namespace(user: User) -> None:
    """An overlay with this filesystem below, and another one above it."""
    folders = [user.new() for _ in range(3)]
    for folder in folders:
        folder.mkdir()
    upper, work, point = map(str, folders)
    script = (
        'mount -t overlay none "$3" -o "userxattr,lowerdir=$0,upperdir=$1,workdir=$2" && '
        'echo x >"$3/x"; exec sleep 3600'
    )
    argv = ("unshare", "-Urm", "sh", "-c", script, str(user.mountpoint), upper, work, point)
    user.spawn(*argv, program="/usr/bin/unshare")


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
    path = user.new()
    create_subvolume(user.own, path.name)
    user.hold(os.open(path, os.O_RDONLY))
    snapshot(path, user.own, f"{path.name}-copy")


def synced_often(user: User) -> None:
    """Commits, which a growth has to wait for."""
    fd = os.open(user.own, os.O_RDONLY)
    try:
        for _ in range(20):
            (user.own / "synced").write_bytes(os.urandom(4096))
            checked(_LIBC.syncfs(fd))
    finally:
        os.close(fd)


def defragmented(user: User) -> None:
    """Extents that are written once more, and a file that is compressed."""
    path = user.new()
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(4096))
            file.flush()
            os.fsync(file.fileno())
        fcntl.ioctl(file, _DEFRAGMENT)
        fcntl.ioctl(file, _SET_FLAGS, struct.pack("=q", _COMPRESSED))
        file.write(bytes(MIB))


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
    """Locks on each file of root's that can be opened, and on the mountpoint."""
    folders = (Path("/run/ebs-autoscale"), Path("/etc"), Path("/dev"))
    paths = [user.mountpoint, *folders, *(path for each in folders for path in each.iterdir())]
    user.dice.shuffle(paths)
    for path in paths[:60]:
        with suppress(OSError):
            fd = user.hold(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
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


def traced(user: User) -> None:
    """The daemon by ptrace(2), and its descriptors by pidfd_getfd(2)."""
    pidfd = user.hold(os.pidfd_open(user.pid))
    for fd in range(8):
        with suppress(PermissionError):
            user.hold(checked(_LIBC.syscall(_PIDFD_GETFD, pidfd, fd, 0)))
    for name in ("oom_score_adj", "comm", "clear_refs", "coredump_filter"):
        with suppress(PermissionError):
            Path(f"/proc/{user.pid}/{name}").write_text("0", "ascii")
    checked(_LIBC.ptrace(_PTRACE_SEIZE, user.pid, 0, 0))


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


def inherited(user: User) -> None:
    """Flags and permissions that new files in the mountpoint get, where it is this user's."""
    fd = os.open(user.mountpoint, os.O_RDONLY)
    try:
        flags = user.dice.choice((0, _COMPRESSED, _NO_COW))
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=q", flags))
    finally:
        os.close(fd)
    # See acl(5): everything for the owner, for this user, for the group, within the mask, for all.
    rules = ((1, -1), (2, os.getuid()), (4, -1), (0x10, -1), (0x20, -1))
    packed = b"".join(struct.pack("<HHi", tag, 7, who) for tag, who in rules)
    os.setxattr(user.mountpoint, "system.posix_acl_default", struct.pack("<I", 2) + packed)


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
        exchange(folder, link)


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
        mount_in_namespace,
        overlay_in_namespace,
    ),
    "reserve": ON_RESERVE,
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
        defragmented,
        attributes,
        inherited,
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
        traced,
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
