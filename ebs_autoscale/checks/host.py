"""`check` on this host: who runs it, kernel, tools, Python, /run, the log, NVMe."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ebs_autoscale import __version__
from ebs_autoscale.checks.line import Line
from ebs_autoscale.host import paths
from ebs_autoscale.host.command import path_of, run
from ebs_autoscale.units import format_size

_TOOL_TIMEOUT_SECONDS = 3.0
_LOG_FOLDER = Path("/var/log")
_LOG_ROOM_MIN_BYTES = 64 * 1024**2

# For ever, as far as a kernel is concerned. Amazon Linux sets it; the default is 30 s.
# Source: EC2 user guide, "Amazon EBS volumes and NVMe", I/O operation timeout.
_NVME_TIMEOUT_SECONDS = 4294967295

# Each is needed by the verbs named with it.
_OTHER_TOOLS = {
    "blkid": ("to prove a volume blank", "util-linux"),
    "mkfs.btrfs": ("by `init`", "btrfs-progs"),
    "mount": ("by `init`", "mount"),
}


def user() -> Iterator[Line]:
    """Whether we may do what the daemon does."""
    if os.geteuid() == 0:
        yield Line("user", "ok", "root")
        return
    hint = "use sudo; what only root can see is told below as broken"
    yield Line("user", "fail", "not running as root: block devices and BTRFS need it", hint)


def kernel() -> Iterator[Line]:
    """Whether this kernel has BTRFS, and what it is known for."""
    release = os.uname().release
    modules = Path("/lib/modules", release)
    known = [Path("/proc/filesystems"), modules / "modules.builtin", modules / "modules.dep"]
    yield kernel_line(release, *(_text(path) for path in known))


def kernel_line(release: str, filesystems: str, builtin: str, modules: str) -> Line:
    """The verdict from the release, /proc/filesystems and the two lists of modules.

    Hazards by version are from the kernel's change log (`fs/btrfs`).
    """
    what = f"Linux {release}"
    if not re.search(r"\bbtrfs$", filesystems, re.MULTILINE):
        if "/btrfs.ko" not in builtin + modules:
            hint = "use a kernel with BTRFS: Debian, Ubuntu, Fedora and Amazon Linux have it, "
            return Line("kernel", "fail", f"{what} has no BTRFS", hint + "RHEL does not")
        what += ", BTRFS is loaded with the first mount"
    else:
        what += " with BTRFS"
    if _version(release) < (5, 10):
        hazard = "before 5.10 an operation of somebody else is not seen before a device is added"
        hint = "use Linux 5.10 or later; until then no balance or replace beside the daemon"
        return Line("kernel", "warn", f"{what}: {hazard}", hint)
    if _version(release) < (5, 17):
        what += "; before 5.17 a paused balance keeps devices from being added"
    return Line("kernel", "ok", what)


def tools() -> Iterator[Line]:
    """Whether the tools are there, and what their version is known for."""
    if path_of("btrfs") is None:
        release: Mapping[str, str] = {}
        with suppress(OSError):
            release = platform.freedesktop_os_release()
        yield no_btrfs_line(release)
    else:
        yield progs_line(run(["btrfs", "--version"], timeout_seconds=_TOOL_TIMEOUT_SECONDS))
    for tool, (why, package) in _OTHER_TOOLS.items():
        if path_of(tool) is None:
            sentence = f"`{tool}` is not installed; it is needed {why}"
            yield Line("tools", "warn", sentence, f"install the package {package}")
    if path_of("udevadm") is None:
        yield Line("tools", "ok", "no udev here: devices are found by sysfs alone")


def no_btrfs_line(release: Mapping[str, str]) -> Line:
    """What to do without btrfs-progs on the distribution that os-release(5) names."""
    what = "the tool `btrfs` is not installed"
    if release.get("ID") == "amzn":
        name = release.get("PRETTY_NAME", "Amazon Linux")
        sentence = f"{what}: {name} has BTRFS in its kernel, but no package btrfs-progs"
        hint = "build btrfs-progs from source, or use an image of Debian or Ubuntu"
        return Line("tools", "fail", sentence, hint)
    likes = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    debian = "apt-get install btrfs-progs" if likes & {"debian", "ubuntu"} else ""
    return Line("tools", "fail", what, debian or "install the package btrfs-progs")


def progs_line(answer: str) -> Line:
    """The verdict from what `btrfs --version` says."""
    what = answer.partition("\n")[0].strip()
    found = re.search(r"\bv?(\d+(?:\.\d+)*)", what)
    if found is None:
        return Line("tools", "warn", f"`btrfs --version` says {what!r}", "expected: v and a number")
    if _version(found[1]) < (5, 10):
        hazard = "before 5.10 a device is wiped before another operation lets it be added"
        return Line("tools", "warn", f"{what}: {hazard}", "use btrfs-progs 5.10 or later")
    if _version(found[1]) < (5, 18):
        what += "; before 5.18 a paused balance keeps devices from being added"
    return Line("tools", "ok", what)


def python() -> Iterator[Line]:
    """The versions for a bug report; all of them are new enough or there would be no program."""
    found = []
    for package in ("boto3", "botocore"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    what = ", ".join([f"ebs-autoscale {__version__}", f"Python {platform.python_version()}"])
    yield Line("python", "ok", ", ".join([what, *found]))


def runtime() -> Iterator[Line]:
    """Whether the locks and the status report have a place."""
    folder = (
        paths.RUNTIME_DIRECTORY
        if paths.RUNTIME_DIRECTORY.exists()
        else paths.RUNTIME_DIRECTORY.parent
    )
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY or (os.geteuid() == 0 and not os.access(folder, os.W_OK)):
        hint = "the daemon cannot lock the filesystem: mount a tmpfs on /run"
        yield Line("run", "fail", f"{folder} is not writable", hint)
    elif not found.f_bavail or (found.f_files and not found.f_favail):
        hint = "`status` goes without the daemon's report: see what fills it"
        yield Line("run", "warn", f"{folder} is full", hint)
    else:
        yield Line("run", "ok", f"{folder} is writable")


def log() -> Iterator[Line]:
    """Whether what the daemon says can be kept."""
    found = os.statvfs(_LOG_FOLDER)
    room_bytes = found.f_bavail * found.f_frsize
    what = f"{_LOG_FOLDER} has room for {format_size(room_bytes)}"
    if found.f_flag & os.ST_RDONLY:
        yield Line("log", "warn", f"{_LOG_FOLDER} is read-only", "remount it read-write")
    elif room_bytes < _LOG_ROOM_MIN_BYTES:
        hint = "the daemon goes on, what it says is lost: make room"
        yield Line("log", "warn", f"{what} only", hint)
    else:
        yield Line("log", "ok", what)


def nvme() -> Iterator[Line]:
    """How long the kernel waits for a volume that stalls."""
    parameter = Path("/sys/module/nvme_core/parameters/io_timeout")
    queues = Path("/sys/block").glob("nvme*n*/queue/io_timeout")
    yield nvme_line(_text(parameter), {path.parts[3]: _text(path) for path in queues})


def nvme_line(parameter_seconds: str, queues_milliseconds: Mapping[str, str]) -> Line:
    """The verdict from the module's default and from what udev made of it for each device."""
    if not parameter_seconds.strip().isdecimal():
        return Line("nvme", "ok", "no NVMe here")
    # A queue counts in unsigned milliseconds of 32 bits, so "for ever" is 49 days there.
    waits = {
        name: int(text) // 1000 for name, text in queues_milliseconds.items() if text.strip()
    } or {"each device": int(parameter_seconds)}
    short = {name: seconds for name, seconds in waits.items() if seconds < _NVME_LONG_SECONDS}
    if not short:
        return Line("nvme", "ok", "stalled volumes are waited for")
    name, seconds = min(short.items(), key=lambda item: item[1])
    return Line(
        "nvme",
        "warn",
        f"I/O of {name} fails after {seconds} s; BTRFS would go read-only when EBS stalls",
        f"add nvme_core.io_timeout={_NVME_TIMEOUT_SECONDS} to the kernel's command line and reboot",
    )


# Older kernels take 255 s at most, which AWS recommends for them.
_NVME_LONG_SECONDS = 255


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text("utf-8", errors="replace")
    return ""


LOOKS: tuple[tuple[str, Callable[[], Iterable[Line]]], ...] = (
    ("user", user),
    ("kernel", kernel),
    ("tools", tools),
    ("python", python),
    ("run", runtime),
    ("log", log),
    ("nvme", nvme),
)
