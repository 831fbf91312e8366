"""Checks of this host: user, kernel, tools, Python, /run, the log, NVMe."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ebs_autoscale import __version__
from ebs_autoscale.checks.line import Line
from ebs_autoscale.host import paths
from ebs_autoscale.host.command import path_of, run
from ebs_autoscale.host.requirements import (
    how_to_install_btrfs,
    require_able_to_grow,
    require_root,
)
from ebs_autoscale.model import MIB, FilesystemKind
from ebs_autoscale.units import format_size

_TOOL_TIMEOUT_SECONDS = 3.0
_LOG_ROOM_MIN_BYTES = 64 * MIB

# AWS recommends the largest value, which is 255 on older kernels; the default is 30 s.
# https://docs.aws.amazon.com/ebs/latest/userguide/timeout-nvme-ebs-volumes.html
_NVME_TIMEOUT_SECONDS = 4294967295
_NVME_LONG_SECONDS = 255

# What each is needed for, and its package on Debian and Ubuntu.
_OTHER_TOOLS = {
    "blkid": ("to verify that a volume is blank", "util-linux"),
    "mkfs.btrfs": ("by `init`", "btrfs-progs"),
    "mount": ("by `init`", "mount"),
}


def user() -> Iterator[Line]:
    """Whether this user may do what the daemon does."""
    require_root()
    yield Line("user", "ok", "root")


def kernel(kind: FilesystemKind) -> Iterator[Line]:
    """Whether this kernel has this kind of filesystem, and in a version that works."""
    release = os.uname().release
    modules = Path("/lib/modules", release)
    known = [Path("/proc/filesystems"), modules / "modules.builtin", modules / "modules.dep"]
    yield kernel_line(release, *(_text(path) for path in known), kind=kind)


def kernel_line(
    release: str, filesystems: str, builtin: str, modules: str, *, kind: FilesystemKind
) -> Line:
    """The verdict from the release, /proc/filesystems and the two lists of modules.

    What each version lacks is from the kernel's change log (`fs/btrfs`).
    """
    what, name = f"Linux {release}", "BTRFS" if kind is FilesystemKind.BTRFS else str(kind)
    if not re.search(rf"\b{kind}$", filesystems, re.MULTILINE):
        if f"/{kind}.ko" not in builtin + modules:
            hint = (
                f"use a kernel with {name}, such as that of Debian, Ubuntu, Fedora or Amazon Linux"
            )
            return Line("kernel", "fail", f"{what} has no {name}", hint)
        what += f", the {kind} module is loaded at the first mount"
    else:
        what += f" with {name}"
    if kind is not FilesystemKind.BTRFS:
        return Line("kernel", "ok", what)
    if _version(release) < (5, 10):
        lacks = "before 5.10, BTRFS does not show its devices and operations in sysfs"
        return Line("kernel", "fail", f"{what}: {lacks}", "use Linux 5.10 or later")
    if _version(release) < (5, 17):
        what += "; before 5.17, no device can be added while a balance is paused"
    return Line("kernel", "ok", what)


def tools(kind: FilesystemKind) -> Iterator[Line]:
    """Whether the tools are installed, and in a version that works."""
    if kind is not FilesystemKind.BTRFS:
        require_able_to_grow(kind)
        yield Line("tools", "ok", f"what grows {kind} is installed")
        return
    if path_of("btrfs") is None:
        yield Line("tools", "fail", "the tool `btrfs` is not installed", how_to_install_btrfs())
    else:
        yield progs_line(run(["btrfs", "--version"], timeout_seconds=_TOOL_TIMEOUT_SECONDS))
    for tool, (why, package) in _OTHER_TOOLS.items():
        if path_of(tool) is None:
            sentence = f"`{tool}` is not installed; it is needed {why}"
            yield Line("tools", "warn", sentence, f"install the package {package}")
    if path_of("udevadm") is None:
        yield Line("tools", "ok", "udev is not installed: devices are found through sysfs")


def progs_line(answer: str) -> Line:
    """The verdict from what `btrfs --version` says."""
    what = answer.partition("\n")[0].strip()
    found = re.search(r"\bv?(\d+(?:\.\d+)*)", what)
    if found is None:
        return Line(
            "tools",
            "warn",
            f"`btrfs --version` printed {what!r}",
            "expected a version such as v6.2",
        )
    if _version(found[1]) < (5, 10):
        hazard = "before 5.10, a device is wiped even when another operation then prevents the add"
        return Line("tools", "warn", f"{what}: {hazard}", "use btrfs-progs 5.10 or later")
    if _version(found[1]) < (5, 18):
        what += "; before 5.18, no device can be added while a balance is paused"
    return Line("tools", "ok", what)


def python() -> Iterator[Line]:
    """The versions, for a bug report; too old ones cannot be installed."""
    found = []
    for package in ("boto3", "botocore"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    what = ", ".join([f"ebs-autoscale {__version__}", f"Python {platform.python_version()}"])
    yield Line("python", "ok", ", ".join([what, *found]))


def runtime() -> Iterator[Line]:
    """Whether locks and the status file can be written."""
    folder = paths.RUNTIME_DIRECTORY
    if not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY or (os.geteuid() == 0 and not os.access(folder, os.W_OK)):
        hint = "the daemon cannot create its locks: mount a tmpfs on /run"
        yield Line("run", "fail", f"{folder} is not writable", hint)
    elif not found.f_bavail or (found.f_files and not found.f_favail):
        hint = "free up space there; until then the daemon cannot write its status file"
        yield Line("run", "warn", f"{folder} is full", hint)
    else:
        # True whoever asks: what this user may write there is of no interest.
        yield Line("run", "ok", f"{folder} is not read-only and has free space")


def log() -> Iterator[Line]:
    """Whether there is space for the log, whose folder is made when it is needed."""
    folder = next(each for each in paths.LOG_FILE.parents if each.exists())
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        yield Line("log", "warn", f"{folder} is read-only", "remount it read-write")
    elif free_bytes < _LOG_ROOM_MIN_BYTES:
        hint = "free up space there; the daemon keeps running, but its log messages are lost"
        yield Line("log", "warn", f"only {format_size(free_bytes)} free in {folder}", hint)
    else:
        yield Line("log", "ok", f"{format_size(free_bytes)} free in {folder}")


def nvme() -> Iterator[Line]:
    """How long the kernel waits for a stalled volume."""
    parameter = Path("/sys/module/nvme_core/parameters/io_timeout")
    queues = Path("/sys/block").glob("nvme*n*/queue/io_timeout")
    yield nvme_line(_text(parameter), {path.parts[3]: _text(path) for path in queues})


def nvme_line(parameter_seconds: str, queues_milliseconds: Mapping[str, str]) -> Line:
    """The verdict from the module's default and the value of each device, which udev may set."""
    if not parameter_seconds.strip().isdecimal():
        return Line("nvme", "ok", "no NVMe devices")
    # A queue counts milliseconds in 32 bits, so that the largest value is 49 days there.
    waits = {
        name: int(text) // 1000 for name, text in queues_milliseconds.items() if text.strip()
    } or {"each device": int(parameter_seconds)}
    short = {name: seconds for name, seconds in waits.items() if seconds < _NVME_LONG_SECONDS}
    if not short:
        return Line("nvme", "ok", f"I/O timeouts are {_NVME_LONG_SECONDS} s or longer")
    name, seconds = min(short.items(), key=lambda item: item[1])
    return Line(
        "nvme",
        "warn",
        f"I/O on {name} times out after {seconds} s: if EBS stalls that long, BTRFS goes read-only "
        "as ext4 does, and XFS shuts down",
        f"add nvme_core.io_timeout={_NVME_TIMEOUT_SECONDS} to the kernel command line and reboot",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text("utf-8", errors="replace")
    return ""


def checks(kind: FilesystemKind) -> tuple[tuple[str, Callable[[], Iterable[Line]]], ...]:
    """All of them by name, for a host whose filesystem is of this kind."""
    return (
        ("user", user),
        ("kernel", partial(kernel, kind)),
        ("tools", partial(tools, kind)),
        ("python", python),
        ("run", runtime),
        ("log", log),
        ("nvme", nvme),
    )
