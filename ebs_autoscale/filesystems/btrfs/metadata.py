"""Metadata after an add: whether anything has to move, and what."""

from ebs_autoscale.filesystems.btrfs.chunks import PROFILES, data_chunk_bytes, metadata_chunk_bytes
from ebs_autoscale.model import Device, Reading


def has_starved_metadata(reading: Reading, *, data_profile: str) -> bool:
    """Whether metadata finds room on too few devices, though moving data would make some.

    Metadata in copies on different devices needs room on as many; with room on only the
    new device, the kernel overcommits and then forces the filesystem read-only
    (measured on 6.18, 2 times of 2).
    """
    roomy = _with_room(reading)
    if len(roomy) >= PROFILES[reading.metadata_profile].least_devices:
        return False
    # A data chunk has to find its new place first, else only a growth helps.
    place_bytes = data_chunk_bytes(_raw_bytes(reading)) + metadata_chunk_bytes(_raw_bytes(reading))
    places = [device for device in roomy if device.unallocated_bytes >= place_bytes]
    return len(places) >= PROFILES[data_profile].least_devices


def device_to_relieve(reading: Reading) -> Device:
    """The device that misses least to have room for a metadata chunk."""
    roomy = _with_room(reading)
    others = [device for device in reading.devices if device not in roomy and not device.missing]
    return max(others, key=lambda device: device.unallocated_bytes)


def takes_next_metadata(reading: Reading, name: str) -> bool:
    """Whether the kernel would put the next metadata chunk on this device: it has the most room.

    Source: fs/btrfs/volumes.c, gather_device_info. A tie does not count: who
    wins it is not told, and a balance might be repeated for ever in vain.
    """
    roomy = [device for device in _with_room(reading) if device.name == name]
    if not roomy:
        return False
    rivals = [
        device
        for device in reading.devices
        if device.name != name and device.unallocated_bytes >= roomy[0].unallocated_bytes
    ]
    return len(rivals) < PROFILES[reading.metadata_profile].least_devices


def devices_with_room(reading: Reading) -> int:
    """How many devices have room for one more metadata chunk."""
    return len(_with_room(reading))


def _with_room(reading: Reading) -> list[Device]:
    chunk = metadata_chunk_bytes(_raw_bytes(reading))
    return [m for m in reading.devices if not m.missing and m.unallocated_bytes >= chunk]


def _raw_bytes(reading: Reading) -> int:
    return sum(device.size_bytes for device in reading.devices)
