"""What sysfs says about one BTRFS filesystem; readable without privileges."""

import errno
import os
import struct
import uuid
from contextlib import suppress
from pathlib import Path

from ebs_autoscale.filesystems.btrfs.chunks import PROFILES, Allocated
from ebs_autoscale.filesystems.btrfs.ioctl import subvolume_of
from ebs_autoscale.filesystems.page_cache import dirty_limit_bytes
from ebs_autoscale.model import SYSFS_SECTOR_BYTES

SYSFS = Path("/sys/fs/btrfs")
"""Has a folder for each mounted filesystem, in whatever mount namespace."""

_LONGEST_NUMBER = 20  # digits, of 64 bits

# In the order in which bytes move from one counter to the next, so that a byte is counted twice
# rather than not at all (measured: in the opposite order a reading was off by GiB).
_COUNTERS = (
    "bytes_may_use",
    "bytes_reserved",
    "bytes_pinned",
    "bytes_readonly",
    "bytes_used",
    "total_bytes",
)
_FSID = struct.Struct(">4I")
_QGROUP = (
    "limit_flags",
    "max_referenced",
    "max_exclusive",
    "referenced",
    "exclusive",
    "rsv_data",
    "rsv_meta_pertrans",
    "rsv_meta_prealloc",
)


def uuid_at(fd: int) -> str:
    """The UUID of the BTRFS that a folder is in; empty when it is in none.

    statfs(2) tells the UUID, folded, and the id of the subvolume (fs/btrfs/super.c, btrfs_statfs);
    sysfs tells which UUIDs there are.
    """
    subvolume = subvolume_of(fd)
    if subvolume is None:
        return ""
    folded = os.fstatvfs(fd).f_fsid ^ (subvolume >> 32) ^ ((subvolume & 0xFFFFFFFF) << 32)
    return next((name for name in os.listdir(SYSFS) if _folded(name) == folded), "")  # noqa: PTH208 -- runs each tick


def node_bytes_of(filesystem: str) -> int:
    """The size of the filesystem's tree nodes; raises OSError."""
    return _number_in((SYSFS / filesystem / "nodesize").read_text("ascii", "replace"), "nodesize")


def _number_in(text: str, name: str) -> int:
    text = text.strip()
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise OSError(errno.EIO, f"{name} in sysfs is {text!r:.40}")
    return int(text)


def _folded(name: str) -> int | None:
    try:
        first, second, third, fourth = _FSID.unpack(uuid.UUID(name).bytes)
    except ValueError:
        return None
    return int((second ^ fourth) << 32 | (first ^ third))


class BtrfsSysfs:
    """The sysfs folder of one mounted filesystem; raises OSError once it is unmounted.

    Files stay open and are read again, which saves a third of the cost of a tick. Open sysfs files
    do not prevent an unmount; after the next mount they fail with ENODEV and are opened again.
    Source: https://btrfs.readthedocs.io/en/latest/ch-sysfs.html. Needs Linux 5.10.
    """

    def __init__(self, uuid: str) -> None:
        self._folder = f"{SYSFS}/{uuid}"
        self._fds: dict[str, int] = {}
        # Set by mkfs and never changed.
        self._data_kind = "mixed" if Path(self._folder, "allocation/mixed").exists() else "data"

    def __del__(self) -> None:
        self._forget()

    def allocated(self) -> tuple[Allocated, Allocated]:
        """The data and the metadata chunks; the same object where block groups are mixed."""
        data = self._allocated(self._data_kind)
        return data, data if self._data_kind == "mixed" else self._allocated("metadata")

    def totals(self) -> tuple[int, int]:
        """Bytes in data and in metadata chunks."""
        kinds = (self._data_kind, "mixed" if self._data_kind == "mixed" else "metadata")
        data, metadata = (self._number(f"allocation/{kind}/total_bytes") for kind in kinds)
        return data, metadata

    def data_profile(self) -> str:
        """The profile of the next data chunk; `single` when there is none yet."""
        return self._profile(self._data_kind)

    def exclusive_operation(self) -> str:
        """The running exclusive operation or `none`; before Linux 5.17 a paused balance is one."""
        return self._read("exclusive_operation")

    def names(self) -> frozenset[str]:
        """The kernel names of the devices."""
        return frozenset(os.listdir(f"{self._folder}/devices"))  # noqa: PTH208 -- runs each tick

    def devids(self) -> tuple[int, ...]:
        """The devids of all devices, seed devices included.

        Without the target of a running replace: it has devid 0 until it takes that of the device
        that it replaces.
        """
        present = os.listdir(f"{self._folder}/devinfo")  # noqa: PTH208 -- runs each tick
        return tuple(sorted(int(devid) for devid in present if devid.isdecimal() and devid != "0"))

    def device_number(self, name: str) -> str:
        """The major:minor of the device with this kernel name; empty when it has gone."""
        try:
            return self._read(f"devices/{name}/dev")
        except OSError:
            return ""

    def capacity_bytes(self, name: str) -> int:
        """The size of the block device with this kernel name; 0 when it was torn off.

        When an NVMe volume is detached while in use, the kernel first sets its size to 0. Then the
        block device goes, and the filesystem's link to it leads nowhere (measured on 6.1).
        """
        try:
            return self._number(f"devices/{name}/size") * SYSFS_SECTOR_BYTES
        except OSError:
            return 0

    def errors(self, devid: int) -> tuple[int, ...]:
        """The device's error counters since they were last reset, see `model.Device`.

        They are kept on disk. Empty before Linux 5.14, and when the kernel could not read them.
        """
        lines = self._flag(devid, "error_stats", "").split("\n")
        counts = [line.rpartition(" ")[2] for line in lines]
        return tuple(map(int, counts)) if all(map(str.isdigit, counts)) else ()

    def is_missing(self, devid: int) -> bool:
        """Whether it was missing when the filesystem was mounted."""
        return self._flag(devid, "missing", "0") == "1"

    def is_writable(self, devid: int) -> bool:
        """Whether chunks are allocated on it, unlike on a seed device."""
        return self._flag(devid, "writeable", "1") == "1"

    def qgroup(self, name: str) -> dict[str, int] | None:
        """The counters of a quota group such as `0_256`, in bytes; None when there is none."""
        try:
            return {each: self._number(f"qgroups/{name}/{each}") for each in _QGROUP}
        except FileNotFoundError:
            return None

    def dirty_limit_bytes(self) -> int:
        """The most that may be dirty in the page cache of all filesystems together."""
        return dirty_limit_bytes(self._number)

    def _flag(self, devid: int, name: str, default: str) -> str:
        try:
            return self._read(f"devinfo/{devid}/{name}")
        except FileNotFoundError:
            return default

    def _allocated(self, kind: str) -> Allocated:
        counted = {name: self._number(f"allocation/{kind}/{name}") for name in _COUNTERS}
        return Allocated(
            profile=self._profile(kind),
            total_bytes=counted["total_bytes"],
            used_bytes=counted["bytes_used"],
            pinned_bytes=counted["bytes_pinned"],
            reserved_bytes=counted["bytes_reserved"],
            may_use_bytes=counted["bytes_may_use"],
            readonly_bytes=counted["bytes_readonly"],
            global_reserve_bytes=self._number("allocation/global_rsv_size"),
        )

    def _profile(self, kind: str) -> str:
        present = os.listdir(f"{self._folder}/allocation/{kind}")  # noqa: PTH208 -- runs each tick
        return next((name for name in PROFILES if name in present), "single")

    def _number(self, name: str) -> int:
        return _number_in(self._read(name), name)

    def _read(self, name: str) -> str:
        if (fd := self._fds.get(name)) is not None:
            with suppress(OSError):
                return os.pread(fd, 4096, 0).decode("ascii", "replace").strip()
            self._forget()
        path = name if name.startswith("/") else f"{self._folder}/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds[name] = fd
        return os.pread(fd, 4096, 0).decode("ascii", "replace").strip()

    def _forget(self) -> None:
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)
