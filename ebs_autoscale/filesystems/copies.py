"""Block devices that claim to be the same device of the same filesystem.

The kernel and blkid tell filesystems apart by the UUID in the superblock, and devices of BTRFS by
UUID and devid. A block copy, such as a restored snapshot, has both. Measured on 6.18: at the next
mount the kernel takes whichever device it was told of last; of two devices it takes one from each
copy. A copy of a mounted filesystem is mounted under a temporary UUID (6.7 and later), or the
mounted one is shown a second time (before). Of XFS and ext4 the one is mounted whose link udev made
last; ext4 lets both be mounted.
"""

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, LockHeld, Problem, Unfit
from ebs_autoscale.filesystems.btrfs.superblock import read_superblock
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.filesystems.one_device import superblock
from ebs_autoscale.host import files
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import Question
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.paths import devices_lock
from ebs_autoscale.model import FilesystemKind

_BLOCK = Path("/sys/class/block")

# Python starts in 0.1 s, and a device that responds does so in milliseconds.
WAIT_SECONDS = 3.0
_LOCK_POLL_SECONDS = 0.1

NEW_UUID = {
    FilesystemKind.BTRFS: "btrfstune -m",
    FilesystemKind.XFS: "xfs_admin -U generate",
    FilesystemKind.EXT4: "tune2fs -U random",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Which device of which filesystem a block device claims to be; only BTRFS has several."""

    filesystem: str
    kind: FilesystemKind = FilesystemKind.BTRFS
    devid: int = 1
    device_count: int = 1


def devices_of(filesystem: str, *, wait_seconds: float = WAIT_SECONDS) -> dict[str, Claim]:
    """The block devices with a superblock of this filesystem, mounted or not, by kernel name.

    Without those beneath another block device, such as the paths of a multipath device. A device
    that cannot be read is left out. Raises Unfit when one does not respond: every block device of
    the host is read, by a process that no signal ends while it waits for a device, and of which
    there is never more than one.
    """
    question = Question.of_module(__name__, filesystem)
    answer = question.answer(wait_seconds=wait_seconds)
    if answer is None:
        problem = unresponsive()
        question.drop()
        raise Unfit(problem.sentence, hint=problem.hint, cause=problem.cause)
    return {
        name: Claim(**fields | {"kind": FilesystemKind(fields["kind"])})
        for name, fields in json.loads(answer).items()
    }


def unresponsive() -> Problem:
    """Which device keeps the process that reads all of them, and what to do about it."""
    names = ", ".join(_open_devices()) or "a block device"
    return Problem(
        Cause.DEVICE_UNREADABLE,
        f"{names} of this host does not respond, and may be a copy of a device of the filesystem",
        "see `dmesg`, and the volume's status in EC2; detach the volume by force, or reboot the "
        "instance",
    )


def _open_devices() -> Iterator[str]:
    with suppress(EbsAutoscaleError, OSError):
        process_id = files.read_text(devices_lock()).strip()
        for link in sorted(Path(f"/proc/{process_id}/fd").iterdir()):
            target = str(link.readlink())
            if target.startswith("/dev/") and target != os.devnull:
                yield target.removeprefix("/dev/")


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process reads the devices; without a lock where this user has none."""
    while True:
        try:
            lock = Lock(devices_lock())
        except LockHeld:
            SystemClock().sleep(_LOCK_POLL_SECONDS)
        except Unfit:
            yield
            return
        else:
            with lock:
                yield
            return


def read_devices(filesystem: str, *, block: Path = _BLOCK) -> dict[str, Claim]:
    """What `devices_of` returns, read by this process: for as long as a device takes."""
    found = {}
    with _alone():
        for folder in sorted(block.iterdir()):
            if next(folder.glob("holders/*"), None):
                continue
            with suppress(OSError):
                if claim := _claim_on(f"/dev/{folder.name}", filesystem):
                    found[folder.name] = claim
    return found


def _claim_on(node: str, filesystem: str) -> Claim | None:
    """What this device claims to be of this filesystem; it may have an older superblock as well."""
    found = read_superblock(node)
    if found and found.filesystem == filesystem:
        return Claim(filesystem=filesystem, devid=found.devid, device_count=found.device_count)
    other = superblock.read_superblock(node)
    if other and other.is_complete and other.uuid == filesystem:
        return Claim(filesystem=filesystem, kind=FilesystemKind(other.kind))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Two block devices that claim to be one; `original` is the mounted one, if either is."""

    name: str
    original: str
    claim: Claim
    volume: str = ""

    @property
    def problem(self) -> Problem:
        """What is wrong, and how to put it right."""
        return Problem(
            Cause.COPY,
            f"{self._shown} is a copy of {self.original}: both are {self._what}, and a mount may "
            "use either",
            self._hint,
        )

    @property
    def _shown(self) -> str:
        return f"{self.name} ({self.volume})" if self.volume else self.name

    @property
    def _what(self) -> str:
        uuid = self.claim.filesystem
        return f"devid {self.claim.devid} of {uuid}" if self.claim.kind.takes_devices else uuid

    @property
    def _hint(self) -> str:
        # With several devices btrfstune finds the original's other devices as well, and changes
        # some of each copy (measured with btrfs-progs 6.2).
        if self.claim.device_count > 1:
            return (
                f"detach the volume of {self.name}; to use the copy, attach all its volumes to a "
                "host without the original and run `btrfstune -m` on one of them there"
            )
        return (
            f"detach the volume of {self.name}, or, while it is not mounted, give it a UUID of its "
            f"own with `{NEW_UUID[self.claim.kind]} /dev/{self.name}`"
        )


def copies_of(filesystem: str) -> list[Problem]:
    """What is wrong with copies of its devices on this host, whether it is mounted or not.

    Also a block device that does not respond, which may be one.
    """
    try:
        return [copy.problem for copy in copies_in(devices_of(filesystem), filesystem)]
    except EbsAutoscaleError as error:
        return [Problem.of_error(error)]


def copies_in(found: Mapping[str, Claim], filesystem: str) -> list[Copy]:
    """The copies among these devices of a filesystem, with their volumes."""
    mounted = {path.name for path in (SYSFS / filesystem).glob("devices/*")}
    numbers = {mount.device for mount in MountTable().mounts()}
    mounted |= {Path(os.path.realpath(f"/sys/dev/block/{number}")).name for number in numbers}
    block_devices = BlockDevices()
    return [
        replace(copy, volume=block_devices.volume_id_of(copy.name))
        for copy in copies_among(found, mounted)
    ]


def copies_among(found: Mapping[str, Claim], mounted: Collection[str]) -> list[Copy]:
    """The copies among the devices of one filesystem; `mounted` are the names of those in use.

    A device that has come back under another name is not a copy of the one that went away.
    """
    originals: dict[int, str] = {}
    copies = []
    for name in sorted(found, key=lambda name: (name not in mounted, name)):
        claim = found[name]
        original = originals.setdefault(claim.devid, name)
        if original != name:
            copies.append(Copy(name=name, original=original, claim=claim))
    return copies


if __name__ == "__main__":
    seen = read_devices(sys.argv[1])
    json.dump({name: asdict(claim) for name, claim in seen.items()}, sys.stdout)
