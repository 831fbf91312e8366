"""Volumes in the account that look like ours and are not, and proof that nobody touched them."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

from ec2_sandbox.client import VolumeSeen

from tests.chaos.ground import wait
from tests.hostile.contents import LATE_BYTE, LUKS, digest_of, ext4, superblock_of
from tests.system.bench import Host

ATTACHED_MAX = 4
"""So many foreign volumes are attached at a time; the oldest is detached for the next one."""

_ORDINAL = "ebs-autoscale:growth"
_READS = ("Describe",)
_EC2_SECONDS = 20.0
_REMOVE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an operator makes: with which tags, from what, and where it is then.

    It has the tags of a device, if `owned`, and these. `above` is its ordinal, relative to that of
    the newest growth; else it has that of the device. What is `left` was attached before.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    owned: bool = True
    above: int | None = None
    content: str = ""
    restored: bool = False
    attached: bool = False
    left: bool = False
    removed: bool = False


_PLAIN = {"Name": "ebs-autoscale", "ebs-autoscale": "owner"}
_OTHER = {"ebs-autoscale:filesystem": "00000000-0000-4000-8000-000000000000"}

KINDS: Mapping[str, _Kind] = {
    "restored": _Kind(restored=True),
    "restored newest": _Kind(restored=True, above=1),
    "restored with ext4": _Kind(restored=True, above=1, content="ext4"),
    "copied": _Kind(),
    "old": _Kind(above=-1),
    "another filesystem": _Kind(tags=_OTHER),
    "far": _Kind(above=100_000),
    "plain": _Kind(tags=_PLAIN, owned=False),
    "attached ext4": _Kind(content="ext4", attached=True),
    "attached LUKS": _Kind(restored=True, above=1, content="LUKS", attached=True),
    "attached late byte": _Kind(restored=True, above=1, content="late byte", attached=True),
    "attached blank": _Kind(attached=True),
    "attached plain": _Kind(tags=_PLAIN, owned=False, attached=True),
    "attached copy of a device": _Kind(restored=True, content="superblock", attached=True),
    "attached newest, written to": _Kind(above=1, content="ext4", attached=True),
    "newest, written to": _Kind(above=1, content="ext4", attached=True, left=True),
    "removed": _Kind(removed=True, attached=True),
    "removed and detached": _Kind(removed=True, attached=True, left=True),
}
"""The last two are devices that an operator removes from the filesystem. Of the others none is in a
position to be the volume of the newest growth, except those that are written to: whether they are
blank shows only once they are attached."""


class Meddler:
    """An operator of the same account, who restores, copies, attaches, removes and forgets."""

    def __init__(self, host: Host, dice: Random) -> None:
        self._host = host
        self._dice = dice
        self._numbers = count()
        self._made: dict[str, str] = {}
        self._then: dict[str, VolumeSeen] = {}
        self._digests: dict[str, str] = {}
        self._wrongs: list[str] = []

    @property
    def kinds(self) -> list[str]:
        """What there is so far."""
        return list(self._made.values())

    @property
    def ids(self) -> frozenset[str]:
        """The volumes of the operator."""
        return frozenset(self._made)

    def make(self, name: str) -> None:
        """Create a volume of this kind, or remove a device from the filesystem."""
        kind = KINDS[name]
        identity = self._removed() if kind.removed else self._created(kind)
        if not identity:
            return
        self._made[identity] = name
        if kind.attached and not kind.removed:
            self._make_room()
            self._attach(identity, kind)
        if kind.attached:
            self._digests[identity] = digest_of(self._node(identity))
        if kind.left:
            self._detach(identity)
        if not kind.removed:
            # Not before: a growth may finish a volume that seems to wait for it.
            self._tag(identity, kind)
        self._then[identity] = self._seen()[identity]

    def _created(self, kind: _Kind) -> str:
        content = self._content(kind) if kind.restored else None
        identity = self._host.sandbox.put_volume(1, tags={}, content=content, VolumeType="gp3")
        self._wait(identity, "available")
        return identity

    def _tag(self, identity: str, kind: _Kind) -> None:
        devices = self._devices()
        tags = {**(devices[0].tags if kind.owned else {}), **kind.tags}
        if kind.above is not None:
            tags[_ORDINAL] = str(max(0, int(devices[-1].tags[_ORDINAL]) + kind.above))
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._host.sandbox.operate("CreateTags", Resources=[identity], Tags=listed)

    def _content(self, kind: _Kind) -> Mapping[int, bytes]:
        match kind.content:
            case "ext4":
                return ext4(self._host.folder)
            case "LUKS":
                return LUKS
            case "late byte":
                return LATE_BYTE
            case "superblock":
                return superblock_of(Path("/dev", self._devices()[0].node))
        return {}

    def _attach(self, identity: str, kind: _Kind) -> None:
        self._call_attach(identity)
        self._wait(identity, "in-use", shown=True)
        if not kind.restored:
            with self._node(identity).open("r+b") as node:
                for offset, data in self._content(kind).items():
                    os.pwrite(node.fileno(), data, offset)
                os.fsync(node.fileno())
        # What udev does with every new device. The kernel refuses copies while the original is
        # mounted.
        argv = ["btrfs", "device", "scan", str(self._node(identity))]
        subprocess.run(argv, check=False, capture_output=True, timeout=60)

    def _call_attach(self, identity: str) -> None:
        sandbox = self._host.sandbox
        self._wait(identity, "available")
        name = f"/dev/xvdd{chr(ord('a') + next(self._numbers) % 26)}"
        sandbox.operate(
            "AttachVolume", VolumeId=identity, InstanceId=sandbox.instance_id, Device=name
        )

    def _detach(self, identity: str) -> None:
        self._host.sandbox.operate("DetachVolume", VolumeId=identity)
        self._wait(identity, "available")

    def _make_room(self) -> None:
        seen = self._seen()
        attached = [each for each in self._then if seen[each].state == "in-use"]
        for identity in attached[: max(0, len(attached) + 1 - ATTACHED_MAX)]:
            self._note_changes([identity])
            self._detach(identity)
            self._then[identity] = self._seen()[identity]

    def _removed(self) -> str:
        """Remove the newest or any other device but the first: the volume's id; "" if it fails."""
        volumes = self._devices()
        self._make_room()
        volume = self._dice.choice((volumes[-1], self._dice.choice(volumes)))
        argv = ["btrfs", "device", "remove", f"/dev/{volume.node}", str(self._host.mountpoint)]
        done = subprocess.run(argv, check=False, capture_output=True, timeout=_REMOVE_SECONDS)
        return "" if done.returncode else volume.id

    def _devices(self) -> list[VolumeSeen]:
        """The volumes that the daemon has added, the newest last."""
        ours = [volume for volume in self._host.volumes() if volume.id not in self._made]
        return sorted(ours, key=lambda volume: int(volume.tags[_ORDINAL]))

    def _node(self, identity: str) -> Path:
        return Path("/dev", self._seen()[identity].node)

    def _seen(self) -> dict[str, VolumeSeen]:
        return {volume.id: volume for volume in self._host.sandbox.state().volumes}

    def _wait(self, identity: str, state: str, *, shown: bool = False) -> None:
        def is_there() -> bool:
            seen = self._seen()[identity]
            return seen.state == state and bool(seen.node) >= shown

        if not wait(is_there, seconds=_EC2_SECONDS):
            name = self._made.get(identity, "new")
            self._wrongs.append(f"the {name} volume is not {state}: {self._seen()[identity]}")

    def touched(self) -> list[str]:
        """What has changed, and each call that names one of them and does not only read.

        Afterwards none of them is attached.
        """
        self._note_changes(list(self._then))
        for call in self._host.sandbox.calls():
            if not call.action.startswith(_READS):
                self._note_call(call.action, repr(call.params))
        self._note_contents()
        return self._wrongs

    def _note_changes(self, identities: list[str]) -> None:
        reading = self._host.read()
        for each in identities:
            name, then = self._made[each], self._then[each]
            if KINDS[name].left:
                # A growth may be looking at it, and then detaches it.
                self._wait(each, then.state)
            seen = self._seen().get(each)
            if seen != then:
                self._wrongs.append(f"the {name} volume {each} was changed: {then} is now {seen}")
            if seen and seen.node and reading.has_device(seen.node):
                self._wrongs.append(f"the {name} volume {each} is in the filesystem")

    def _note_call(self, action: str, params: str) -> None:
        for each, name in self._made.items():
            is_look = KINDS[name].left and action in {"AttachVolume", "DetachVolume"}
            is_own = KINDS[name].removed and action in {
                "AttachVolume",
                "ModifyInstanceAttribute",
            }
            if each in params and not is_look and not is_own:
                self._wrongs.append(f"{action} of the {name} volume")

    def _note_contents(self) -> None:
        seen = self._seen()
        for identity, digest in self._digests.items():
            if seen[identity].state == "available":
                self._call_attach(identity)
                self._host.sandbox.advance(_EC2_SECONDS)
            if digest_of(self._node(identity)) != digest:
                self._wrongs.append(f"wrong bytes in the {self._made[identity]} volume {identity}")
            self._host.sandbox.operate("DetachVolume", VolumeId=identity)
            self._host.sandbox.advance(_EC2_SECONDS)
