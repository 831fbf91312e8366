"""Which devices of a filesystem this host shows, mounted or not."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ebs_autoscale.errors import CommandFailed
from ebs_autoscale.host.command import never, run

_TOTAL = re.compile(r"Total devices (\d+)")
_DEVID = re.compile(r"^\s*devid\s+(\d+) .* path (/dev/\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Presence:
    """How many devices a filesystem has, and which of them this host shows."""

    total: int
    devids: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether all are here: only then is a mount tried, and never a degraded one."""
        return self.total > 0 and len(self.devids) >= self.total

    @property
    def sentence(self) -> str:
        """What is here and what is not."""
        if not self.devids:
            return "none of its devices is here"
        here = ", ".join(map(str, self.devids))
        return f"{len(self.devids)} of its {self.total} devices are here (devid {here})"


def presence_in(shown: str) -> Presence:
    """Read `btrfs filesystem show --raw`: the form is the same from 4.15 to 6.19."""
    total = _TOTAL.search(shown)
    devids = tuple(int(found[1]) for found in _DEVID.finditer(shown))
    return Presence(int(total[1]) if total else 0, devids)


NOBODY = Presence(0, ())


def presence_of(
    filesystem: str, *, timeout_seconds: float, stopping: Callable[[], bool] = never
) -> Presence:
    """Ask the tool, which changes nothing.

    Raises CommandFailed, which is also its word for a filesystem of which no device is here.
    """
    argv = ["btrfs", "filesystem", "show", "--raw", filesystem]
    return presence_in(run(argv, timeout_seconds=timeout_seconds, stopping=stopping))


def scan(*, timeout_seconds: float, stopping: Callable[[], bool] = never) -> None:
    """Tell the kernel of every device that udev has not; harmless where it has.

    The tool also complains of copies of other filesystems: what counts is what is seen next.
    """
    with suppress(CommandFailed):
        run(["btrfs", "device", "scan"], timeout_seconds=timeout_seconds, stopping=stopping)
