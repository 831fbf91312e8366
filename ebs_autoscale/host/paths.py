"""Paths of the program's own files: configuration, runtime files, log."""

import re
import sys
from pathlib import Path
from zlib import crc32

CONFIG_FOLDER = Path("/etc/ebs-autoscale")
CONFIG_DEFAULT = CONFIG_FOLDER / "config.yaml"
RUNTIME_DIRECTORY = Path("/run/ebs-autoscale")
PARTITION_TABLES = Path("/var/lib/ebs-autoscale/partition-tables")
LOG_FILE = Path("/var/log/ebs-autoscale.log")

# The folder with the packages. That of a release, which runs wherever it is unpacked, also has a
# file that runs one of their modules, and `bin` and `share` beside it.
LIBRARY = Path(__file__).parents[2]
IS_UNPACKED = (LIBRARY / "__main__.py").is_file()
PREFIX = LIBRARY.parent if IS_UNPACKED else Path(sys.prefix)

# A file name has 255 bytes at the most; an escaped byte has four.
_NAME_MAX = 200
_UNESCAPED = re.compile(rb"[0-9A-Za-z:_.]")


def escape_path(path: str) -> str:
    r"""The path as `systemd-escape --path` prints it: `/srv/my-own` is `srv-my\x2down`.

    For absolute paths without `.` and `..`. Source: systemd.unit(5), "String escaping for
    inclusion in unit names".
    """
    parts = [part for part in path.split("/") if part]
    return "-".join(_escape(part, first=part is parts[0]) for part in parts) or "-"


def _escape(part: str, *, first: bool) -> str:
    letters = [bytes([byte]) for byte in part.encode(errors="surrogateescape")]
    return "".join(
        letter.decode()
        if _UNESCAPED.fullmatch(letter) and not (first and index == 0 and letter == b".")
        else f"\\x{letter[0]:02x}"
        for index, letter in enumerate(letters)
    )


def configurations() -> list[Path]:
    """The files that the units on this host use, config.yaml first; that one if there is none."""
    found = CONFIG_FOLDER.glob("*.yaml")
    return sorted(found, key=lambda path: (path != CONFIG_DEFAULT, path)) or [CONFIG_DEFAULT]


def status_file(mountpoint: str) -> Path:
    r"""The daemon's report: `/a/b` is a-b.json and `/a-b` is a\x2db.json, as units are named."""
    name = escape_path(mountpoint)
    if len(name) > _NAME_MAX:
        name = f"{name[:_NAME_MAX]}-{crc32(name.encode()):08x}"
    return RUNTIME_DIRECTORY / f"{name}.json"


def pid_file(mountpoint: str) -> Path:
    """The pid of a daemon that runs detached."""
    return status_file(mountpoint).with_suffix(".pid")


def daemon_lock(filesystem: str) -> Path:
    """Held by the daemon as long as it runs; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.lock"


def growth_lock(filesystem: str) -> Path:
    """Held during a growth, of the daemon or of an operator; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.growth.lock"


def devices_lock() -> Path:
    """Held by the process that reads all block devices: one of them may not respond."""
    return RUNTIME_DIRECTORY / "devices.lock"


def init_lock() -> Path:
    """Held by `init`: one at a time on a host, since each of them changes fstab."""
    return RUNTIME_DIRECTORY / "init.lock"


def proposed_fstab() -> Path:
    """What `init` wants fstab to be, while it verifies that this mounts the right filesystem."""
    return RUNTIME_DIRECTORY / "fstab.init"


def init_mark(mountpoint: str) -> Path:
    """Has the UUID for which an `init` that has not ended may have created a volume."""
    return status_file(mountpoint).with_suffix(".init")


def purge_mark(mountpoint: str) -> Path:
    """Exists while `uninstall --purge-empty` is under way, or was interrupted."""
    return status_file(mountpoint).with_suffix(".purge")


def balance_mark(filesystem: str) -> Path:
    """Exists while a balance is paused that a growth has paused; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.balance-gave-way"
