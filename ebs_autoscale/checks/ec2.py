"""Checks of EC2: identity, permissions, clock, attachment slots, quota, orphaned volumes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from ebs_autoscale.checks.filesystem import FilesystemSeen
from ebs_autoscale.checks.line import Line, Verdict, failed, hint_of
from ebs_autoscale.checks.permissions import NEED_A_VOLUME, rehearse, rehearse_with
from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.imds import Imds
from ebs_autoscale.ec2.role import InstanceRole
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.model import Inventory, RoleCredentials, Volume
from ebs_autoscale.policy import missing_device
from ebs_autoscale.units import counted, format_size
from ebs_autoscale.volumes import FAIL_FAST_CONFIG, Ec2Volumes

# An operator waits for `check`; the daemon is more patient.
IMDS_PATIENCE_SECONDS = 2.0
IMDS_DEADLINE_SECONDS = 4.0

# Sets DeleteOnTermination, without which a growth goes on with a warning.
_OPTIONAL_ACTION = "ModifyInstanceAttribute"

# After one of these every further call would fail in the same way, each after its own timeout.
_SAME_FOR_ALL = frozenset({Cause.EC2_UNREACHABLE, Cause.CREDENTIALS})

# Any UUID will do for the dry runs while the filesystem is not known.
_NO_FILESYSTEM = "00000000-0000-0000-0000-000000000000"

# EC2 refuses requests signed more than 5 minutes ago or ahead:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
# A clock that is off by a minute is not synchronised, and will drift that far.
_SKEW_REFUSED_SECONDS = 300.0
_SKEW_STRANGE_SECONDS = 60.0


class AwsDate:
    """The date in AWS's latest answer, and the time on this host's clock when it came."""

    def __init__(self, clock: Clock) -> None:
        self.date = ""
        self.wall_seconds = 0.0
        self._clock = clock

    def note(self, date: str) -> None:
        """Remember the Date header of an answer; an empty one says nothing."""
        if date:
            self.date, self.wall_seconds = date, self._clock.wall_seconds()

    def follow(self, cloud: Ec2Volumes) -> None:
        """Note the date of every answer of EC2."""

        def note(http_response: Any, **_: object) -> None:
            self.note(http_response.headers.get("date", ""))

        # This event comes for refusals, too: a dry run has no other answer.
        cloud.ec2.meta.events.register("after-call.ec2", note)


def lines(settings: Settings, seen: FilesystemSeen, clock: SystemClock) -> Iterator[Line]:
    """Every line about EC2, by calls that change nothing."""
    aws = AwsDate(clock)
    try:
        imds = Imds(clock, first_deadline_seconds=IMDS_DEADLINE_SECONDS, on_date=aws.note)
        identity = imds.identity(patience_seconds=IMDS_PATIENCE_SECONDS)
    except EbsAutoscaleError as error:
        yield failed("instance", error)
        yield from clock_lines(aws.date, aws.wall_seconds)
        return
    yield Line("instance", "ok", f"{identity.owner} ({identity.instance_type})")

    def fetch() -> RoleCredentials:
        return imds.credentials(patience_seconds=IMDS_PATIENCE_SECONDS)

    try:
        cloud = Ec2Volumes(
            identity,
            settings.volume,
            mountpoint=settings.mountpoint,
            clock=clock,
            config=FAIL_FAST_CONFIG,
            role=InstanceRole(clock, fetch, None),
        )
    except EbsAutoscaleError as error:
        yield failed("ec2", error)
        yield from clock_lines(aws.date, aws.wall_seconds)
        return
    aws.follow(cloud)
    is_hopeless = False
    for action, refusal in rehearse(cloud, seen.uuid or _NO_FILESYSTEM):
        yield _permission_line(action, refusal)
        is_hopeless = refusal is not None and refusal.cause in _SAME_FOR_ALL
        if is_hopeless:
            break
    yield from clock_lines(aws.date, aws.wall_seconds)
    if not is_hopeless:
        yield from _volume_lines(settings, seen, cloud)


def clock_lines(date: str, wall_seconds: float) -> Iterator[Line]:
    """The verdict on this host's clock by the Date header of an answer; none without a date."""
    try:
        skew_seconds = wall_seconds - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return
    direction = "ahead of EC2" if skew_seconds > 0 else "behind EC2"
    what = f"{abs(skew_seconds):.0f} s {direction}"
    hint = "synchronise the clock, for example by chrony with Amazon Time Sync (169.254.169.123)"
    if abs(skew_seconds) > _SKEW_REFUSED_SECONDS:
        yield Line("clock", "fail", f"{what}; EC2 rejects every request", hint)
    elif abs(skew_seconds) > _SKEW_STRANGE_SECONDS:
        limit = f"{_SKEW_REFUSED_SECONDS:.0f} s"
        yield Line("clock", "warn", f"{what}; EC2 rejects every request beyond {limit}", hint)
    else:
        yield Line("clock", "ok", f"within {_SKEW_STRANGE_SECONDS:.0f} s of EC2")


def _permission_line(action: str, refusal: EbsAutoscaleError | None) -> Line:
    if refusal is None:
        return Line("ec2", "ok", f"{action} allowed")
    verdict: Verdict = "warn" if action == _OPTIONAL_ACTION else "fail"
    return Line("ec2", verdict, f"{action}: {refusal.what}", hint_of(refusal))


def _volume_lines(settings: Settings, seen: FilesystemSeen, cloud: Ec2Volumes) -> Iterator[Line]:
    try:
        inventory = cloud.inventory(seen.uuid or _NO_FILESYSTEM)
        owned = cloud.owned()
        nodes = {volume.id: BlockDevices().node_of(volume) for volume in owned}
        predecessors = cloud.predecessors()
    except EbsAutoscaleError:
        # The dry runs have failed in the same way: the operator knows.
        return
    yield from _permission_lines(settings, inventory, cloud)
    yield _slots(inventory)
    yield quota_line(owned, settings.volume.type)
    mounted = {path.name for path in SYSFS.glob("*-*")}
    yield from orphan_lines(owned, nodes, seen, inventory.instance_id, mounted=mounted)
    if predecessors and not settings.adopt:
        names = ", ".join(volume.id for volume in predecessors)
        hint = "set `adopt: true` to manage them, or delete those that are not needed"
        yield Line("leftovers", "warn", f"created by an older autoscaler: {names}", hint)


def _permission_lines(
    settings: Settings, inventory: Inventory, cloud: Ec2Volumes
) -> Iterator[Line]:
    if not inventory.volumes:
        actions = ", ".join(NEED_A_VOLUME)
        yield Line("ec2", "ok", f"{actions}: not checked, there is no managed volume yet")
        return
    # With an attached volume a dry run tells the most.
    volume = max(inventory.volumes, key=lambda v: v.attached_to == inventory.instance_id)
    for action, refusal in rehearse_with(cloud, volume):
        if action != _OPTIONAL_ACTION or settings.volume.delete_on_termination:
            yield _permission_line(action, refusal)


def _slots(inventory: Inventory) -> Line:
    free = inventory.slots_free
    if free is None:
        hint = "set `limits.volumes` to the number that the instance type supports"
        return Line("slots", "warn", "EC2 reports no attachment limit for this instance type", hint)
    if free < 1:
        hint = "use a larger instance type or detach volumes that are not needed"
        return Line("slots", "fail", "no attachment slot is left", hint)
    managed = counted(len(inventory.volumes), "managed volume")
    return Line("slots", "ok", f"{counted(free, 'attachment slot')} left, {managed}")


def quota_line(owned: Sequence[Volume], volume_type: str) -> Line:
    """What this instance uses of the account's quota, which only CreateVolume itself checks."""
    size = format_size(sum(volume.size_bytes for volume in owned))
    what = f"{size} in {counted(len(owned), 'volume')} of this instance"
    where = f"see Service Quotas, Amazon EBS, for the account's quota of {volume_type} storage"
    return Line("quota", "ok", f"{what}; {where}")


def orphan_lines(
    owned: Sequence[Volume],
    nodes: Mapping[str, str],
    seen: FilesystemSeen,
    instance_id: str,
    *,
    mounted: Collection[str],
) -> Iterator[Line]:
    """Volumes of this instance that cost money and are in no mounted filesystem.

    `nodes` maps volume ids to kernel names; `mounted` are the UUIDs of all BTRFS filesystems
    mounted on this host.
    """
    ours = [volume for volume in owned if volume.growth.filesystem == seen.uuid]
    yield from _detached_lines(ours, seen)
    elsewhere = [v for v in ours if v.attached_to not in {"", instance_id}]
    if elsewhere:
        names = ", ".join(f"{volume.id} ({volume.attached_to})" for volume in elsewhere)
        hint = "detach them there, or remove their ebs-autoscale tags"
        yield Line("leftovers", "warn", f"attached to another instance: {names}", hint)
    here = [volume for volume in ours if volume.attached_to == instance_id]
    reading = seen.reading
    unused = [v for v in here if reading and not reading.has_device(nodes.get(v.id, ""))]
    if unused:
        names = ", ".join(f"{volume.id} ({volume.device_name})" for volume in unused)
        hint = "the next growth adds those that are blank; see `ebs-autoscale plan`"
        yield Line("leftovers", "warn", f"attached, but not in the filesystem: {names}", hint)
    for filesystem in sorted({v.growth.filesystem for v in owned} - {seen.uuid, *mounted}):
        names = ", ".join(v.id for v in owned if v.growth.filesystem == filesystem)
        what = f"volumes of filesystem {filesystem}, which is not mounted: {names}"
        hint = "mount it, or delete the volumes if their data is not needed"
        yield Line("leftovers", "warn", what, hint)


def _detached_lines(ours: Sequence[Volume], seen: FilesystemSeen) -> Iterator[Line]:
    detached = ", ".join(v.id for v in ours if v.state in {"available", "error"})
    if not detached:
        return
    if seen.reading is None or missing_device(seen.reading):
        what = f"not attached, possibly missing devices of the filesystem: {detached}"
        yield Line("leftovers", "warn", what, "attach them again; do not delete any of them")
    else:
        hint = "the next growth uses those that are blank; see `ebs-autoscale plan`"
        yield Line("leftovers", "warn", f"not attached: {detached}", hint)
