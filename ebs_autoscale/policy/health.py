"""What is wrong with the filesystem itself, and what to do about it. Pure."""

from collections.abc import Mapping

from ebs_autoscale.model import Member, Reading
from ebs_autoscale.policy.decision import LOST_HINT, lost_members

# Ordinary writers get ENOSPC with so much metadata free (measured: 3.73 MiB in each case); with
# less data than that any file of some size does.
FULL_BYTES = 4 * 1024**2

_FAILED = (
    "writes",
    "reads",
    "flushes",
    "corrupted blocks",
    "blocks of another generation",
)


def ailments_of(reading: Reading) -> Mapping[str, str]:
    """What an operator has to see to, by cause; each sentence ends with what to do.

    A filesystem that is read-only, unmounted or another one has no reading: see BtrfsMount.
    """
    found: dict[str, str] = {}
    if lost := lost_members(reading):
        found["missing member"] = f"{lost}; {LOST_HINT}"
    if failing := [_failures(member) for member in reading.members if any(member.errors)]:
        path = reading.mountpoint
        found["device errors"] = (
            f"{path} has members that failed: {'; '.join(failing)}; see dmesg, find out what is hit"
            f" with `btrfs scrub start {path}`, then `btrfs device stats --reset {path}`"
        )
    if full := _full_of(reading):
        found["full"] = f"{reading.mountpoint} has no room for {full}: programs get ENOSPC now"
    return found


def _failures(member: Member) -> str:
    counted = zip(member.errors, _FAILED, strict=False)
    failed = ", ".join(f"{count} {what}" for count, what in counted if count)
    return f"{member.name or 'missing'} (devid {member.devid}): {failed}"


def _full_of(reading: Reading) -> str:
    if reading.metadata_headroom_bytes < FULL_BYTES:
        return "metadata"
    return "data" if reading.available_bytes < FULL_BYTES else ""
