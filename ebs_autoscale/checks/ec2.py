"""Checks of EC2: identity, permissions, clock, attachment slots, quota, orphaned volumes."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from ebs_autoscale.checks.background import Answer
from ebs_autoscale.checks.filesystem import FilesystemSeen
from ebs_autoscale.checks.line import Line, Verdict, failed, hint_of
from ebs_autoscale.checks.permissions import (
    CREATE,
    ENLARGE,
    LOOK_AT_ENLARGING,
    OPTIONAL,
    TAG,
    Refusal,
    Rehearsal,
    actions_on_volumes,
    creating,
    describing,
    is_about_tags,
    may_enlarge,
    missing_policy,
    using,
)
from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.errors import Denied
from ebs_autoscale.ec2.imds import Imds
from ebs_autoscale.ec2.requests import VOLUME_TAGS_MAX
from ebs_autoscale.ec2.role import InstanceRole
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.filesystems.btrfs.sysfs import SYSFS
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.model import Inventory, Observation, RoleCredentials, Volume
from ebs_autoscale.policy import (
    GrowthMethod,
    GrowthPolicy,
    listed,
    may_be_device,
    missing_device,
    sole_volume_problem,
    unused_volumes,
    waiting,
)
from ebs_autoscale.units import counted, format_size
from ebs_autoscale.volumes import FAIL_FAST_CONFIG, Ec2Volumes

# An operator waits for `check`; the daemon is more patient.
IMDS_PATIENCE_SECONDS = 2.0
IMDS_DEADLINE_SECONDS = 4.0
PATIENCE_SECONDS = 8.0

T = TypeVar("T")

# Where all calls fail for one of these, one line says so.
_SAME_FOR_ALL = frozenset({Cause.EC2_UNREACHABLE, Cause.CREDENTIALS})

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
    """Every line about EC2, by calls that change nothing; none needs another one's answer."""
    until_seconds = clock.now_seconds() + PATIENCE_SECONDS
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
    look = Look(settings, seen, cloud, clock, until_seconds)
    if failure := look.common_failure:
        yield _permission_line("EC2", failure)
    else:
        yield from look.permission_lines()
    yield from clock_lines(aws.date, aws.wall_seconds)
    if not failure:
        yield from look.volume_lines()
        yield from look.policy_lines()


class Look:
    """What EC2 answers to calls that do not wait for each other, and the lines about it."""

    def __init__(
        self,
        settings: Settings,
        seen: FilesystemSeen,
        cloud: Ec2Volumes,
        clock: Clock,
        until_seconds: float,
    ) -> None:
        self._settings, self._seen, self._cloud = settings, seen, cloud
        self._clock, self._until_seconds = clock, until_seconds
        self._owned = self._ask(cloud.owned)
        self._instance = self._ask(cloud.instance)
        self._predecessors = self._ask(cloud.predecessors)
        # Where no device can be added, no volume is created and none is attached.
        self._adds, self._enlarges = seen.kind.takes_devices, may_enlarge(settings)
        self._described = self._ask_all(describing(cloud, enlarges=self._enlarges))
        self._refusals: dict[str, Refusal] = {}

    def _ask(self, call: Callable[[], T]) -> Answer[T]:
        return Answer(call, self._clock, self._until_seconds)

    def _ask_all(self, rehearsals: Mapping[str, Rehearsal]) -> dict[str, Answer[Refusal]]:
        return {action: self._ask(rehearsal) for action, rehearsal in rehearsals.items()}

    @property
    def common_failure(self) -> Refusal:
        """Why every call failed, if EC2 cannot be asked anything."""
        results = [answer.result for answer in self._described.values()]
        causes = {error.cause if error else None for error in results}
        return results[0] if len(causes) == 1 and causes <= _SAME_FOR_ALL else None

    def permission_lines(self) -> Iterator[Line]:
        """One line for each call of a growth, whichever of them are refused."""
        for action, answer in self._described.items():
            yield self._permission_line(action, answer.result)
        if self._adds:
            yield from self._creation_lines()
        yield from self._use_lines()

    def _permission_line(self, action: str, refusal: Refusal) -> Line:
        is_optional = self._adds and self._settings.policy.sizing.method is GrowthMethod.AUTO
        if action in {ENLARGE, LOOK_AT_ENLARGING} and is_optional and isinstance(refusal, Denied):
            what = f"{action}: not allowed, so no volume is enlarged where no other can be added"
            return Line("ec2", "ok", f"{what} (`ebs-autoscale iam-policy --enlarge` allows it)")
        self._refusals[action] = refusal
        return _permission_line(action, refusal)

    def _creation_lines(self) -> Iterator[Line]:
        """Whether the largest configured volume may be created; one call is about both actions."""
        instance = self._instance.result
        known = None if isinstance(instance, EbsAutoscaleError) else instance
        rehearsal = creating(self._cloud, self._settings, self._seen.uuid, instance=known)
        refusal = self._ask(rehearsal).result
        if refusal is None or is_about_tags(refusal):
            yield self._permission_line(CREATE, None)
            yield self._permission_line(TAG, refusal)
        else:
            yield self._permission_line(CREATE, refusal)
            yield Line("ec2", "ok", f"{TAG}: not checked, EC2 refuses {CREATE} before it")

    def _use_lines(self) -> Iterator[Line]:
        owned = self._owned.result
        wanted = {"enlarges": self._enlarges, "adds": self._adds}
        actions = actions_on_volumes(self._settings.volume, **wanted)
        if isinstance(owned, EbsAutoscaleError):
            for action in actions:
                what = f"{action}: not checked, the managed volumes are not known"
                yield Line("ec2", "warn", what, hint_of(owned))
        elif not owned:
            for action in actions:
                yield Line("ec2", "ok", f"{action}: not checked, there is no managed volume yet")
        else:
            answers = self._ask_all(using(self._cloud, owned, **wanted))
            yield from (self._permission_line(each, answers[each].result) for each in actions)

    def policy_lines(self) -> Iterator[Line]:
        """What the denied calls need, as a policy to paste; nothing when that would not help."""
        if policy := missing_policy(self._refusals, self._settings):
            names = [statement["Sid"] for statement in policy["Statement"]]
            what = f"the denied calls need {counted(len(names), 'statement')}: {', '.join(names)}"
            hint = (
                "add this policy to the instance's role; where it has a statement of the same Sid, "
                "replace that"
            )
            yield Line("policy", "warn", what, hint, policy)

    def volume_lines(self) -> Iterator[Line]:
        """Slots, tags, quota, and volumes that are in no filesystem."""
        owned, instance = self._owned.result, self._instance.result
        kind = self._settings.volume.type
        managed = None if isinstance(owned, EbsAutoscaleError) else self._managed(owned)
        if self._adds:
            yield _slots_line(instance, managed)
        yield from self._tag_lines(instance)
        if isinstance(owned, EbsAutoscaleError):
            yield _unknown("quota", f"the {kind} storage of this instance is not known", owned)
            yield _unknown("leftovers", "orphaned volumes are not known", owned)
        else:
            yield quota_line(owned, kind)
            instance_id = self._cloud.identity.instance_id
            here = [volume for volume in owned if volume.attached_to == instance_id]
            nodes = {volume.id: BlockDevices().node_of(volume) for volume in here}
            mounted = _mounted_filesystems()
            policy = self._settings.policy
            yield from orphan_lines(
                owned, nodes, self._seen, instance_id, mounted=mounted, policy=policy
            )
        yield from self._predecessor_lines()

    def _managed(self, owned: Sequence[Volume]) -> int:
        return sum(volume.growth.filesystem == self._seen.uuid for volume in owned)

    def _tag_lines(self, instance: Inventory | EbsAutoscaleError) -> Iterator[Line]:
        if not self._settings.volume.copy_instance_tags:
            return
        if isinstance(instance, EbsAutoscaleError):
            yield _unknown("tags", "the tags of this instance are not known", instance)
        else:
            requests = self._cloud.requests
            copied = requests.copied_tags(instance.instance_tags)
            yield tags_line(copied, requests.omitted_tags(instance.instance_tags))

    def _predecessor_lines(self) -> Iterator[Line]:
        found = self._predecessors.result
        if isinstance(found, EbsAutoscaleError):
            yield _unknown("leftovers", "volumes of the older script are not known", found)
        elif found and not self._settings.adopt:
            names = ", ".join(volume.id for volume in found)
            hint = "set `adopt: true` to manage them, or delete those that are not needed"
            yield Line("leftovers", "warn", f"created by the older script: {names}", hint)


def _mounted_filesystems() -> set[str]:
    """The UUIDs of mounted filesystems; those other than BTRFS as far as udev knows them."""
    found = {path.name for path in SYSFS.glob("*-*")}
    devices = {mount.device for mount in MountTable().mounts()}
    for link in Path("/dev/disk/by-uuid").glob("*-*"):
        with suppress(OSError):
            number = link.stat().st_rdev
            if f"{os.major(number)}:{os.minor(number)}" in devices:
                found.add(link.name)
    return found


def _unknown(name: str, what: str, error: EbsAutoscaleError) -> Line:
    """The line of something that could not be found out."""
    return Line(name, "warn", f"{what}: {error.what}", hint_of(error))


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


def _permission_line(action: str, refusal: Refusal) -> Line:
    if refusal is None:
        return Line("ec2", "ok", f"{action} allowed")
    verdict: Verdict = "warn" if action == OPTIONAL else "fail"
    return Line("ec2", verdict, f"{action}: {refusal.what}", hint_of(refusal))


def _slots_line(instance: Inventory | EbsAutoscaleError, managed: int | None) -> Line:
    if isinstance(instance, EbsAutoscaleError):
        return _unknown("slots", "free attachment slots are not known", instance)
    return slots_line(instance.slots_free, managed)


def slots_line(free: int | None, managed: int | None) -> Line:
    """How many more volumes can be attached, and how many are, where that is known."""
    if free is None:
        hint = "set `limits.volumes` to the number that the instance type supports"
        return Line("slots", "warn", "EC2 reports no attachment limit for this instance type", hint)
    if free < 1:
        hint = "use a larger instance type or detach volumes that are not needed"
        return Line("slots", "fail", "no attachment slot is left", hint)
    volumes = "" if managed is None else f", {counted(managed, 'managed volume')}"
    return Line("slots", "ok", f"{counted(free, 'attachment slot')} left{volumes}")


def tags_line(copied: Collection[str], omitted: Sequence[str]) -> Line:
    """Which tags of the instance a volume will have."""
    what = f"{counted(len(copied), 'instance tag')} will be copied to each volume"
    if not omitted:
        return Line("tags", "ok", what)
    left_out = f"{len(omitted)} will not: {', '.join(omitted)}"
    most = counted(VOLUME_TAGS_MAX, "tag")
    hint = f"a volume has at most {most}: set those that matter in volume.tags"
    return Line("tags", "warn", f"{what}, {left_out}", hint)


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
    policy: GrowthPolicy,
) -> Iterator[Line]:
    """Volumes of this instance that cost money and are in no mounted filesystem.

    Also what keeps the one device of a filesystem from being enlarged. `nodes` maps volume ids to
    kernel names; `mounted` are the UUIDs of all filesystems mounted on this host.
    """
    ours = tuple(volume for volume in owned if volume.growth.filesystem == seen.uuid)
    if seen.reading is None or missing_device(seen.reading):
        yield from _possibly_missing(ours)
    else:
        inventory = Inventory(
            instance_id=instance_id, volumes=ours, device_names=frozenset(), slots_free=None
        )
        found = {volume_id: node for volume_id, node in nodes.items() if node}
        observed = Observation(reading=seen.reading, inventory=inventory, nodes=found)
        if problem := sole_volume_problem(observed, policy):
            verdict: Verdict = "fail" if problem.cause is Cause.METHOD else "warn"
            yield Line("volume", verdict, problem.sentence, problem.hint)
        yield from _leftovers(observed)
    for filesystem in sorted({v.growth.filesystem for v in owned} - {seen.uuid, *mounted}):
        names = listed([v for v in owned if v.growth.filesystem == filesystem], instance_id)
        what = f"volumes of filesystem {filesystem}, which is not mounted: {names}"
        hint = (
            "mount it, or run `init` again if that was interrupted; if their data is not needed, "
            "delete the volumes"
        )
        yield Line("leftovers", "warn", what, hint)


def _leftovers(seen: Observation) -> Iterator[Line]:
    if waits := waiting(seen):
        names = listed([waits], seen.inventory.instance_id)
        hint = "the next growth adds it if it is blank; see `ebs-autoscale plan`"
        yield Line("leftovers", "warn", f"waiting to be added: {names}", hint)
    if problem := unused_volumes(seen):
        yield Line("leftovers", "warn", problem.sentence, problem.hint)
    for volume in seen.inventory.volumes:
        if may_be_device(volume, seen) and not seen.is_device(volume):
            what = f"{volume.id} is attached as {volume.device_name}: no such block device"
            hint = "see `lsblk`, and `dmesg` for NVMe errors; do not delete it"
            yield Line("leftovers", "warn", what, hint)


def _possibly_missing(ours: Sequence[Volume]) -> Iterator[Line]:
    detached = ", ".join(v.id for v in ours if v.state in {"available", "error"})
    if detached:
        what = f"not attached, possibly missing devices of the filesystem: {detached}"
        yield Line("leftovers", "warn", what, "attach them again; do not delete any of them")
