"""What an EBS volume on NVMe counts: how long programs wanted more than it or the instance takes.

The layout of log page 0xD0 is that of nvme-cli's plugin `amzn`, FreeBSD's nvmecontrol and the EBS
CSI driver, which agree; the times are in microseconds since the volume was attached
(https://docs.aws.amazon.com/ebs/latest/userguide/nvme-detailed-performance-stats.html). The command
is nvme_admin_cmd of linux/nvme_ioctl.h.
"""

import ctypes
import fcntl
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.errors import CommandFailed, Transient
from ebs_autoscale.host.command import Question

ANSWER_SECONDS = 1.0

_EBS_MODEL = "Amazon Elastic Block Store"
_MAGIC = 0x3C23B510
# The magic, what is reserved, 6 counters of reads and writes, 4 of times exceeded.
_LAYOUT = struct.Struct("<I4x6Q4Q")
_PAGE_BYTES = 4096

_NVME_IOCTL_ADMIN_CMD = 0xC0484E41
_GET_LOG_PAGE = 0x02
_LOG_PAGE = 0xD0
# opcode, flags, reserved, namespace, cdw2, cdw3, metadata, address, lengths of metadata and data,
# cdw10 to cdw15, timeout, result
_COMMAND = struct.Struct("=BBHIIIQQII6III")


@dataclass(frozen=True, slots=True)
class Exceeded:
    """For how many seconds programs wanted more than the volume or the instance takes."""

    volume_iops: float
    volume_throughput: float
    instance_iops: float
    instance_throughput: float

    def since(self, earlier: "Exceeded") -> "Exceeded":
        """What has come since then; all of it when the volume was attached anew meanwhile."""
        pairs = [(getattr(self, name), getattr(earlier, name)) for name in self.__slots__]
        is_later = all(now >= then for now, then in pairs)
        return Exceeded(*(now - then for now, then in pairs)) if is_later else self


def parse(page: bytes) -> Exceeded | None:
    """What the log page says; None for any other page, such as that of another vendor."""
    if len(page) < _LAYOUT.size:
        return None
    magic, *counts = _LAYOUT.unpack_from(page)
    return Exceeded(*(count / 1e6 for count in counts[-4:])) if magic == _MAGIC else None


def exceeded(names: Iterable[str]) -> Mapping[str, Exceeded] | None:
    """That of those of these block devices that are EBS volumes on NVMe; None if one hangs.

    Empty without root. Another process asks: an answer that does not come blocks it for minutes,
    and a command that is timed out has the kernel reset the device.
    """
    mine = [name for name in names if _is_ebs(name)]
    if not mine or os.geteuid() != 0:
        return {}
    try:
        question = Question.of_module(__name__, *mine)
        answer = question.answer(wait_seconds=ANSWER_SECONDS)
    except (CommandFailed, Transient):
        return {}
    if answer is None:
        question.drop()
        return None
    return dict(_parsed(answer))


def _parsed(answer: str) -> Iterable[tuple[str, Exceeded]]:
    for line in answer.splitlines():
        name, _, page = line.partition(" ")
        if found := parse(bytes.fromhex(page)):
            yield name, found


def _is_ebs(name: str) -> bool:
    with suppress(OSError):
        model = Path("/sys/class/block", name, "device/model").read_text("ascii", "replace")
        return name.startswith("nvme") and model.strip() == _EBS_MODEL
    return False


def _log_page(fd: int) -> bytes:
    """Ask the controller for it; raises OSError."""
    page = ctypes.create_string_buffer(_PAGE_BYTES)
    dwords = (_LOG_PAGE | (_PAGE_BYTES // 4 - 1) << 16, 0, 0, 0, 0, 0)
    command = _COMMAND.pack(
        *(_GET_LOG_PAGE, 0, 0, 1, 0, 0, 0, ctypes.addressof(page), 0, _PAGE_BYTES, *dwords, 0, 0)
    )
    if fcntl.ioctl(fd, _NVME_IOCTL_ADMIN_CMD, bytearray(command)) != 0:
        return b""
    return page.raw


def _main(names: Iterable[str]) -> None:
    for name in names:
        with suppress(OSError):
            fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb", buffering=0):
                page = _log_page(fd)[: _LAYOUT.size]
            sys.stdout.write(f"{name} {page.hex()}\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
