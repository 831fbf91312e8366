"""A private mount namespace with a /dev of its own, so that nothing is left behind."""

import ctypes
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ec2_sandbox.errors import HostUnfit

# linux/sched.h, linux/mount.h
_CLONE_NEWNS = 0x00020000
_MS_NOSUID = 0x2
_MS_BIND = 0x1000
_MS_MOVE = 0x2000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
# linux/capability.h: mounts and loop devices need SYS_ADMIN, nodes need MKNOD
_CAPABILITIES = {21: "CAP_SYS_ADMIN", 27: "CAP_MKNOD"}

_NODES = re.compile(r"null|zero|full|random|urandom|tty|kmsg|fuse|loop-control|btrfs-control")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_MOUNTS = ("pts", "shm", "mqueue")
_PACKAGE_OF = {"btrfs": "btrfs-progs", "ext4": "e2fsprogs", "xfs": "xfsprogs"}


def missing_requirement(filesystem: str = "") -> str:
    """What this host lacks for block devices, and for this filesystem on them; empty if nothing.

    The first missing requirement, as a sentence that says what to do.
    """
    return next(_missing_requirements(filesystem), "")


def hint_for_refusal() -> str:
    """What to do after the kernel has refused a mount, a namespace or a loop device."""
    return missing_requirement() or (
        "the kernel refuses this to root: see dmesg; a container needs --privileged"
    )


def enter_private_namespace(*, folders: Iterable[Path] = (), leave_threads: bool = False) -> None:
    """Move this process and its future children to a mount namespace of their own.

    In it, /dev is a private tmpfs with the nodes that are needed to make block devices, without any
    block device of the host, and an empty disk/by-id;
    each of the `folders`, created if necessary, is covered by a tmpfs as well. Nodes, links,
    mounts and files made there disappear with the last process in the namespace.

    Raises HostUnfit when not permitted, or when this process has other threads, which would
    stay outside; `leave_threads` permits that.
    """
    if not leave_threads and len(list(Path("/proc/self/task").iterdir())) > 1:
        raise HostUnfit(
            "other threads of this process would stay outside the private mount namespace",
            hint="enter it before the first thread starts",
        )
    try:
        covered = list(folders)
        for folder in covered:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _unshare_mounts()
        _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
        _replace_dev()
        for folder in covered:
            _mount("tmpfs", str(folder), kind="tmpfs", flags=_MS_NOSUID, options="mode=755")
    except OSError as error:
        raise HostUnfit(
            f"cannot create a private mount namespace: {error}",
            hint=hint_for_refusal(),
        ) from error


def _missing_requirements(filesystem: str) -> Iterator[str]:
    if sys.platform != "linux":
        yield f"{platform.system()} has no loop devices: use a Linux host or virtual machine"
    if os.geteuid() != 0:
        yield "not root: use sudo, loop devices and mounts need it"
    if not Path("/proc/self/mountinfo").exists():
        yield "/proc is not mounted: run `mount -t proc proc /proc`"
        return
    if missing := _missing_capabilities():
        yield f"root without {missing}: in a container, start it with --privileged"
    if not _is_root_a_mountpoint():
        yield (
            "/ is not a mountpoint, as in a chroot: run `mount --bind FOLDER FOLDER` before "
            "`chroot FOLDER`, so that mounts in it can be private"
        )
    if not Path("/dev/loop-control").exists():
        yield "no /dev/loop-control: run `modprobe loop`, or pass it to the container"
    if filesystem and not _kernel_has(filesystem):
        yield (
            f"the kernel has no {filesystem}: run `modprobe {filesystem}`, or use a kernel "
            "of your distribution"
        )
    if filesystem and not shutil.which(f"mkfs.{filesystem}"):
        yield f"mkfs.{filesystem} not found: install the package {_PACKAGE_OF[filesystem]}"


def _replace_dev() -> None:
    # Built elsewhere and moved in place, because the old /dev is needed meanwhile.
    staging = Path(tempfile.mkdtemp(prefix="ec2-sandbox-dev-"))
    _mount("tmpfs", str(staging), kind="tmpfs", flags=_MS_NOSUID, options="mode=755")
    # Others, such as those of partitions, may vanish meanwhile.
    for node in (each for each in Path("/dev").iterdir() if _NODES.fullmatch(each.name)):
        status = node.lstat()
        if not stat.S_ISLNK(status.st_mode):
            copy = staging / node.name
            os.mknod(copy, status.st_mode, status.st_rdev)
            copy.chmod(stat.S_IMODE(status.st_mode))  # mknod applies the umask
    for name in _MOUNTS:
        if (source := Path("/dev") / name).is_dir():
            (staging / name).mkdir()
            _mount(str(source), str(staging / name), flags=_MS_BIND | _MS_REC)
    for name, target in _LINKS.items():
        (staging / name).symlink_to(target)
    (staging / "disk/by-id").mkdir(parents=True)
    _mount(str(staging), "/dev", flags=_MS_MOVE)
    staging.rmdir()


def _unshare_mounts() -> None:
    # os.unshare came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _mount(source: str, target: str, *, kind: str = "", flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [os.fsencode(text) or None for text in (source, target, kind, options)]
    what, where, how, with_options = map(ctypes.c_char_p, arguments)
    if libc.mount(what, where, how, ctypes.c_ulong(flags), with_options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def _missing_capabilities() -> str:
    status = Path("/proc/self/status").read_text("ascii", "replace")
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    return ", ".join(name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1)


def _is_root_a_mountpoint() -> bool:
    mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    return any(mount.split()[4] == "/" for mount in mounts)


def _kernel_has(filesystem: str) -> bool:
    registered = Path("/proc/filesystems").read_text("ascii").split()
    modules = Path("/lib/modules") / platform.release() / "kernel/fs" / filesystem
    return filesystem in registered or modules.is_dir()  # a mount loads the module
