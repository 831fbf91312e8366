"""Metadata after an add: whether anything has to move, and what."""

from ebs_autoscale.filesystems.btrfs.chunks import PROFILES, data_chunk_bytes, metadata_chunk_bytes
from ebs_autoscale.model import Member, Reading


def has_starved_metadata(reading: Reading, *, data_profile: str) -> bool:
    """Whether metadata finds room on too few members, though moving data would make some.

    Metadata in copies on different members needs room on as many; with room on only the
    new member, the kernel overcommits and then forces the filesystem read-only
    (measured on 6.18, 2 times of 2).
    """
    roomy = _with_room(reading)
    if len(roomy) >= PROFILES[reading.metadata_profile].least_members:
        return False
    # A data chunk has to find its new place first, else only a growth helps.
    place_bytes = data_chunk_bytes(_raw_bytes(reading)) + metadata_chunk_bytes(_raw_bytes(reading))
    places = [member for member in roomy if member.unallocated_bytes >= place_bytes]
    return len(places) >= PROFILES[data_profile].least_members


def member_to_relieve(reading: Reading) -> Member:
    """The member that misses least to have room for a metadata chunk."""
    roomy = _with_room(reading)
    others = [member for member in reading.members if member not in roomy and not member.missing]
    return max(others, key=lambda member: member.unallocated_bytes)


def takes_next_metadata(reading: Reading, name: str) -> bool:
    """Whether the kernel would put the next metadata chunk on this member: it has the most room.

    Source: fs/btrfs/volumes.c, gather_device_info. A tie does not count: who
    wins it is not told, and a balance might be repeated for ever in vain.
    """
    roomy = [member for member in _with_room(reading) if member.name == name]
    if not roomy:
        return False
    rivals = [
        member
        for member in reading.members
        if member.name != name and member.unallocated_bytes >= roomy[0].unallocated_bytes
    ]
    return len(rivals) < PROFILES[reading.metadata_profile].least_members


def members_with_room(reading: Reading) -> int:
    """How many members have room for one more metadata chunk."""
    return len(_with_room(reading))


def _with_room(reading: Reading) -> list[Member]:
    chunk = metadata_chunk_bytes(_raw_bytes(reading))
    return [m for m in reading.members if not m.missing and m.unallocated_bytes >= chunk]


def _raw_bytes(reading: Reading) -> int:
    return sum(member.size_bytes for member in reading.members)
