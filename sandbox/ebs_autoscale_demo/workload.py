"""How much data the demo writes, how fast, and how large its first volume is."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ec2_sandbox.errors import HostUnfit, InputInvalid

from ebs_autoscale_demo.clock import now_seconds
from ebs_autoscale_demo.isolation import PRIVATE
from ebs_autoscale_demo.sizes import GIB, MIB, format_size

GROWTHS_WANTED = 3
AVAILABLE_PERCENT = 50
"""The daemon grows the filesystem below this share, by the size of the first volume at most."""

_RATE_MAX = 48 * MIB
_RATE_MIN = 32 * MIB
# A filesystem on a loop device writes its data once and its metadata twice, while checksums
# are computed and the page cache is written back in bursts.
_SHARE_OF_WRITE_SPEED = 1 / 3
_TRIAL_BYTES = 96 * MIB
# A growth takes 6 to 9 s with the realistic latencies of the sandbox: the first volume lasts
# twice as long.
_FIRST_VOLUME_SECONDS = 20.0
_WRITING_SECONDS = 45.0
_AFTER_LAST_GROWTH_BYTES = GIB // 4
# The demo takes less than 8 GiB in all: the rest is for metadata and what BTRFS allocates ahead.
_DATA_BYTES_MAX = 6 * GIB
_SPARE_BYTES = GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the demo writes; `directory` is where the sparse files behind the volumes are."""

    directory: Path
    first_gib: int
    data_bytes: int
    rate_bytes_per_second: float


def choose_workload(directory: Path, rate_bytes_per_second: int | None) -> Workload:
    """Choose a rate that the host's storage can sustain, unless one is given.

    Raises HostUnfit when there is not enough space, InputInvalid when the rate is too high.
    """
    rate = float(rate_bytes_per_second or 0)
    if not rate:
        sustainable = _write_speed(directory) * _SHARE_OF_WRITE_SPEED
        rate = max(_RATE_MIN, min(_RATE_MAX, sustainable))
    first_gib = -int(-rate * _FIRST_VOLUME_SECONDS // GIB)
    data_bytes_min = _used_at_last_growth_bytes(first_gib) + _AFTER_LAST_GROWTH_BYTES
    if data_bytes_min > _DATA_BYTES_MAX:
        raise InputInvalid(
            f"--rate {format_size(rate)} is too high",
            hint=f"the demo would need more than {format_size(_DATA_BYTES_MAX)} of data",
        )
    data_bytes = min(max(int(rate * _WRITING_SECONDS), data_bytes_min), _DATA_BYTES_MAX)
    found = os.statvfs(directory)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < data_bytes + _SPARE_BYTES:
        raise HostUnfit(
            f"{directory} has {format_size(free_bytes)} available, "
            f"the demo needs {format_size(data_bytes + _SPARE_BYTES)}",
            hint="set TMPDIR to a directory with more space",
        )
    return Workload(
        directory=directory,
        first_gib=first_gib,
        data_bytes=data_bytes,
        rate_bytes_per_second=rate,
    )


def storage_directory() -> Path:
    """Where the sparse files are stored: $TMPDIR, or /var/tmp, which is not in memory."""
    wanted = Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 -- the files are unlinked
    if wanted.is_dir() and not wanted.resolve().is_relative_to(PRIVATE):
        return wanted.resolve()
    return Path("/var/tmp")  # noqa: S108 -- the files are unlinked


def _used_at_last_growth_bytes(first_gib: int) -> int:
    """How many bytes are used, at most, when the last of the wanted growths begins."""
    size_gib = first_gib * GROWTHS_WANTED
    return size_gib * GIB * (100 - AVAILABLE_PERCENT) // 100


def _write_speed(directory: Path) -> float:
    """Bytes per second of a short sequential write, including fsync."""
    block = os.urandom(MIB)
    with tempfile.TemporaryFile(dir=directory) as file:
        began = now_seconds()
        for _ in range(_TRIAL_BYTES // MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _TRIAL_BYTES / (now_seconds() - began)
