"""Volumes in the account that look like ours and are not, and proof that nobody touched them."""

from ec2_sandbox.client import VolumeSeen

from tests.chaos.ground import wait
from tests.system.bench import Host

KINDS = ("restored", "restored newest", "copied", "removed", "another filesystem", "far", "plain")
"""With our tags: from a snapshot, with an old or the next ordinal; with the tags of a device; with
the ordinal of a device that was removed; of another filesystem; with an ordinal far above. And one
without tags. None of them is in a position to be the volume of the newest growth."""

_READS = ("Describe",)


class Meddler:
    """An operator of the same account, who restores, copies and forgets volumes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._made: dict[str, str] = {}
        self._then: dict[str, VolumeSeen] = {}

    @property
    def kinds(self) -> list[str]:
        """What there is so far."""
        return list(self._made.values())

    @property
    def ids(self) -> frozenset[str]:
        """The volumes of the operator."""
        return frozenset(self._made)

    def make(self, kind: str) -> None:
        """Create a volume of this kind."""
        ours = [v for v in self._host.volumes() if v.id not in self._made]
        tags = dict(ours[0].tags)
        newest = max(int(volume.tags["ebs-autoscale:growth"]) for volume in ours)
        match kind:
            case "restored newest":
                tags["ebs-autoscale:growth"] = str(newest + 1)
            case "removed":
                tags["ebs-autoscale:growth"] = str(max(0, newest - 1))
            case "another filesystem":
                tags["ebs-autoscale:filesystem"] = "00000000-0000-4000-8000-000000000000"
            case "far":
                tags["ebs-autoscale:growth"] = str(newest + 100_000)
            case "plain":
                tags = {"Name": "ebs-autoscale", "ebs-autoscale": "owner"}
        identity = self._host.sandbox.put_volume(
            1, tags=tags, content={} if "restored" in kind else None, VolumeType="gp3"
        )
        self._made[identity] = kind
        wait(lambda: self._seen()[identity].state == "available", seconds=20)
        self._then[identity] = self._seen()[identity]

    def _seen(self) -> dict[str, VolumeSeen]:
        return {volume.id: volume for volume in self._host.sandbox.state().volumes}

    def touched(self) -> list[str]:
        """What has changed, and each call that names one of them and does not only read."""
        now = self._seen()
        wrongs = [
            f"the {self._made[each]} volume {each} was changed: {then} is now {now.get(each)}"
            for each, then in self._then.items()
            if now.get(each) != then
        ]
        for call in self._host.sandbox.calls():
            if not call.action.startswith(_READS):
                named = [each for each in self._made if each in repr(call.params)]
                wrongs += [f"{call.action} of the {self._made[each]} volume" for each in named]
        return wrongs
