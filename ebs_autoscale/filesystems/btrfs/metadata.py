"""Whether metadata is safe after an add, and which data to move if not. Pure."""

from ebs_autoscale.filesystems.btrfs.chunks import PROFILES, data_chunk_bytes, metadata_chunk_bytes
from ebs_autoscale.model import Device, Reading


def has_room(reading: Reading) -> bool:
    """Whether enough devices have unallocated space for the next metadata chunk.

    Where they do not, and metadata has copies on different devices, the kernel overcommits and
    then forces the filesystem read-only (measured on 6.18, docs/metadata.md).
    """
    return len(_with_room(reading)) >= PROFILES[reading.metadata_profile].least_devices


def data_can_make_room(reading: Reading, *, data_profile: str) -> bool:
    """Whether metadata lacks room and moving a data chunk to another device would help."""
    if has_room(reading):
        return False
    # The chunk needs a place to go to, and metadata has to have room there as well.
    place_bytes = data_chunk_bytes(_raw_bytes(reading)) + metadata_chunk_bytes(_raw_bytes(reading))
    places = [d for d in _with_room(reading) if d.unallocated_bytes >= place_bytes]
    return len(places) >= PROFILES[data_profile].least_devices


def device_to_free(reading: Reading) -> Device:
    """The device without room for metadata that lacks least of it."""
    roomy = _with_room(reading)
    usable = [device for device in reading.devices if device.writable and not device.missing]
    others = [device for device in usable if device not in roomy]
    return max(others, key=lambda device: device.unallocated_bytes)


def takes_next_chunk(reading: Reading, name: str) -> bool:
    """Whether the kernel would put the next metadata chunk on this device.

    It takes the devices with the most unallocated space (fs/btrfs/volumes.c, gather_device_info).
    A tie counts as no: which device is taken then is not documented, and a balance that does not
    bring metadata there would be repeated for ever.
    """
    found = [device for device in _with_room(reading) if device.name == name]
    if not found:
        return False
    rivals = [
        device
        for device in reading.devices
        if device.name != name and device.unallocated_bytes >= found[0].unallocated_bytes
    ]
    return len(rivals) < PROFILES[reading.metadata_profile].least_devices


def _with_room(reading: Reading) -> list[Device]:
    chunk = metadata_chunk_bytes(_raw_bytes(reading))
    return [d for d in reading.devices if not d.missing and d.unallocated_bytes >= chunk]


def _raw_bytes(reading: Reading) -> int:
    return sum(device.size_bytes for device in reading.devices if device.writable)
