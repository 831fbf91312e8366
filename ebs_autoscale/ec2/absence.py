"""Whether EC2 no longer shows a volume or an attachment, or only misses it for a moment."""

from collections.abc import Callable
from typing import Protocol

from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.model import DEAD_VOLUME_STATES, Volume

# A volume or an attachment that EC2 has shown can be missing in some answers (eventual
# consistency); in so many in a row, for so long, it is gone.
GONE_AFTER_LOOKS = 3
GONE_AFTER_SECONDS = 3.0


class Refreshing(Protocol):
    """What can show a volume as it is now."""

    def refresh(self, volume: Volume) -> Volume | None:
        """The volume as EC2 shows it now; None while EC2 does not."""


class Absence:
    """How long EC2 has not shown something that it had shown before."""

    def __init__(self, now_seconds: Callable[[], float]) -> None:
        self._now_seconds = now_seconds
        self._looks = 0
        self._since_seconds = 0.0

    def lasts(self, *, absent: bool) -> bool:
        """Take another look into account; returns whether this is no passing inconsistency."""
        now = self._now_seconds()
        if self._looks == 0 or not absent:
            self._since_seconds = now
        self._looks = self._looks + 1 if absent else 0
        is_long = now - self._since_seconds >= GONE_AFTER_SECONDS
        return self._looks >= GONE_AFTER_LOOKS and is_long


def lost(volume: Volume, state: str) -> Unfit:
    """The error for a volume that EC2 could not create, or that somebody deleted."""
    return Unfit(
        f"{volume.id} of growth {volume.growth} is {state}",
        hint="EC2 could not create it (check the role's permissions on the KMS key), or it was "
        "deleted; another one is created",
        cause=Cause.VOLUME_LOST,
    )


class AttachmentLook:
    """Looks at an attachment that was asked for, and notices when it is gone."""

    def __init__(self, ec2: Refreshing, volume: Volume, now_seconds: Callable[[], float]) -> None:
        self._ec2 = ec2
        self._volume = volume
        self._was_visible = volume.age_seconds is not None
        self._missing, self._loose = Absence(now_seconds), Absence(now_seconds)

    def look(self) -> Volume | None:
        """The volume as it is now, None while EC2 does not show it.

        Raises Unfit when the volume is gone, and Transient when it was detached.
        """
        asked = self._volume
        seen = self._ec2.refresh(asked)
        if seen and seen.state in DEAD_VOLUME_STATES:
            raise lost(asked, seen.state)
        if self._missing.lasts(absent=seen is None) and self._was_visible:
            raise lost(asked, "gone")
        self._was_visible = self._was_visible or seen is not None
        is_loose = seen is not None and seen.attached_to != asked.attached_to
        if self._loose.lasts(absent=is_loose):
            raise Transient(
                f"{asked.id} was detached from {asked.device_name} before it was a device of the "
                "filesystem",
                hint="see in CloudTrail who called DetachVolume",
                cause=Cause.VOLUME_DETACHED,
            )
        return None if is_loose else seen
