"""`check` on EC2: identity, clock, rights, slots, quota, and volumes that serve nobody."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from ebs_autoscale.checks.filesystem import Seen
from ebs_autoscale.checks.line import Line, Verdict, failed, hint_of
from ebs_autoscale.checks.permissions import NEED_A_VOLUME, rehearse, rehearse_with
from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.imds import Imds
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.model import Inventory, Volume
from ebs_autoscale.policy import missing_device
from ebs_autoscale.units import format_size
from ebs_autoscale.volumes import HASTY_CONFIG, Ec2Volumes

# `check` is run by a person who waits; the daemon is more patient.
IMDS_PATIENCE_SECONDS = 2.0

PROTECTION = "ModifyInstanceAttribute"

# After one of these every other call would be answered alike, each after its own wait.
_SAME_FOR_ALL = frozenset({Cause.EC2_UNREACHABLE, Cause.CREDENTIALS})

# Any UUID will do to rehearse with when the filesystem is not known yet.
_NO_FILESYSTEM = "00000000-0000-0000-0000-000000000000"

# EC2 refuses signatures that are older or younger than 5 minutes (AWS general reference,
# "Signature Version 4"). Whoever is a minute off has no time service and gets there.
_SKEW_REFUSED_SECONDS = 300.0
_SKEW_STRANGE_SECONDS = 60.0


class Ec2Date:
    """The date in EC2's last answer, and what this host's clock was then."""

    def __init__(self, cloud: Ec2Volumes, clock: Clock) -> None:
        self.date = ""
        self.wall_seconds = 0.0
        self._clock = clock
        # Emitted for refusals, too: a rehearsal has no other answers.
        cloud.ec2.meta.events.register("after-call.ec2", self._note)

    def _note(self, http_response: Any, **_: object) -> None:
        self.date = http_response.headers.get("date", "")
        self.wall_seconds = self._clock.wall_seconds()


def look(settings: Settings, seen: Seen, clock: SystemClock) -> Iterator[Line]:
    """Every line on EC2, by calls that change nothing."""
    imds = Imds(clock)
    try:
        identity = imds.identity(patience_seconds=IMDS_PATIENCE_SECONDS)
    except EbsAutoscaleError as error:
        yield failed("instance", error)
        yield from clock_lines(imds.date, clock.wall_seconds())
        return
    imds_wall_seconds = clock.wall_seconds()
    yield Line("instance", "ok", f"{identity.owner} ({identity.instance_type})")
    cloud = Ec2Volumes(
        identity,
        settings.volume,
        mountpoint=settings.mountpoint,
        clock=clock,
        config=HASTY_CONFIG,
    )
    answered = Ec2Date(cloud, clock)
    hopeless = False
    for action, refusal in rehearse(cloud, seen.filesystem or _NO_FILESYSTEM):
        yield _rehearsed(action, refusal)
        if refusal is not None and refusal.cause in _SAME_FOR_ALL:
            hopeless = True
            break
    if answered.date:
        yield from clock_lines(answered.date, answered.wall_seconds)
    else:
        yield from clock_lines(imds.date, imds_wall_seconds)
    if not hopeless:
        yield from _volumes(settings, seen, cloud)


def clock_lines(date: str, wall_seconds: float) -> Iterator[Line]:
    """The verdict on this host's clock by the Date header of an answer; none without a date."""
    try:
        skew_seconds = wall_seconds - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    way = "ahead of EC2" if skew_seconds > 0 else "behind EC2"
    what = f"{abs(skew_seconds):.0f} s {way}"
    hint = "set it and keep it right: chrony with server 169.254.169.123"
    if abs(skew_seconds) > _SKEW_REFUSED_SECONDS:
        yield Line("clock", "fail", f"{what}, which refuses every call", hint)
    elif abs(skew_seconds) > _SKEW_STRANGE_SECONDS:
        yield Line("clock", "warn", f"{what}, which refuses every call from 300 s on", hint)
    else:
        yield Line("clock", "ok", f"within {_SKEW_STRANGE_SECONDS:.0f} s of EC2")


def _rehearsed(action: str, refusal: EbsAutoscaleError | None) -> Line:
    if refusal is None:
        return Line("ec2", "ok", f"{action} allowed")
    # A growth does without DeleteOnTermination, and says so each time.
    verdict: Verdict = "warn" if action == PROTECTION else "fail"
    return Line("ec2", verdict, f"{action}: {refusal.what}", hint_of(refusal))


def _volumes(settings: Settings, seen: Seen, cloud: Ec2Volumes) -> Iterator[Line]:
    try:
        inventory = cloud.inventory(seen.filesystem or _NO_FILESYSTEM)
        owned = cloud.owned()
        nodes = {volume.id: BlockDevices().node_of(volume) for volume in owned}
        strangers = cloud.predecessors()
    except EbsAutoscaleError:
        # Told above, as rehearsed calls.
        return
    protects = settings.volume.delete_on_termination
    yield from _on_own_volume(cloud, inventory, protects=protects)
    yield _slots(inventory)
    yield quota_line(owned, settings.volume.type)
    mounted = {path.name for path in SYSFS.glob("*-*")}
    yield from leftover_lines(owned, nodes, seen, inventory.instance_id, mounted=mounted)
    if strangers and not settings.adopt:
        names = ", ".join(volume.id for volume in strangers)
        hint = "set `adopt: true` to make them ours, or delete what is not needed"
        yield Line("leftovers", "warn", f"of an older autoscaler: {names}", hint)


def _on_own_volume(cloud: Ec2Volumes, inventory: Inventory, *, protects: bool) -> Iterator[Line]:
    # One that is attached, if there is one: what EC2 says of it says the most.
    volumes = sorted(inventory.volumes, key=lambda v: v.attached_to != inventory.instance_id)
    if volumes:
        for action, refusal in rehearse_with(cloud, volumes[0]):
            if protects or action != PROTECTION:
                yield _rehearsed(action, refusal)
    else:
        actions = ", ".join(NEED_A_VOLUME)
        yield Line("ec2", "ok", f"{actions}: can be rehearsed once there is a volume of ours")


def _slots(inventory: Inventory) -> Line:
    free = inventory.slots_free
    if free is None:
        hint = "an attach will tell; `limits.volumes` can bound it"
        return Line("slots", "warn", "EC2 does not say how many volumes this type takes", hint)
    if free < 1:
        hint = "use a larger instance type or detach what is not needed"
        return Line("slots", "fail", "no attachment slot is left", hint)
    ours = len(inventory.volumes)
    return Line("slots", "ok", f"{free} attachment slots left, {ours} volumes of ours")


def quota_line(owned: Sequence[Volume], kind: str) -> Line:
    """What this instance has of the account's quota, which only a purchase can test."""
    size = format_size(sum(volume.size_bytes for volume in owned))
    what = f"{size} in {len(owned)} volumes of this instance; the quota of {kind} storage is"
    where = "the account's, in this Region: Service Quotas, Amazon EBS"
    return Line("quota", "ok", f"{what} {where}")


def leftover_lines(
    owned: Sequence[Volume],
    nodes: Mapping[str, str],
    seen: Seen,
    instance_id: str,
    *,
    mounted: Collection[str],
) -> Iterator[Line]:
    """Volumes of this instance that cost money without serving a filesystem.

    `mounted` are the UUIDs of the BTRFS filesystems mounted on this host.
    """
    ours = [volume for volume in owned if volume.growth.filesystem == seen.filesystem]
    loose = [v.id for v in ours if v.state in {"available", "error"}]
    if loose and (seen.reading is None or missing_device(seen.reading)):
        what = f"attached nowhere, perhaps devices that are missed: {', '.join(loose)}"
        yield Line("leftovers", "warn", what, "attach them again; delete none of them")
    elif loose:
        hint = "the next growth finishes those that can be; see `ebs-autoscale plan`"
        yield Line("leftovers", "warn", f"in no filesystem: {', '.join(loose)}", hint)
    elsewhere = [
        f"{v.id} ({v.attached_to})" for v in ours if v.attached_to not in {"", instance_id}
    ]
    if elsewhere:
        hint = "detach it there, or take its ebs-autoscale tags away"
        yield Line("leftovers", "warn", f"attached elsewhere: {', '.join(elsewhere)}", hint)
    if seen.reading is not None:
        idle = [
            v
            for v in ours
            if v.attached_to == instance_id and not seen.reading.has_device(nodes.get(v.id, ""))
        ]
        if idle:
            names = ", ".join(f"{volume.id} ({volume.device_name})" for volume in idle)
            hint = "the next growth adds those that are blank; see `ebs-autoscale plan`"
            yield Line("leftovers", "warn", f"attached, but no device: {names}", hint)
    for filesystem in sorted({v.growth.filesystem for v in owned} - {seen.filesystem, *mounted}):
        names = ", ".join(v.id for v in owned if v.growth.filesystem == filesystem)
        what = f"of filesystem {filesystem}, which is not mounted here: {names}"
        hint = "mount it; or delete the volumes when nobody needs what is on them"
        yield Line("leftovers", "warn", what, hint)
