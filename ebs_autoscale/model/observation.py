"""The filesystem and EC2 together, at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ebs_autoscale.model.ec2 import Inventory, Volume
from ebs_autoscale.model.filesystem import Device, Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The filesystem, EC2, and what joins them, at one moment.

    `nodes` maps the id of an attached volume to the kernel name of its verified block device.
    `metadata_balanced` is whether metadata has room on enough devices.
    """

    reading: Reading
    inventory: Inventory
    nodes: Mapping[str, str] = field(default_factory=dict)
    metadata_balanced: bool = True

    def is_device(self, volume: Volume) -> bool:
        """Whether this volume is a device of the filesystem now."""
        return self.device_of(volume) is not None

    def device_of(self, volume: Volume) -> Device | None:
        """The device of the filesystem that this volume is now; None if it is none."""
        node = self.nodes.get(volume.id)
        found = (each for each in self.reading.devices if each.name == node and not each.missing)
        return next(found, None) if node else None

    def with_volumes(self, *volumes: Volume) -> "Observation":
        """The same with these volumes in the place of those of the same id."""
        newer = {volume.id: volume for volume in volumes}
        found = tuple(newer.get(volume.id, volume) for volume in self.inventory.volumes)
        return replace(self, inventory=replace(self.inventory, volumes=found))

    @property
    def newest_device(self) -> Volume | None:
        """The volume of the newest growth that is a device of the filesystem."""
        added = [volume for volume in self.inventory.volumes if self.is_device(volume)]
        return max(added, key=lambda volume: volume.growth, default=None)
