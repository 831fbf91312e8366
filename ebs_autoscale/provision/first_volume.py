"""The first volume of a filesystem that does not exist yet: bought as growth 0."""

from uuid import UUID, uuid5

from ebs_autoscale.errors import Refused, Transient, Unfit
from ebs_autoscale.model import (
    AttachVolume,
    CreateVolume,
    Finish,
    Grow,
    GrowthId,
    Reading,
    Rebalance,
    Refuse,
    Step,
    Volume,
)
from ebs_autoscale.policy.decision import decide
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import Forecast
from ebs_autoscale.resize.ports import World
from ebs_autoscale.resize.steps import carry_out

# Drawn once at random, to be kept for ever: a filesystem's name must not change between two
# runs of `init`.
_FILESYSTEMS = UUID("b2a1d9b4-3c5e-4f0e-9a57-6f2f0f3c8e11")

FIRST = 0
"""The ordinal of the volume that a filesystem begins with; growths count from 1."""


def name_of_filesystem(*parts: str) -> str:
    """The UUID that a filesystem will have, known before anything of it exists (law 4)."""
    return str(uuid5(_FILESYSTEMS, "\n".join(parts)))


class NoFilesystem:
    """A filesystem that is named but not made: it has no members, and nothing can be done to it."""

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
            members=(),
        )

    def add_device(self, name: str, *, proof: object, tell: object) -> None:  # noqa: ARG002
        """No device can be added."""
        raise Unfit(f"{self._mountpoint} is not made yet: {name} cannot be added")

    def needs_settling(self, mode: Rebalance, newest: str) -> bool:  # noqa: ARG002 -- the port's
        """No metadata, nothing at risk."""
        return False

    def settle(self, mode: Rebalance, *, stopping: object, tell: object) -> str:  # noqa: ARG002
        """No metadata, nothing to do."""
        return "nothing to do"

    def keep_reserve(self, data_bytes: int) -> str:  # noqa: ARG002
        """Nothing can be held."""
        return ""


def obtain(world: World, policy: GrowthPolicy, size_bytes: int) -> Volume:
    """The filesystem's first volume, attached: what an earlier run left, else a new one.

    It is bought within the same limits as a growth, and by the same steps. Raises Refused,
    Unfit, Transient or Stopped.
    """
    reading = world.filesystem.read()
    inventory = world.cloud.inventory(reading.filesystem)
    decision = decide(reading, inventory, policy, forecast=Forecast(), wanted_bytes=size_bytes)
    match decision:
        case Refuse(limit=limit, reason=reason, hint=hint):
            raise Refused(f"refused by {limit}: {reason}", hint=hint, cause=limit)
        case Finish(volume_id=volume_id):
            begun = next(found for found in inventory.volumes if found.id == volume_id)
            plan: tuple[Step, ...] = (AttachVolume(growth=begun.growth),)
            volume = carry_out(plan, begun, inventory, world)
        case Grow(size_bytes=granted_bytes):
            growth = GrowthId(reading.filesystem, FIRST)
            create = CreateVolume(growth=growth, size_bytes=granted_bytes)
            volume = carry_out((create, AttachVolume(growth=growth)), None, inventory, world)
        case _:
            volume = None
    if volume is None or not volume.node:
        raise Transient(f"no volume for {reading.mountpoint}: {decision.reason}", cause="attach")
    return volume
