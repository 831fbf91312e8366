"""What the policy does for a steady writer: when it grows, and by how much. Pure."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil, inf

from ebs_autoscale.ec2.volume_types import (
    largest_gib,
    price_of,
    sustained_bytes_per_second,
    usd_per_month,
)
from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.model import (
    GIB,
    Decision,
    Device,
    Enlarge,
    FilesystemKind,
    Grow,
    GrowthId,
    Hold,
    Inventory,
    Modification,
    Observation,
    Reading,
    Refuse,
    Volume,
    VolumeSpec,
)
from ebs_autoscale.policy import (
    COMPLETION_SECONDS,
    DAY_SECONDS,
    GROWTH_SECONDS_PRIOR,
    MODIFICATIONS_PER_DAY,
    NOTHING_TRIED,
    Forecast,
    GrowthPolicy,
    decide,
    without,
)
from ebs_autoscale.simulation.room import Room, room_of
from ebs_autoscale.simulation.scenario import Scenario

# No instance takes more volumes, the root volume included:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/volume_limits.html
ATTACHMENTS_MAX = 128

# The day's modifications are looked at again this often.
_RETRY_SECONDS = 300.0

# With less, nothing fits.
_FULL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A volume that was created; `total_bytes` is the size of the filesystem with it.

    Or what was added to the device at the index `enlarges`.
    `bytes_per_second` is what was written when it was created, `usd_per_month` what all volumes
    created so far cost.
    """

    at_seconds: float
    size_bytes: int
    total_bytes: int
    bytes_per_second: float
    usd_per_month: float
    reason: str
    added_usd_per_month: float
    enlarges: int | None = None


@dataclass(slots=True, kw_only=True)
class Course:
    """What happened; `full_at_seconds` is when the writer got ENOSPC, None if it never did.

    `rates` are the rates of writing, each with the second from which on it was true.
    """

    created: list[Created] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)
    written_bytes: float = 0.0
    refused: Refuse | None = None
    refused_at_seconds: float = 0.0
    full_at_seconds: float | None = None

    def sizes_bytes(self, start: Reading) -> list[int]:
        """The size of each volume, those from the start first, with all that was added to it."""
        sizes = [each.size_bytes for each in start.devices]
        for each in self.created:
            if each.enlarges is None:
                sizes.append(each.size_bytes)
            else:
                sizes[each.enlarges] += each.size_bytes
        return sizes


def empty(size_bytes: int, kind: FilesystemKind = FilesystemKind.BTRFS) -> Reading:
    """An empty filesystem of this size."""
    device = Device(devid=1, name="nvme0n1", size_bytes=size_bytes, unallocated_bytes=size_bytes)
    return Reading(
        filesystem="0" * 8,
        mountpoint="/",
        taken_at_seconds=0.0,
        size_bytes=size_bytes,
        available_bytes=size_bytes,
        used_bytes=0,
        statvfs_available_bytes=size_bytes,
        metadata_headroom_bytes=size_bytes if kind.takes_devices else None,
        metadata_profile="single" if kind.takes_devices else "",
        kind=kind,
        devices=(device,),
    )


def simulate(
    scenario: Scenario, start: Reading, policy: GrowthPolicy, volume: VolumeSpec
) -> Course:
    """Let the writer write to the end or to ENOSPC, as fast as the devices take it.

    Each growth takes the usual time. All devices are taken to be volumes like `volume`, of no burst
    and without a page cache: they end within minutes. EC2 is not asked, so that the only volume
    known from the start is that of an empty filesystem or of one device, and the instance is the
    largest one.
    """
    simulation = _Simulation(scenario, start, policy, volume)
    while simulation.goes_on:
        simulation.advance()
    return simulation.course


class _Simulation:
    """The filesystem at one moment. Between two events nothing changes but how full it is."""

    def __init__(
        self, scenario: Scenario, start: Reading, policy: GrowthPolicy, volume: VolumeSpec
    ) -> None:
        self._scenario, self._start, self._policy, self._volume = scenario, start, policy, volume
        self.course = Course()
        self._now = 0.0
        self._adding: Created | None = None
        self._refused_until = 0.0
        rates = [sustained_bytes_per_second(volume, each.size_bytes) for each in start.devices]
        self._room = room_of(start, rates)

    @property
    def goes_on(self) -> bool:
        return self.course.full_at_seconds is None and self._now < self._scenario.seconds

    @property
    def _rate(self) -> float:
        return min(self._scenario.rate_bytes_per_second, self._room.bytes_per_second)

    def advance(self) -> None:
        """Go to the next event, or to the next decision if that is earlier."""
        if not self.course.rates or self.course.rates[-1][1] != self._rate:
            self.course.rates.append((self._now, self._rate))
        event_at = self._next_event_at()
        if self._adding is None and self._now >= self._refused_until:
            seconds = range(ceil(event_at - self._now))
            later = bisect_left(
                seconds, x=True, key=lambda s: not isinstance(self._decide(s), Hold)
            )
            if later < len(seconds):
                self._go_to(self._now + later)
                self._act(self._decide())
                return
        self._go_to(event_at)
        if self._room.available_bytes < _FULL_BYTES:
            self.course.full_at_seconds = self._now
        elif self._adding and self._now >= self._adding.at_seconds + GROWTH_SECONDS_PRIOR:
            self._take_into_service(self._adding)
            self._adding = None

    def _take_into_service(self, added: Created) -> None:
        index = len(self._room.devices) if added.enlarges is None else added.enlarges
        rate = sustained_bytes_per_second(self._volume, self.course.sizes_bytes(self._start)[index])
        if added.enlarges is None:
            self._room = self._room.with_device(added.size_bytes, rate)
        else:
            self._room = self._room.enlarged(index, added.size_bytes, rate)

    def _next_event_at(self) -> float:
        events = [
            self._scenario.seconds,
            self._now + self._room.available_bytes / self._rate,
            # No sooner, or time could stand still.
            self._now + max(1.0, self._room.bytes_until_more / self._rate),
        ]
        if self._adding:
            events.append(self._adding.at_seconds + GROWTH_SECONDS_PRIOR)
        if self._refused_until > self._now:
            events.append(self._refused_until)
        return min(events)

    def _go_to(self, at_seconds: float) -> None:
        written_bytes = self._rate * (at_seconds - self._now)
        self.course.written_bytes += written_bytes
        self._room = self._room.after(written_bytes)
        self._now = at_seconds

    def _decide(self, later_seconds: float = 0.0) -> Decision:
        rate, devices = self._rate, self._room.devices
        forecast = Forecast(
            fill_bytes_per_second=rate,
            sustained_bytes_per_second=rate,
            devices_bytes_per_second=sum(each.bytes_per_second for each in devices),
        )
        seen = self._seen(later_seconds)
        tried = NOTHING_TRIED
        for volume in seen.inventory.volumes:
            since = self._now + later_seconds - DAY_SECONDS
            if len([at for at in self._modified_at(volume) if at > since]) >= MODIFICATIONS_PER_DAY:
                what = f"{volume.id} was modified four times within a day"
                tried = without([volume], Problem(Cause.MODIFICATIONS, what), tried)
        return decide(seen, self._policy, forecast=forecast, tried=tried)

    def _modified_at(self, volume: Volume) -> list[float]:
        created = self.course.created
        index = self._index_of(volume)
        return [each.at_seconds for each in created if each.enlarges == index]

    def _index_of(self, volume: Volume) -> int:
        """Which device it is: the volumes that are known are the last ones."""
        return volume.growth.ordinal + len(self._start.devices) - 1

    def _act(self, decision: Decision) -> None:
        created = self.course.created
        match decision:
            case (
                Grow(size_bytes=size_bytes, reason=reason)
                | Enlarge(size_bytes=size_bytes, reason=reason)
            ):
                usd = created[-1].usd_per_month if created else 0.0
                enlarged = decision.volume if isinstance(decision, Enlarge) else None
                added_usd = self._usd_of(size_bytes, is_new=enlarged is None)
                total_bytes = created[-1].total_bytes if created else self._start.size_bytes
                self._adding = Created(
                    at_seconds=self._now,
                    size_bytes=size_bytes,
                    total_bytes=total_bytes + size_bytes,
                    bytes_per_second=self._rate,
                    usd_per_month=usd + added_usd,
                    added_usd_per_month=added_usd,
                    reason=reason,
                    enlarges=self._index_of(enlarged) if enlarged else None,
                )
                created.append(self._adding)
            case Refuse() as refusal:
                earlier = self.course.refused
                if earlier is None or earlier.limit is Cause.MODIFICATIONS != refusal.limit:
                    self.course.refused, self.course.refused_at_seconds = refusal, self._now
                # What any other limit refuses it refuses for good.
                self._refused_until = inf
                if refusal.limit is Cause.LIMIT_COOLDOWN:
                    cooldown = self._policy.limits.cooldown_seconds
                    self._refused_until = (created[-1].at_seconds if created else 0.0) + cooldown
                if refusal.limit is Cause.MODIFICATIONS:
                    self._refused_until = self._now + _RETRY_SECONDS

    def _usd_of(self, size_bytes: int, *, is_new: bool) -> float:
        if is_new:
            return usd_per_month(self._volume, size_bytes)
        return price_of(self._volume).usd_per_gib * size_bytes / GIB

    def _seen(self, later_seconds: float) -> Observation:
        room, now = self._room.after(self._rate * later_seconds), self._now + later_seconds
        reading = self._reading(room, now)
        volumes = tuple(self._volumes(now))
        inventory = Inventory(
            instance_id="",
            volumes=volumes,
            device_names=frozenset(),
            slots_free=ATTACHMENTS_MAX - 1 - len(reading.devices),
            # In the reasons only where they matter: the table has a column for them.
            price=price_of(self._volume) if self._policy.limits.monthly_usd else None,
        )
        nodes = {
            volume.id: device.name
            for volume, device in zip(reversed(volumes), reversed(reading.devices), strict=False)
        }
        return Observation(reading=reading, inventory=inventory, nodes=nodes)

    def _reading(self, room: Room, now: float) -> Reading:
        start, added = self._start, self.course.created
        added_bytes = sum(created.size_bytes for created in added)
        sizes = self.course.sizes_bytes(self._start)
        written_bytes = int(start.available_bytes + added_bytes - room.available_bytes)
        available_bytes = int(room.available_bytes)
        headroom = start.metadata_headroom_bytes
        return replace(
            start,
            taken_at_seconds=now,
            size_bytes=start.size_bytes + added_bytes,
            available_bytes=available_bytes,
            used_bytes=start.used_bytes + written_bytes,
            statvfs_available_bytes=available_bytes,
            metadata_headroom_bytes=None if headroom is None else headroom + added_bytes,
            inodes=None,
            devices=tuple(
                Device(
                    devid=devid,
                    name=f"simulated{devid}",
                    size_bytes=size_bytes,
                    capacity_bytes=size_bytes,
                    unallocated_bytes=int(device.unallocated_bytes),
                )
                for devid, (size_bytes, device) in enumerate(
                    zip(sizes, room.devices, strict=True), start=1
                )
            ),
        )

    def _volumes(self, now: float) -> Iterator[Volume]:
        """Those that are known: what was created, and the first one where it is certainly ours."""
        is_known = not self._start.used_bytes or not self._start.kind.takes_devices
        first = [0.0] if is_known else []
        created = [each.at_seconds for each in self.course.created if each.enlarges is None]
        sizes = self.course.sizes_bytes(self._start)
        for ordinal, at_seconds in enumerate(first + created, start=1 - len(first)):
            growth = GrowthId(self._start.filesystem, ordinal)
            size_bytes = sizes[ordinal + len(self._start.devices) - 1]
            volume = Volume(
                id=f"vol-{ordinal}",
                growth=growth,
                size_bytes=size_bytes,
                state="in-use",
                usd_per_month=usd_per_month(self._volume, size_bytes),
                usd_per_gib=price_of(self._volume).usd_per_gib,
                largest_bytes=largest_gib(self._volume.type) * GIB,
                age_seconds=now - at_seconds if ordinal else None,
            )
            modified_at = self._modified_at(volume)
            if modified_at:
                age_seconds = now - modified_at[-1]
                state = "optimizing" if age_seconds < COMPLETION_SECONDS else "completed"
                change = Modification(state=state, target_bytes=size_bytes, age_seconds=age_seconds)
                volume = replace(volume, modification=change)
            yield volume
