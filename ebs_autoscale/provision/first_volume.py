"""The first volume of a filesystem that does not exist yet: bought as growth 0."""

from uuid import UUID, uuid5

from ebs_autoscale.errors import Cause, Refused, Transient, Unfit
from ebs_autoscale.model import (
    AttachVolume,
    CreateVolume,
    Finish,
    Grow,
    GrowthId,
    Observation,
    Reading,
    Rebalance,
    Refuse,
    Step,
)
from ebs_autoscale.policy import Forecast, GrowthPolicy, decide
from ebs_autoscale.resize import Attached, World, carry_out

# Drawn once at random, to be kept for ever: a filesystem's name must not change between two
# runs of `init`.
_FILESYSTEMS = UUID("b2a1d9b4-3c5e-4f0e-9a57-6f2f0f3c8e11")

FIRST = 0
"""The ordinal of the volume that a filesystem begins with; growths count from 1."""


def name_of_filesystem(*parts: str) -> str:
    """The UUID that a filesystem will have, known before anything of it exists (law 4)."""
    return str(uuid5(_FILESYSTEMS, "\n".join(parts)))


class NoFilesystem:
    """A filesystem that is named but not made: it has no devices, and nothing can be done to it."""

    def __init__(self, uuid: str, mountpoint: str) -> None:
        self.uuid = uuid
        self._mountpoint = mountpoint

    def read(self) -> Reading:
        """Nothing there."""
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

    def add_device(self, name: str, *, verified: object, tell: object) -> None:  # noqa: ARG002
        """No device can be added."""
        raise Unfit(f"{self._mountpoint} is not made yet: {name} cannot be added", cause=Cause.MKFS)

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:  # noqa: ARG002 -- the port's
        """No metadata, nothing at risk."""
        return False

    def balance_metadata(self, mode: Rebalance, *, stopping: object, tell: object) -> str:  # noqa: ARG002
        """No metadata, nothing to do."""
        return "nothing to do"

    def keep_reserve(self, data_bytes: int) -> str:  # noqa: ARG002
        """Nothing can be held."""
        return ""


def obtain(world: World, policy: GrowthPolicy, size_bytes: int) -> Attached:
    """The filesystem's first volume, attached: that of an earlier run, else a new one.

    It is created within the same limits as a growth, and by the same steps. Raises Refused,
    Unfit, Transient or Stopped.
    """
    reading = world.filesystem.read()
    inventory = world.cloud.inventory(reading.filesystem)
    seen = Observation(reading=reading, inventory=inventory)
    decision = decide(seen, policy, forecast=Forecast(), wanted_bytes=size_bytes)
    match decision:
        case Refuse(limit=limit, reason=reason, hint=hint):
            raise Refused(f"refused by {limit.value}: {reason}", hint=hint, cause=limit)
        case Finish(volume_id=volume_id):
            begun = next(found for found in inventory.volumes if found.id == volume_id)
            plan: tuple[Step, ...] = (AttachVolume(growth=begun.growth),)
            return carry_out(plan, begun, seen, world)
        case Grow(size_bytes=granted_bytes):
            growth = GrowthId(reading.filesystem, FIRST)
            create = CreateVolume(growth=growth, size_bytes=granted_bytes)
            return carry_out((create, AttachVolume(growth=growth)), None, seen, world)
    what = f"no volume for {reading.mountpoint}: {decision.reason}"
    raise Transient(what, cause=Cause.ATTACH)
