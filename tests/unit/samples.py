"""Readings, volumes and inventories to try judgements on."""

from dataclasses import replace
from typing import Any

from ebs_autoscale.ec2.iam import policy_document
from ebs_autoscale.model import (
    GIB,
    Device,
    GrowthId,
    Inventory,
    Observation,
    Price,
    Reading,
    StepKind,
    Volume,
    VolumeSpec,
)

MIB = 1024**2
FILESYSTEM = "6a92f8de-0000-4000-8000-000000000001"
INSTANCE = "i-0123456789abcdef0"
GP3 = Price(usd_per_gib=0.08)

ADDING = (
    StepKind.CREATE_VOLUME,
    StepKind.ATTACH_VOLUME,
    StepKind.ADD_DEVICE,
    StepKind.BALANCE_METADATA,
)
"""The steps of a growth that adds a volume."""


def reading_of(
    size_gib: float, available_gib: float, *, devices: int = 1, **changes: Any
) -> Reading:
    """A filesystem of this size with so much left, on devices `nvme0n1`, `nvme1n1` and so on."""
    values: dict[str, Any] = {
        "filesystem": FILESYSTEM,
        "mountpoint": "/scratch",
        "taken_at_seconds": 0.0,
        "size_bytes": int(size_gib * GIB),
        "available_bytes": int(available_gib * GIB),
        "used_bytes": int((size_gib - available_gib) * GIB),
        "statvfs_available_bytes": int(available_gib * GIB),
        "metadata_headroom_bytes": int(size_gib * GIB),
        "metadata_profile": "single",
        "devices": tuple(
            Device(devid=i + 1, name=f"nvme{i}n1", size_bytes=GIB, unallocated_bytes=0)
            for i in range(devices)
        ),
    }
    return Reading(**{**values, **changes})


def volume_of(ordinal: int, **changes: Any) -> Volume:
    """The volume of a growth, by default attached and deleted with the instance."""
    values: dict[str, Any] = {
        "id": f"vol-{ordinal:04}",
        "growth": GrowthId(FILESYSTEM, ordinal),
        "size_bytes": 20 * GIB,
        "state": "in-use",
        "attached_to": INSTANCE,
        "device_name": f"/dev/xvdb{chr(ord('a') + ordinal % 26)}",
        "attachment_state": "attached",
        "delete_on_termination": True,
    }
    values["usd_per_month"] = GP3.usd_per_month(changes.get("size_bytes", 20 * GIB))
    return Volume(**{**values, **changes})


def inventory_of(*volumes: Volume, **changes: Any) -> Inventory:
    """What EC2 shows: these volumes, and plenty of slots."""
    values: dict[str, Any] = {
        "instance_id": INSTANCE,
        "volumes": volumes,
        "device_names": frozenset(volume.device_name for volume in volumes),
        "slots_free": 20,
        "price": GP3,
    }
    return Inventory(**{**values, **changes})


def observation_of(
    reading: Reading, inventory: Inventory, *, hidden: frozenset[str] = frozenset(), **changes: Any
) -> Observation:
    """Both together; each attached volume has its node `nvme<ordinal>n1` unless it is hidden.

    The filesystem uses the whole of each volume.
    """
    nodes = {
        volume.id: f"nvme{volume.growth.ordinal}n1"
        for volume in inventory.volumes
        if volume.attached_to == inventory.instance_id and volume.id not in hidden
    }
    nodes = changes.pop("nodes", nodes)
    sizes = {nodes[v.id]: v.size_bytes for v in inventory.volumes if v.id in nodes}
    devices = tuple(
        replace(each, size_bytes=sizes.get(each.name, each.size_bytes)) for each in reading.devices
    )
    reading = replace(reading, devices=devices)
    return Observation(reading=reading, inventory=inventory, nodes=nodes, **changes)


def policy_of(
    *,
    kms_key_arn: str | None = None,
    adopt: bool = False,
    enlarge: bool = False,
    adds: bool = True,
    max_bytes: int = 1024 * GIB,
    **volume: Any,
) -> dict[str, Any]:
    """The policy that `iam-policy` prints, by default for the default configuration."""
    spec = VolumeSpec(**volume)
    options = [*(["--adopt"] if adopt else []), *(["--enlarge"] if enlarge else [])]
    return policy_document(
        spec, max_bytes=max_bytes, kms_key_arn=kms_key_arn, options=options, adds=adds
    )


def policy_lacking(*actions: str) -> dict[str, Any]:
    """The same without these actions, such as `CreateTags`."""
    policy = policy_of()
    for statement in policy["Statement"]:
        kept = [each for each in statement["Action"] if each.removeprefix("ec2:") not in actions]
        statement["Action"] = kept
    policy["Statement"] = [each for each in policy["Statement"] if each["Action"]]
    return policy
