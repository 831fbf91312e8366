"""What is there of a filesystem that is not mounted: its devices, and copies of them."""

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass

from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Problem
from ebs_autoscale.filesystems.btrfs.scan import PresentDevices, present_devices, scan
from ebs_autoscale.filesystems.btrfs.sysfs import uuid_at
from ebs_autoscale.filesystems.copies import copies_in, read_devices
from ebs_autoscale.filesystems.one_device.mount import OneDeviceMount
from ebs_autoscale.host import files, fstab
from ebs_autoscale.host.command import Question
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.model import FilesystemKind

_LOOK_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The devices of a filesystem that are present, and the first copy of one of them."""

    present: PresentDevices
    copy: Problem | None

    @classmethod
    def asked(cls, filesystem: str, kind: FilesystemKind) -> Question:
        """Ask another process, which reads every block device of the host, for what `of` takes."""
        return Question.of_module(__name__, filesystem, kind)

    @classmethod
    def of(cls, answer: str) -> "Sighting":
        """What the other process has seen."""
        total, devids, copy = json.loads(answer)
        problem = Problem(Cause.COPY, *copy) if copy else None
        return cls(PresentDevices(total, tuple(devids)), problem)


def filesystem_at(path: str) -> str:
    """The UUID of the filesystem at this path, else of the one that fstab mounts there.

    Empty when there is neither.
    """
    mount = MountTable().at(path)
    with suppress(OSError, EbsAutoscaleError):
        if mount and mount.kind == FilesystemKind.BTRFS:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return uuid_at(fd)
            finally:
                os.close(fd)
        if mount and mount.kind in set(FilesystemKind):
            return OneDeviceMount(path, read_only=True).uuid
    return fstab.uuid_at(files.read_text(fstab.FSTAB), path)


def _answer(filesystem: str, kind: FilesystemKind) -> str:
    # First, so that a device that does not respond is found open in this process.
    found = read_devices(filesystem)
    copies = [copy.problem for copy in copies_in(found, filesystem)]
    present = PresentDevices(1, tuple(claim.devid for claim in found.values())[:1])
    if kind.takes_devices:
        present = PresentDevices()
        scan(timeout_seconds=_LOOK_TIMEOUT_SECONDS)
        with suppress(CommandFailed):
            present = present_devices(filesystem, timeout_seconds=_LOOK_TIMEOUT_SECONDS)
    copy = next(([problem.sentence, problem.hint] for problem in copies), None)
    return json.dumps([present.total, present.devids, copy])


if __name__ == "__main__":
    sys.stdout.write(_answer(sys.argv[1], FilesystemKind(sys.argv[2])))
