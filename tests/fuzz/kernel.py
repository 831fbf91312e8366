"""What the kernel answers: ioctls, and the sysfs folder of a filesystem."""

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ebs_autoscale.filesystems.btrfs import ioctl
from ebs_autoscale.filesystems.btrfs.reading import reading_of
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS, BtrfsSysfs
from ebs_autoscale.filesystems.mounted import OpenMount
from tests.unit.samples import FILESYSTEM

DEV_INFO = struct.pack("=Q16sQQ", 1, bytes(16), 2**27, 2**30).ljust(3072, b"\0") + b"/dev/loop0"


def _search_answer(*items: tuple[int, bytes]) -> bytes:
    """The answer to a tree search: offset and content of each item."""
    key = struct.pack(
        "=7Q4I32xQ", 3, 256, 256, 0, 2**64 - 1, 0, 2**64 - 1, 228, 228, len(items), 0, 0
    )
    return key + b"".join(
        struct.pack("=QQQII", 5, 256, offset, 228, len(content)) + content
        for offset, content in items
    )


CHUNK = struct.pack("=QQQQIIIHH", 2**28, 2, 65536, 4, 0, 0, 4096, 2, 1) + 2 * struct.pack(
    "=QQ16s", 1, 2**20, bytes(16)
)
IOCTL_ANSWERS = (
    DEV_INFO,
    _search_answer((0, CHUNK), (2**30, CHUNK)),
    _search_answer((1 << 48, b""), ((2 << 48) + 7, b"")),
    bytes(8) + struct.pack("=Q", 1) + bytes(408) + struct.pack("=QQQ", 9, 4, 3),
)
_QUESTIONS: tuple[Callable[[int], object], ...] = (
    ioctl.subvolume_of,
    lambda fd: ioctl.parent_qgroups(fd, 256),
    lambda fd: ioctl.device_info(fd, 1),
    ioctl.balance,
    ioctl.devids_with_metadata,
)

_FILES = {
    **{
        f"allocation/{kind}/{name}": value
        for kind in ("data", "metadata")
        for name, value in (
            *(("bytes_may_use", "0"), ("bytes_reserved", "4096"), ("bytes_pinned", "0")),
            *(("bytes_readonly", "0"), ("bytes_used", "65536"), ("total_bytes", "8388608")),
        )
    },
    "allocation/global_rsv_size": "3670016",
    "devices/loop0/size": "2097152",
    "devices/loop0/dev": "7:0",
    "devinfo/1/error_stats": "write_errs 0",
    "devinfo/1/missing": "0",
    "devinfo/1/writeable": "1",
    **{
        f"qgroups/0_256/{name}": value
        for name, value in (
            *(("limit_flags", "1"), ("max_referenced", "1048576"), ("max_exclusive", "0")),
            *(("referenced", "16384"), ("exclusive", "16384"), ("rsv_data", "0")),
            *(("rsv_meta_pertrans", "0"), ("rsv_meta_prealloc", "0")),
        )
    },
}
SYSFS_FILES = "\n".join(_FILES.values()).encode()


@contextmanager
def _answering(content: bytes) -> Iterator[None]:
    def answer(_fd: int, _request: int, argument: bytearray) -> int:
        argument[:] = content[: len(argument)].ljust(len(argument), b"\0")
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "ioctl", answer)
        yield


def ioctls(content: bytes) -> None:
    """Every question, each of which the kernel answers with this."""
    with _answering(content):
        for ask in _QUESTIONS:
            with suppress(OSError):
                ask(0)


class SysfsReading:
    """A reading from a sysfs with these files, one line for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in _FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, content: bytes) -> None:
        """Read it once; raises OSError."""
        lines = content.split(b"\n") + [b""] * len(_FILES)
        for name, line in zip(_FILES, lines, strict=False):
            (self._folder / name).write_bytes(line)
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            # DEV_INFO also answers in which subvolume it is, and which quota groups that is in.
            with _answering(DEV_INFO):
                reading_of(
                    OpenMount(fd=fd, uuid=FILESYSTEM),
                    BtrfsSysfs(os.path.relpath(self._folder, SYSFS)),
                    os.statvfs("/"),
                    mountpoint="/scratch",
                    now_seconds=0.0,
                )
        finally:
            os.close(fd)
