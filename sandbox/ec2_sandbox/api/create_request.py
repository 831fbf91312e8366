"""The parameters of CreateVolume: zone, shape, key, tags, quota, client token."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from ec2_sandbox.api import validation
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world.state import Shape, Snapshot, TokenUse, Volume, VolumeState, World

# EC2 user guide, "Ensuring idempotency in Amazon EC2 API requests": zones are not compared.
_NOT_COMPARED = frozenset({"ClientToken", "DryRun", "AvailabilityZone", "AvailabilityZoneId"})


def check_zone(world: World, params: Mapping[str, Any]) -> None:
    """Refuse every Availability Zone but that of the instance."""
    zone, zone_id = params.get("AvailabilityZone"), params.get("AvailabilityZoneId")
    if zone and zone_id:
        raise ApiError(
            "InvalidParameterCombination",
            "AvailabilityZone and AvailabilityZoneId cannot be used together",
        )
    if not zone and not zone_id:
        raise ApiError("MissingParameter", "The request must contain the parameter zone")
    if (zone or world.settings.zone, zone_id or world.settings.zone_id) != (
        world.settings.zone,
        world.settings.zone_id,
    ):
        raise ApiError("InvalidZone.NotFound", f"The zone '{zone or zone_id}' does not exist.")


def check_outpost(world: World, params: Mapping[str, Any]) -> None:
    """Refuse every Outpost but that of the instance."""
    outpost = params.get("OutpostArn")
    if outpost and outpost != world.settings.outpost_arn:
        raise ApiError("InvalidParameterValue", f"The Outpost '{outpost}' does not exist.")


def snapshot(world: World, params: Mapping[str, Any]) -> Snapshot | None:
    """The snapshot that the volume is restored from."""
    if "SnapshotId" not in params:
        return None
    snapshot_id = validation.well_formed(params["SnapshotId"], "snap")
    if snapshot_id not in world.snapshots:
        raise ApiError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return world.snapshots[snapshot_id]


def wanted_shape(params: Mapping[str, Any], source: Snapshot | None = None) -> Shape:
    """The requested type, size and performance; defaults are those of the type and the snapshot."""
    if "Size" not in params and source is None:
        raise ApiError("MissingParameter", "The request must contain the parameter size/snapshotId")
    type_name = params.get("VolumeType", "gp2")  # the default of EC2
    least = source.size_gib if source else 0
    size = validation.size_gib(params.get("Size", least), type_name=type_name)
    if size < least:
        raise ApiError(
            "InvalidParameterValue",
            f"Volume of {size}GiB is smaller than its snapshot, expect size >= {least}GiB",
        )
    return shape_of(type_name, size, params.get("Iops"), params.get("Throughput"))


def shape_of(type_name: str, size: int, iops: int | None, throughput: int | None) -> Shape:
    """A shape by the rules of its volume type."""
    operations = validation.iops(iops, type_name=type_name, size=size)
    return Shape(
        type=type_name,
        size_gib=size,
        iops=operations,
        throughput=validation.throughput(throughput, type_name=type_name, operations=operations),
    )


def key_arn(world: World, params: Mapping[str, Any]) -> str | None:
    """The ARN of the key that encrypts the volume; None when it is not encrypted."""
    settings = world.settings
    key = params.get("KmsKeyId")
    encrypted = params.get("Encrypted", False) or settings.encryption_by_default
    if key and not params.get("Encrypted", False):
        raise ApiError(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted"
        )
    if not encrypted:
        return None
    if key and key.startswith("arn:"):
        return str(key)
    name = key or "alias/aws/ebs"
    if name.startswith("alias/"):
        digest = hashlib.sha256(f"{settings.account_id} {name}".encode()).digest()
        name = str(uuid.UUID(bytes=digest[:16]))
    return f"arn:{settings.partition}:kms:{settings.region}:{settings.account_id}:key/{name}"


def tags(params: Mapping[str, Any]) -> dict[str, str]:
    """The tags in the request."""
    given: list[Mapping[str, str]] = []
    for each in params.get("TagSpecifications", []):
        if each.get("ResourceType") != "volume":
            raise ApiError(
                "InvalidParameterValue",
                f"'{each.get('ResourceType')}' is not a valid taggable resource type for this "
                "operation.",
            )
        given.extend(each.get("Tags", []))
    return validation.tags(given, {})


def check_quota(world: World, *, volumes: int, gib: int) -> None:
    """Refuse what would exceed the quota of the account, in number or in total size."""
    count = len(world.volumes) + volumes
    total = sum(volume.charged_gib for volume in world.volumes.values()) + gib
    if count > world.settings.quota_volumes or total > world.settings.quota_gib:
        raise ApiError(
            "VolumeLimitExceeded",
            f"Maximum number or total size of volumes exceeded: {count} of "
            f"{world.settings.quota_volumes} volumes, {total} of {world.settings.quota_gib} GiB",
        )


def remember(world: World, params: Mapping[str, Any], volume: Volume) -> None:
    """Remember the volume that was created with a client token, if there is one."""
    if token := params.get("ClientToken"):
        world.tokens[token] = TokenUse(params=_compared(params), volume_id=volume.id, at=world.now)


def replayed(world: World, params: Mapping[str, Any]) -> Volume | None:
    """The volume that the same request created before; refuses a token used differently."""
    remembered = world.tokens.get(params.get("ClientToken", ""))
    if remembered is None or world.now - remembered.at > world.settings.token_memory_seconds:
        return None
    # Which of the two EC2 looks at first is not documented; this order is the harder one to meet.
    if remembered.params != _compared(params):
        raise ApiError(
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in "
            "previous request(s).",
        )
    volume = world.volumes.get(remembered.volume_id)
    if volume is None or volume.state is VolumeState.DELETING:
        raise ApiError(
            "IdempotentParameterMismatch",
            "The client token you have provided is associated with a resource that is already "
            "deleted. Please use a different client token.",
        )
    return volume


def _compared(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in _NOT_COMPARED}
