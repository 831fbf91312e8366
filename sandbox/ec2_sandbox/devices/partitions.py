"""Partitions of a loop device: what the kernel and udev do for a real device that appears."""

import os
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_SIGNATURE_AT = 510
_SIGNATURE = b"\x55\xaa"


def has_table(fd: int) -> bool:
    """Whether the device may have a partition table: an MBR, which protects a GPT as well."""
    return os.pread(fd, len(_SIGNATURE), _SIGNATURE_AT) == _SIGNATURE


def show_partitions(name: str) -> Sequence[str]:
    """Tell the kernel of the partitions of this device, and make nodes; returns their names.

    Not every kernel reads partition tables by itself, and a private /dev has no devtmpfs. A node
    stays valid while its partition grows. Nothing happens without a table.
    """
    argv = ["partx", "--add", f"/dev/{name}"]
    # It fails as well where the kernel has read the table already.
    subprocess.run(argv, check=False, capture_output=True)
    names = sorted(each.parent.name for each in Path(f"/sys/block/{name}").glob("*/partition"))
    for each in names:
        major, minor = Path(f"/sys/class/block/{each}/dev").read_text("ascii").split(":")
        Path(f"/dev/{each}").unlink(missing_ok=True)
        with suppress(FileExistsError):
            device = os.makedev(int(major), int(minor))
            os.mknod(f"/dev/{each}", stat.S_IFBLK | 0o600, device)
    return names
