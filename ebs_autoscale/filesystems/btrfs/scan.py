"""Which devices of a filesystem are present on this host, mounted or not."""

import json
import re
import sys
from contextlib import suppress
from dataclasses import dataclass

from ebs_autoscale.errors import Cause, CommandFailed, Problem
from ebs_autoscale.filesystems.btrfs.copies import copies_in, read_devices
from ebs_autoscale.host.command import Question, run
from ebs_autoscale.units import counted

_TOTAL = re.compile(r"Total devices (\d{1,19})")
_DEVID = re.compile(r"^\s*devid\s+(\d{1,19}) .* path (/dev/\S+)$", re.MULTILINE)


_LOOK_TIMEOUT_SECONDS = 60.0


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


@dataclass(frozen=True, slots=True)
class Sighting:
    """The devices of a filesystem that are present, and the first copy of one of them."""

    present: PresentDevices
    copy: Problem | None

    @classmethod
    def asked(cls, filesystem: str) -> Question:
        """Ask another process, which reads every block device of the host, for what `of` takes."""
        return Question.of_module(__name__, filesystem)

    @classmethod
    def of(cls, answer: str) -> "Sighting":
        """What the other process has seen."""
        total, devids, copy = json.loads(answer)
        problem = Problem(Cause.COPY, *copy) if copy else None
        return cls(PresentDevices(total, tuple(devids)), problem)


def _answer(filesystem: str) -> str:
    # First, so that a device that does not respond is found open in this process.
    copies = [copy.problem for copy in copies_in(read_devices(filesystem), filesystem)]
    scan(timeout_seconds=_LOOK_TIMEOUT_SECONDS)
    present = PresentDevices()
    with suppress(CommandFailed):
        present = present_devices(filesystem, timeout_seconds=_LOOK_TIMEOUT_SECONDS)
    copy = next(([problem.sentence, problem.hint] for problem in copies), None)
    return json.dumps([present.total, present.devids, copy])


if __name__ == "__main__":
    sys.stdout.write(_answer(sys.argv[1]))
