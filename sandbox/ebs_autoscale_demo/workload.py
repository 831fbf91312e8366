"""What a demo will do, fitted to the machine: how much data, how fast, on how large a start."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import ConfigInvalid, Unfit
from ebs_autoscale.model import GIB
from ebs_autoscale.units import format_size
from ebs_autoscale_demo.isolation import PRIVATE

GROWTHS_WANTED = 3
AVAILABLE_PERCENT = 50
"""Below this the daemon of the demo grows its filesystem, each time by its first size at most."""

_MIB = 1024**2
_RATE_MOST = 48 * _MIB
_RATE_LEAST = 32 * _MIB
# A filesystem on a loop device writes all that it is given, and its metadata twice, while
# checksums are made and the page cache is written back in bursts.
_SHARE_OF_WRITE_SPEED = 1 / 3
_TRIAL_BYTES = 96 * _MIB
# A growth takes 6 to 9 s in a sandbox with realistic latencies: the first volume holds twice that.
_FIRST_VOLUME_SECONDS = 20.0
_WRITING_SECONDS = 45.0
_AFTER_LAST_TRIGGER_BYTES = GIB // 4
# The demo promises to stay below 8 GiB: this is for metadata and what BTRFS allocates ahead.
_DATA_MOST_BYTES = 6 * GIB
_SPARE_BYTES = GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The plot of one demo; `directory` is on the disk that takes the data."""

    directory: Path
    first_gib: int
    data_bytes: int
    rate_bytes_per_second: float


def write_script(directory: Path, rate_bytes_per_second: int | None, clock: SystemClock) -> Script:
    """Choose a rate that neither this disk nor the growths fall behind, unless one is given.

    Raises Unfit when the disk is too full, ConfigInvalid for a rate beyond the demo's means.
    """
    rate = float(rate_bytes_per_second or 0)
    if not rate:
        affordable = _write_speed(directory, clock) * _SHARE_OF_WRITE_SPEED
        rate = max(_RATE_LEAST, min(_RATE_MOST, affordable))
    first_gib = -int(-rate * _FIRST_VOLUME_SECONDS // GIB)
    least_bytes = _third_trigger_bytes(first_gib) + _AFTER_LAST_TRIGGER_BYTES
    if least_bytes > _DATA_MOST_BYTES:
        raise ConfigInvalid(f"--rate {format_size(int(rate))}: more than the demo can outgrow")
    data_bytes = min(max(int(rate * _WRITING_SECONDS), least_bytes), _DATA_MOST_BYTES)
    free_bytes = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
    if free_bytes < data_bytes + _SPARE_BYTES:
        raise Unfit(
            f"{directory} has {format_size(free_bytes)} left, "
            f"the demo takes {format_size(data_bytes + _SPARE_BYTES)}",
            hint="set TMPDIR to a folder with more space",
            cause="disk full",
        )
    return Script(
        directory=directory,
        first_gib=first_gib,
        data_bytes=data_bytes,
        rate_bytes_per_second=rate,
    )


def roomy_directory() -> Path:
    """Where the sparse files live: $TMPDIR, or a folder that is on a disk and not in memory."""
    wanted = Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 -- files there have no name
    if wanted.is_dir() and not wanted.resolve().is_relative_to(PRIVATE):
        return wanted.resolve()
    return Path("/var/tmp")  # noqa: S108 -- the same


def _third_trigger_bytes(first_gib: int) -> int:
    """How many bytes at most are used when the last of the wanted growths begins."""
    size_gib = first_gib * GROWTHS_WANTED
    return size_gib * GIB * (100 - AVAILABLE_PERCENT) // 100


def _write_speed(directory: Path, clock: SystemClock) -> float:
    """Bytes per second of a short sequential write, down to the disk."""
    block = os.urandom(_MIB)
    with tempfile.TemporaryFile(dir=directory) as file:
        began = clock.now_seconds()
        for _ in range(_TRIAL_BYTES // _MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _TRIAL_BYTES / (clock.now_seconds() - began)
