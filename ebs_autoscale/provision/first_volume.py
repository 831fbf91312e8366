"""The first volume of a filesystem that does not exist yet: created as growth 0."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from uuid import UUID, uuid4, uuid5

from ebs_autoscale.errors import Cause, Refused, Transient, Unfit
from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    AttachVolume,
    CreateVolume,
    Finish,
    Grow,
    GrowthId,
    Observation,
    Reading,
    Rebalance,
    Refuse,
    Volume,
)
from ebs_autoscale.policy import Forecast, GrowthMethod, GrowthPolicy, decide, describe, priced
from ebs_autoscale.resize import Attached, World, carry_out
from ebs_autoscale.telemetry import Event, EventKind

# Drawn once at random and never changed: filesystems of earlier versions have such UUIDs.
_NAMESPACE = UUID("b2a1d9b4-3c5e-4f0e-9a57-6f2f0f3c8e11")

FIRST = 0
"""The ordinal of the first volume; growths count from 1."""


def choose_uuid(
    known: Iterable[str], volumes: Iterable[Volume], *, owner: str, mountpoint: str
) -> str:
    """The UUID for a filesystem here, before anything of it exists (law 4).

    One that was begun keeps the UUID that its first volume has, or else one that is `known` from
    its line in fstab or from an interrupted run. Any other gets one that no filesystem had before:
    EC2 remembers the client tokens of an earlier one, the kernel its devices, and later volumes of
    it may be left.
    """
    begun = [
        volume.growth.filesystem
        for volume in begun_here(volumes, owner, mountpoint)
        if volume.growth.ordinal == FIRST
    ]
    ours = (uuid for uuid in (*begun, *known) if _is_ours(uuid, owner, mountpoint))
    return next(ours, None) or new_uuid(owner, mountpoint)


def begun_here(volumes: Iterable[Volume], owner: str, mountpoint: str) -> list[Volume]:
    """The volumes of filesystems that this instance's `init` began on this mountpoint."""
    return [
        volume
        for volume in volumes
        if volume.state not in DEAD_VOLUME_STATES
        and not volume.foreign
        and _is_ours(volume.growth.filesystem, owner, mountpoint)
    ]


def _is_ours(uuid: str, *parts: str) -> bool:
    """Whether `init` made this UUID of these parts; earlier versions made it of nothing else."""
    return is_made_of(uuid, *parts) or uuid == str(uuid5(_NAMESPACE, "\n".join(parts)))


def new_uuid(*parts: str) -> str:
    """A UUID that no other filesystem has, and that `is_made_of` recognises after a crash."""
    return _marked(uuid4().bytes[:8], parts)


def is_made_of(uuid: str, *parts: str) -> bool:
    """Whether `new_uuid` made it of the same parts; any text may be asked about."""
    try:
        chosen = UUID(uuid).bytes[:8]
    except ValueError:
        return False
    return _marked(chosen, parts) == uuid


def _marked(chosen: bytes, parts: tuple[str, ...]) -> str:
    """Half of it is chosen at random, the other half is a hash of that and the parts."""
    mark = hashlib.sha256(chosen + "\n".join(parts).encode(errors="surrogateescape")).digest()
    return str(UUID(bytes=chosen + mark[:8], version=4))


class NoFilesystem:
    """A filesystem that has a UUID but does not exist yet: no devices, nothing can be changed."""

    def __init__(self, uuid: str, mountpoint: str) -> None:
        self.uuid = uuid
        self._mountpoint = mountpoint

    def read(self) -> Reading:
        """An empty reading."""
        return Reading(
            filesystem=self.uuid,
            mountpoint=self._mountpoint,
            taken_at_seconds=0.0,
            size_bytes=0,
            available_bytes=0,
            used_bytes=0,
            statvfs_available_bytes=0,
            metadata_headroom_bytes=0,
            metadata_profile="",
            devices=(),
        )

    def add_device(self, name: str, *, verified: object, tell: object) -> None:  # noqa: ARG002 -- as in Filesystem
        """Raises Unfit."""
        what = f"cannot add {name}: there is no filesystem on {self._mountpoint} yet"
        raise Unfit(what, cause=Cause.MKFS)

    def resize_device(self, name: str, *, tell: object) -> None:
        """There are no devices."""

    def require_growable(self) -> None:
        """`init` has required what growing it takes."""

    def verify_devices(self, volumes: Mapping[str, str]) -> None:
        """There are no devices."""

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:  # noqa: ARG002 -- the port's
        """There is no metadata to balance."""
        return False

    def balance_metadata(self, mode: Rebalance, *, stopping: object, tell: object) -> str:  # noqa: ARG002 -- as in Filesystem
        """Does nothing."""
        return "no metadata to balance"

    def keep_reserve(self, data_bytes: int) -> str:  # noqa: ARG002 -- as in Filesystem
        """Does nothing."""
        return ""


def obtain(
    world: World,
    policy: GrowthPolicy,
    size_bytes: int,
    *,
    before_create: Callable[[], None] = lambda: None,
) -> Attached:
    """The filesystem's first volume, attached: that of an earlier run, else a new one.

    It is created by the steps of a growth and within the same limits, after `before_create`.
    Raises Refused, Unfit, Transient or Stopped.
    """
    reading = world.filesystem.read()
    inventory = world.cloud.inventory(reading.filesystem)
    # Volumes of later growths are for the daemon, once the filesystem is mounted.
    first = tuple(volume for volume in inventory.volumes if volume.growth.ordinal == FIRST)
    inventory = replace(inventory, volumes=first)
    seen = Observation(reading=reading, inventory=inventory)
    # There is nothing yet that could be enlarged.
    policy = replace(policy, sizing=replace(policy.sizing, method=GrowthMethod.ADD))
    decision = decide(seen, policy, forecast=Forecast(), wanted_bytes=size_bytes)
    match decision:
        case Refuse():
            raise Refused(describe(decision), hint=decision.hint, cause=decision.limit)
        case Finish(volume_id=volume_id):
            begun = next(volume for volume in inventory.volumes if volume.id == volume_id)
            return carry_out((AttachVolume(growth=begun.growth),), begun, seen, world)
        case Grow(size_bytes=granted_bytes):
            before_create()
            words = priced(granted_bytes, inventory.price)
            sentence = f"the first volume of {reading.mountpoint} will have {words}"
            world.emit(Event(kind=EventKind.TENDED, sentence=sentence))
            growth = GrowthId(reading.filesystem, FIRST)
            create = CreateVolume(growth=growth, size_bytes=granted_bytes)
            return carry_out((create, AttachVolume(growth=growth)), None, seen, world)
    what = f"no volume for {reading.mountpoint}: {decision.reason}"
    raise Transient(what, cause=Cause.ATTACH)
