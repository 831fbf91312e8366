"""Block devices that claim to be the same device of the same BTRFS filesystem.

The kernel and blkid tell filesystems apart by the UUID in the superblock, and devices by UUID and
devid. A block copy, such as a restored snapshot, has both. Measured on 6.18: at the next mount the
kernel takes whichever device it was told of last; of two devices it takes one from each copy. A
copy of a mounted filesystem is mounted under a temporary UUID (6.7 and later), or the mounted one
is shown a second time (before).
"""

import json
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, LockHeld, Problem
from ebs_autoscale.filesystems.btrfs.superblock import Superblock, read_superblock
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import Question
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.paths import copies_lock

_BLOCK = Path("/sys/class/block")

# Python starts in 0.1 s, and devices that respond do so in milliseconds.
_LOOK_WAIT_SECONDS = 5.0
# An answer has a page at most.
_PROBLEMS_MAX = 4


def devices_of(filesystem: str, *, block: Path = _BLOCK) -> dict[str, Superblock]:
    """The block devices with a superblock of this filesystem, mounted or not, by kernel name.

    Without those beneath another block device, such as the paths of a multipath device. A device
    that cannot be read is left out. Reads every block device of the host.
    """
    found = {}
    for folder in sorted(block.iterdir()):
        if next(folder.glob("holders/*"), None):
            continue
        with suppress(OSError):
            superblock = read_superblock(f"/dev/{folder.name}")
            if superblock and superblock.filesystem == filesystem:
                found[folder.name] = superblock
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Two block devices that claim to be one; `original` is the mounted one, if either is."""

    name: str
    original: str
    superblock: Superblock
    volume: str = ""

    @property
    def problem(self) -> Problem:
        """What is wrong, and how to put it right."""
        return Problem(
            Cause.COPY,
            f"{self._shown} is a copy of {self.original}: both are devid {self.superblock.devid} "
            f"of {self.superblock.filesystem}, and a mount may use either",
            self._hint,
        )

    @property
    def _shown(self) -> str:
        return f"{self.name} ({self.volume})" if self.volume else self.name

    @property
    def _hint(self) -> str:
        # With several devices btrfstune finds the original's other devices as well, and changes
        # some of each copy (measured with btrfs-progs 6.2).
        if self.superblock.device_count > 1:
            return (
                f"detach the volume of {self.name}; to use the copy, attach all its volumes to a "
                "host without the original and run `btrfstune -m` on one of them there"
            )
        return (
            f"detach the volume of {self.name}, or, while it is not mounted, give it a UUID of its "
            f"own with `btrfstune -m /dev/{self.name}`"
        )


def copies_of(filesystem: str) -> list[Copy]:
    """The copies of its devices that this host shows, whether it is mounted or not.

    Reads every block device of the host, so never in the loop.
    """
    mounted = {path.name for path in (SYSFS / filesystem).glob("devices/*")}
    block_devices = BlockDevices()
    return [
        replace(copy, volume=block_devices.volume_id_of(copy.name))
        for copy in copies_among(devices_of(filesystem), mounted)
    ]


def copies_among(found: Mapping[str, Superblock], mounted: Collection[str]) -> list[Copy]:
    """The copies among the devices of one filesystem; `mounted` are the names of those in use.

    A device that has come back under another name is not a copy of the one that went away.
    """
    originals: dict[int, str] = {}
    copies = []
    for name in sorted(found, key=lambda name: (name not in mounted, name)):
        superblock = found[name]
        original = originals.setdefault(superblock.devid, name)
        if original != name:
            copies.append(Copy(name=name, original=original, superblock=superblock))
    return copies


def problems_with_copies(filesystem: str) -> list[Problem]:
    """The problems of `copies_of`, or the one that they cannot be known.

    By another process, of which there is never more than one: any device of the host may hang, and
    whatever reads it then cannot be ended.
    """
    looking = Question.of_module(__name__, filesystem)
    reason = f"a block device of this host does not respond within {_LOOK_WAIT_SECONDS:.0f} s"
    try:
        if answer := looking.answer(wait_seconds=_LOOK_WAIT_SECONDS):
            return [Problem(Cause.COPY, *problem) for problem in json.loads(answer)]
    except CommandFailed as error:
        reason = str(error)
    looking.drop()
    return [
        Problem(
            Cause.DEVICE_UNREADABLE,
            f"cannot tell whether a copy of {filesystem} is attached: {reason}",
            f"see `dmesg`, and which device the process has open that holds "
            f"{copies_lock(filesystem)} (`ls -l /proc/PID/fd`)",
        )
    ]


def _answer(filesystem: str) -> str:
    """JSON of sentences and hints; empty while an earlier look has not ended."""
    try:
        with Lock(copies_lock(filesystem)):
            problems = [copy.problem for copy in copies_of(filesystem)[:_PROBLEMS_MAX]]
    except LockHeld:
        return ""
    return json.dumps([[problem.sentence, problem.hint] for problem in problems])


if __name__ == "__main__":
    sys.stdout.write(_answer(sys.argv[1]))
