"""Volumes in the account that look like ours and are not, and proof that nobody touched them.

Also volumes of ours that an operator enlarges.
"""

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from ec2_sandbox.client import VolumeSeen
from ec2_sandbox.errors import InputInvalid

from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, GROWTH_TAG
from tests.chaos.ground import Ground, wait
from tests.chaos.weather import ENLARGED, TAKEN_OUT, Foreign

_READS = ("Describe",)

# What is on a restored volume: nothing, an old superblock of BTRFS, something else.
_CONTENTS: tuple[dict[int, bytes], ...] = ({}, {65600: b"_BHRfS_M"}, {0: b"data" * 1024})

# Names that growths would use in their turn.
_DEVICES = ("/dev/xvdbd", "/dev/xvdbh", "/dev/xvdbm")

_SETTLE_SECONDS = 20.0
# Longer than it takes until EC2 shows a new volume.
_ACCEPT_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class _Made:
    """A volume as it was when it was complete; earlier calls may have been right."""

    kind: str
    seen: VolumeSeen
    since: int


class Meddler:
    """An operator of the same account, who restores, copies, attaches and removes volumes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._sandbox = ground.host.sandbox
        self._made: dict[str, _Made] = {}

    @property
    def kinds(self) -> list[str]:
        """What there is so far."""
        return [made.kind for made in self._made.values()]

    def bring(self, foreign: Foreign, dice: Random) -> bool:
        """Make, take out or enlarge a volume; False where there is no device that allows it."""
        if foreign.kind == TAKEN_OUT:
            return self._take_out(dice)
        if foreign.kind == ENLARGED:
            return self._enlarge(dice)
        return self.make(foreign.kind, dice, attached=foreign.attached)

    def make(self, kind: str, dice: Random, *, attached: bool = False) -> bool:
        """Create a volume of this kind; False where nothing is there that it could resemble."""
        ours = self._devices()
        if not ours:
            return False
        newest = int(ours[-1].tags[GROWTH_TAG])
        tags = dict(dice.choice(ours).tags)
        match kind:
            case "restored newest":
                tags[GROWTH_TAG] = str(newest + 1)
            case "removed":
                tags[GROWTH_TAG] = str(max(0, newest - 1))
            case "another filesystem":
                tags[FILESYSTEM_TAG] = "00000000-0000-4000-8000-000000000000"
            case "far":
                tags[GROWTH_TAG] = dice.choice((str(newest + 100_000), "x", "-3", "9" * 40))
            case "plain":
                tags = {"Name": "ebs-autoscale", "ebs-autoscale": "owner"}
        content = dice.choice(_CONTENTS) if "restored" in kind else None
        volume_id = self._sandbox.put_volume(1, tags=tags, content=content, VolumeType="gp3")
        self._ground.host.others.add(volume_id)
        self._settle(volume_id, "available")
        attached = attached and self._is_attached(volume_id)
        self._note(volume_id, f"{kind} and attached" if attached else kind)
        return True

    def _devices(self) -> list[VolumeSeen]:
        """Our volumes in the filesystem, the oldest first."""
        reading = self._ground.host.read()
        found = [v for v in self._ground.host.volumes() if reading.has_device(v.node)]
        return sorted(found, key=lambda volume: int(volume.tags[GROWTH_TAG]))

    def _take_out(self, dice: Random) -> bool:
        """Remove a device from the filesystem, not the newest one; its volume keeps its tags."""
        host = self._ground.host
        older = self._devices()[:-1]
        if not older:
            return False
        volume = dice.choice(older)
        argv = ["btrfs", "device", "remove", f"/dev/{volume.node}", str(host.mountpoint)]
        if subprocess.run(argv, check=False, capture_output=True, timeout=120).returncode:
            return False
        host.others.add(volume.id)
        self._ground.removed += 1
        if detached := dice.random() < 0.5:
            self._sandbox.operate("DetachVolume", VolumeId=volume.id)
            self._settle(volume.id, "available")
        self._note(volume.id, f"{TAKEN_OUT} and detached" if detached else TAKEN_OUT)
        return True

    def _enlarge(self, dice: Random) -> bool:
        """Add a GiB; False where EC2 does not accept it."""
        found = [v for v in self._devices() if v.size_gib < self._ground.largest_gib]
        if not found:
            return False
        volume = dice.choice(found)
        with suppress(InputInvalid):
            self._sandbox.operate("ModifyVolume", VolumeId=volume.id, Size=volume.size_gib + 1)
            self._ground.enlarged_by_others += 1
            return True
        return False

    def _is_attached(self, volume_id: str) -> bool:
        """Attach it; False where no name is free, or EC2 does not show the volume in time."""

        def is_accepted() -> bool:
            used = {volume.device for volume in self._seen().values()}
            name = next((name for name in _DEVICES if name not in used), "")
            target = {"InstanceId": self._sandbox.instance_id, "Device": name}
            with suppress(InputInvalid):
                self._sandbox.operate("AttachVolume", VolumeId=volume_id, **target)
                return True
            return False

        accepted = wait(is_accepted, seconds=_ACCEPT_SECONDS)
        if accepted:
            wait(lambda: self._seen()[volume_id].node, seconds=_SETTLE_SECONDS)
            self._settle(volume_id, "in-use")
        return accepted

    def _settle(self, volume_id: str, state: str) -> None:
        def is_settled() -> bool:
            seen = self._seen()[volume_id]
            return seen.state == state and seen.attachment_state in {"", "attached"}

        wait(is_settled, seconds=_SETTLE_SECONDS)

    def _note(self, volume_id: str, kind: str) -> None:
        since = len(self._sandbox.journal())
        self._made[volume_id] = _Made(kind, self._seen()[volume_id], since)

    def _seen(self) -> dict[str, VolumeSeen]:
        return {volume.id: volume for volume in self._sandbox.state().volumes}

    def touched(self) -> list[str]:
        """What has changed, and each call that names one of them and does not only read."""
        now = self._seen()
        wrongs = [
            f"the {made.kind} volume {each} was changed: {made.seen} is now {now.get(each)}"
            for each, made in self._made.items()
            if now.get(each) != made.seen
        ]
        for call in self._sandbox.calls():
            if call.action.startswith(_READS):
                continue
            params = repr(call.params)
            for each, made in self._made.items():
                names = [each]
                if call.action == "ModifyInstanceAttribute" and made.seen.device:
                    names.append(repr(made.seen.device))
                if call.sequence >= made.since and any(name in params for name in names):
                    wrongs.append(f"{call.action} of the {made.kind} volume {each}")
        return wrongs
