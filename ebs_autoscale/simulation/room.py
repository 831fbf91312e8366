"""Which devices BTRFS writes data to, and how much they take. Pure."""

from dataclasses import dataclass, replace
from math import inf

from ebs_autoscale.model import GIB, Reading

# The `single` profile allocates data in chunks of 1 GiB, each on the device with the most
# unallocated space. Measured on Linux 6.18 with two devices of 60 MiB/s: after a growth, with
# 50 GiB unallocated on the new one and 20 GiB on the old one, a writer got 58 MiB/s, all of it on
# the new one; with 60 GiB on each, one writer got 86 MiB/s and four got 99 (O_DIRECT: 60).
_CHUNK_BYTES = GIB


@dataclass(frozen=True, slots=True)
class Device:
    """What is unallocated on a device, and what it takes."""

    unallocated_bytes: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Room:
    """What can still be written: in the chunks that exist, and unallocated on each device."""

    in_chunks_bytes: float
    devices: tuple[Device, ...]

    @property
    def available_bytes(self) -> float:
        """What can still be written."""
        return self.in_chunks_bytes + sum(each.unallocated_bytes for each in self.devices)

    @property
    def written_to(self) -> tuple[Device, ...]:
        """The devices that data goes to, all at the same rate."""
        if self.in_chunks_bytes > 0:
            # Nobody knows where these chunks are, so it counts as one device, the slowest.
            return (min(self.devices, key=lambda each: each.bytes_per_second),)
        least = self._most_unallocated_bytes - _CHUNK_BYTES
        return tuple(each for each in self.devices if each.unallocated_bytes > least)

    @property
    def bytes_per_second(self) -> float:
        """What these devices take together."""
        devices = self.written_to
        return len(devices) * min(each.bytes_per_second for each in devices)

    @property
    def bytes_until_more(self) -> float:
        """How much can be written until data goes to other devices as well; else infinite."""
        if self.in_chunks_bytes > 0:
            return self.in_chunks_bytes
        devices, least = self.written_to, self._most_unallocated_bytes - _CHUNK_BYTES
        below = [each.unallocated_bytes for each in self.devices if each not in devices]
        return (least - max(below)) * len(devices) if below else inf

    @property
    def _most_unallocated_bytes(self) -> float:
        return max(each.unallocated_bytes for each in self.devices)

    def after(self, written_bytes: float) -> "Room":
        """What is left after this was written: the fullest devices are the last to get any."""
        in_chunks = max(0.0, self.in_chunks_bytes - written_bytes)
        rest = max(0.0, written_bytes - self.in_chunks_bytes)
        levels = sorted((each.unallocated_bytes for each in self.devices), reverse=True)
        level = levels[0]
        for count, below in enumerate([*levels[1:], 0.0], start=1):
            level = max(below, (sum(levels[:count]) - rest) / count)
            if level > below:
                break
        devices = (
            replace(each, unallocated_bytes=min(each.unallocated_bytes, level))
            for each in self.devices
        )
        return Room(in_chunks, tuple(devices))

    def with_device(self, size_bytes: int, bytes_per_second: float) -> "Room":
        """The same with an empty device more."""
        return replace(self, devices=(*self.devices, Device(size_bytes, bytes_per_second)))

    def enlarged(self, index: int, size_bytes: int, bytes_per_second: float) -> "Room":
        """The same with so much more on this device, which then takes so much."""
        before = self.devices[index]
        larger = Device(before.unallocated_bytes + size_bytes, bytes_per_second)
        return replace(self, devices=(*self.devices[:index], larger, *self.devices[index + 1 :]))


def room_of(reading: Reading, bytes_per_second: list[float]) -> Room:
    """What a filesystem has left, on devices that take so much each."""
    unallocated = [each.unallocated_bytes for each in reading.devices]
    # A profile with copies uses up more than it makes available.
    share = min(1.0, reading.available_bytes / max(1, sum(unallocated)))
    devices = tuple(
        Device(free * share, taken)
        for free, taken in zip(unallocated, bytes_per_second, strict=True)
    )
    return Room(max(0.0, reading.available_bytes - share * sum(unallocated)), devices)
