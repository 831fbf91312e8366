"""Which devices of a filesystem are present on this host, mounted or not."""

import re
from contextlib import suppress
from dataclasses import dataclass

from ebs_autoscale.errors import CommandFailed
from ebs_autoscale.host.command import run
from ebs_autoscale.units import counted

_TOTAL = re.compile(r"Total devices (\d{1,19})")
_DEVID = re.compile(r"^\s*devid\s+(\d{1,19}) .* path (/dev/\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PresentDevices:
    """The devices of a filesystem that this host has, of `total`; 0 when none is known."""

    total: int = 0
    devids: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all are present. Only then is the filesystem mounted, and never degraded."""
        return self.total > 0 and len(self.devids) >= self.total

    @property
    def sentence(self) -> str:
        """How many are present, and which."""
        if not self.devids:
            return "none of its devices is present"
        present = f"{len(self.devids)} of {counted(self.total, 'device')} present"
        return f"{present} (devid {', '.join(map(str, self.devids))})"


def parse_show(shown: str) -> PresentDevices:
    """Parse `btrfs filesystem show --raw`, whose format is the same from 4.15 to 6.19."""
    total = _TOTAL.search(shown)
    devids = tuple(int(found[1]) for found in _DEVID.finditer(shown))
    return PresentDevices(int(total[1]) if total else 0, devids)


def present_devices(filesystem: str, *, timeout_seconds: float) -> PresentDevices:
    """The devices of this filesystem, a UUID, that the kernel or the tool can find now.

    Raises CommandFailed, also when no device of it is present.
    """
    argv = ["btrfs", "filesystem", "show", "--raw", filesystem]
    return parse_show(run(argv, timeout_seconds=timeout_seconds))


def scan(*, timeout_seconds: float) -> None:
    """Register all BTRFS devices with the kernel; udev has normally done so."""
    # It also fails for copies of other filesystems, so its result says nothing about ours.
    with suppress(CommandFailed):
        run(["btrfs", "device", "scan"], timeout_seconds=timeout_seconds)
