"""EC2 in memory, with the promises and the delays of the real one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf

from ebs_autoscale.ec2.requests import DEVICE_NAMES
from ebs_autoscale.errors import Cause, NameTaken, Transient, Unfit
from ebs_autoscale.model import GIB, MIB, GrowthId, Inventory, Modification, Price, Volume
from tests.simulated.clock import Boundaries, SimulatedClock

INSTANCE = "i-0123456789abcdef0"
GONE = "gone"
"""The state of a volume that EC2 does not show any more."""

DAY_SECONDS = 24 * 3600.0

DEAD = frozenset({"deleting", "deleted", "error", GONE})


@dataclass(slots=True, kw_only=True)
class Ebs:
    """A volume as EC2 has it; what it shows follows from the times."""

    id: str
    growth: GrowthId
    size_bytes: int
    created_at: float
    dead_as: str = ""
    dead_from: float = 0.0
    attached_to: str = ""
    attached_at: float = inf
    detached_at: float = inf
    device_name: str = ""
    protected_at: float = inf
    blank: bool = True
    removed: bool = False
    foreign: str = ""
    modified_at: list[float] = field(default_factory=list)
    target_bytes: int = 0
    modification_fails: bool = False


@dataclass(slots=True, kw_only=True)
class Latencies:
    """How long EC2 takes, in seconds; infinite is stuck."""

    create: float = 1.5
    visible: float = 0.0
    attach: float = 2.0
    node: float = 2.3
    detach: float = 2.0
    mapping: float = 0.0
    modify: float = 3.0
    optimize: float = 600.0
    listed: float = 0.0


class SimulatedCloud:
    """EC2: one volume for each growth however often it is asked for, slow and late to show."""

    def __init__(self, clock: SimulatedClock, boundaries: Boundaries) -> None:
        self._clock = clock
        self._at = boundaries
        self._numbers = count(1)
        self.volumes: list[Ebs] = []
        self.latencies = Latencies()
        self.foreign_names: set[str] = {"/dev/xvda"}
        self.hidden_names: set[str] = set()
        self.hanging_names: set[str] = set()
        self.attachments_max = inf
        self.all_blank = True
        self.slots: int | None = 27
        self.quota_volumes = inf
        self.a_day = 4
        self.failing: set[str] = set()
        self.enlarged: list[tuple[str, int]] = []
        self.price = Price(usd_per_gib=0.08)

    def inventory(self, filesystem: str) -> Inventory:
        """What is visible of the filesystem's volumes."""
        with self._at.call("inventory"):
            shown = [v for v in self.volumes if v.growth.filesystem == filesystem and self._seen(v)]
            names = self.foreign_names | {v.device_name for v in self.volumes if v.attached_to}
            return Inventory(
                instance_id=INSTANCE,
                volumes=tuple(self._shown(volume) for volume in shown),
                device_names=frozenset(names),
                slots_free=None if self.slots is None else self.slots - len(names),
                price=self.price,
            )

    def owned(self) -> tuple[Volume, ...]:
        """What is visible of all filesystems."""
        with self._at.call("owned"):
            return tuple(self._shown(volume) for volume in self.volumes if self._seen(volume))

    def create(self, growth: GrowthId, size_bytes: int, inventory: Inventory) -> Volume:  # noqa: ARG002 -- as in Cloud
        """The living volume of the growth, else a new one."""
        with self._at.call("create"):
            same = [
                v
                for v in self.volumes
                if v.growth == growth and not v.foreign and self._shown(v).state not in DEAD
            ]
            if not same:
                if len(self.volumes) >= self.quota_volumes:
                    raise Unfit("create: VolumeLimitExceeded", cause=Cause.QUOTA)
                same.append(self.put(growth, size_bytes))
            return replace(self._shown(same[0]), age_seconds=None)

    def put(self, growth: GrowthId, size_bytes: int) -> Ebs:
        """Make a volume without asking anybody."""
        volume = Ebs(
            id=f"vol-{next(self._numbers):017x}",
            growth=growth,
            size_bytes=size_bytes,
            created_at=self._clock.now_seconds(),
            blank=self.all_blank,
        )
        self.volumes.append(volume)
        return volume

    def refresh(self, volume: Volume) -> Volume | None:
        """The volume as it is now; None while it is not visible."""
        with self._at.call("refresh"):
            found = [v for v in self.volumes if v.id == volume.id and self._seen(v)]
            return self._shown(found[0]) if found else None

    def attach(self, volume: Volume, device_name: str, inventory: Inventory) -> None:  # noqa: ARG002 -- as in Cloud
        """Begin to attach an available volume under a free name."""
        with self._at.call("attach"):
            ebs = self.find(volume.id)
            if self._shown(ebs).state != "available":
                raise Transient(f"attach {ebs.id}: IncorrectState", cause=Cause.STATE)
            if sum(bool(v.attached_to) for v in self.volumes) >= self.attachments_max:
                raise Unfit("attach: AttachmentLimitExceeded", cause=Cause.SLOTS)
            names = self.foreign_names | self.hidden_names | {v.device_name for v in self.volumes}
            if device_name in names or device_name not in DEVICE_NAMES:
                raise NameTaken(f"{device_name} is already in use", cause=Cause.NAME_TAKEN)
            ebs.attached_to, ebs.device_name = INSTANCE, device_name
            hangs = device_name in self.hanging_names
            ebs.attached_at = inf if hangs else self._clock.now_seconds()

    def enlarge(self, volume: Volume, size_bytes: int) -> Modification:
        """Begin to enlarge a volume that is not being modified, four times a day."""
        with self._at.call("enlarge"):
            ebs = self.find(volume.id)
            now = self._clock.now_seconds()
            if size_bytes < self.size_of(ebs):
                raise Unfit(f"enlarge {ebs.id}: smaller", cause=Cause.REQUEST)
            last = self._modification(ebs)
            if last and last.is_running:
                what = f"enlarge {ebs.id}: IncorrectModificationState"
                raise Transient(what, cause=Cause.MODIFICATIONS)
            if len([at for at in ebs.modified_at if now - at < DAY_SECONDS]) >= self.a_day:
                what = f"enlarge {ebs.id}: VolumeModificationRateExceeded"
                raise Transient(what, cause=Cause.MODIFICATIONS)
            ebs.size_bytes = self.size_of(ebs)
            ebs.target_bytes = size_bytes
            ebs.modification_fails = ebs.id in self.failing
            ebs.modified_at.append(now)
            self.enlarged.append((ebs.id, size_bytes))
            return self._changed(ebs)

    def with_modifications(self, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
        """The same volumes, each with its latest modification."""
        with self._at.call("with_modifications"):
            return tuple(
                replace(each, modification=self._modification(self.find(each.id)))
                for each in volumes
            )

    def size_of(self, ebs: Ebs) -> int:
        """Its size now, of which EC2 tells a little later."""
        last = self._modification(ebs)
        usable = last and last.state in {"optimizing", "completed"}
        return max(ebs.size_bytes, ebs.target_bytes) if usable else ebs.size_bytes

    def _modification(self, ebs: Ebs) -> Modification | None:
        return self._changed(ebs) if ebs.modified_at else None

    def _changed(self, ebs: Ebs) -> Modification:
        age = self._clock.now_seconds() - ebs.modified_at[-1]
        state = "modifying"
        if age >= self.latencies.modify:
            state = "failed" if ebs.modification_fails else "optimizing"
        if state == "optimizing" and age >= self.latencies.modify + self.latencies.optimize:
            state = "completed"
        return Modification(state=state, target_bytes=ebs.target_bytes, age_seconds=age)

    def _listed_size_of(self, ebs: Ebs) -> int:
        if not ebs.modified_at:
            return ebs.size_bytes
        age = self._clock.now_seconds() - ebs.modified_at[-1]
        is_listed = age >= self.latencies.modify + self.latencies.listed
        has_failed = self._changed(ebs).state == "failed"
        return ebs.target_bytes if is_listed and not has_failed else ebs.size_bytes

    def predecessors(self) -> tuple[Volume, ...]:
        """What the older script left."""
        with self._at.call("predecessors"):
            return tuple(self._shown(v) for v in self.volumes if not v.growth.filesystem)

    def claim(self, volume: Volume) -> None:
        """Tag it."""
        with self._at.call("claim"):
            self.find(volume.id).growth = volume.growth

    def detach(self, volume: Volume) -> None:
        """Begin to take back an attachment to us; nothing to do when there is none."""
        with self._at.call("detach"):
            ebs = self.find(volume.id)
            if ebs.attached_to:
                assert ebs.attached_to == INSTANCE
                ebs.detached_at = self._clock.now_seconds() + self.latencies.detach

    def delete(self, volume: Volume) -> None:
        """Delete a volume that nobody has."""
        with self._at.call("delete"):
            ebs = self.find(volume.id)
            if self._shown(ebs).state not in {"available", "error"}:
                raise Transient(f"delete {ebs.id}: IncorrectState", cause=Cause.STATE)
            self.volumes.remove(ebs)

    def set_delete_on_termination(self, volume: Volume) -> None:
        """Set it, once the mapping shows."""
        with self._at.call("set_delete_on_termination"):
            ebs = self.find(volume.id)
            if self._clock.now_seconds() < ebs.attached_at + self.latencies.mapping:
                raise Transient(f"no mapping of {ebs.id}", cause=Cause.MAPPING_NOT_VISIBLE)
            ebs.protected_at = min(ebs.protected_at, self._clock.now_seconds())

    def find(self, volume_id: str) -> Ebs:
        """A volume that exists, be it visible or not."""
        found = next(volume for volume in self.volumes if volume.id == volume_id)
        self._let_go(found)
        return found

    def _let_go(self, ebs: Ebs) -> None:
        if self._clock.now_seconds() >= ebs.detached_at:
            ebs.attached_to = ebs.device_name = ""
            ebs.attached_at = ebs.detached_at = ebs.protected_at = inf

    def _age(self, volume: Ebs) -> float:
        return self._clock.now_seconds() - volume.created_at

    def _seen(self, volume: Ebs) -> bool:
        is_gone = volume.dead_as == GONE and self._clock.now_seconds() >= volume.dead_from
        return self._age(volume) >= self.latencies.visible and not is_gone

    def _shown(self, volume: Ebs) -> Volume:
        self._let_go(volume)
        steady = "in-use" if volume.attached_to else "available"
        state = steady if self._age(volume) >= self.latencies.create else "creating"
        if volume.dead_as and self._clock.now_seconds() >= volume.dead_from:
            state = volume.dead_as
        attached = self._clock.now_seconds() >= volume.attached_at + self.latencies.attach
        arrival = "attached" if attached else "attaching"
        attachment = arrival if volume.detached_at == inf else "detaching"
        return Volume(
            id=volume.id,
            growth=volume.growth,
            size_bytes=self._listed_size_of(volume),
            state=state,
            attached_to=volume.attached_to,
            device_name=volume.device_name,
            attachment_state=attachment if volume.attached_to else "",
            delete_on_termination=volume.protected_at < inf,
            foreign=volume.foreign,
            usd_per_month=self._listed_size_of(volume) / GIB * 0.08,
            usd_per_gib=0.08,
            largest_bytes=65536 * GIB,
            bytes_per_second=125 * MIB,
            age_seconds=self._age(volume),
        )


def node_name(ebs: Ebs) -> str:
    """What the kernel calls the volume's node."""
    return f"nvme{int(ebs.id.removeprefix('vol-'), 16)}n1"
