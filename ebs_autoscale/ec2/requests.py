"""What we ask EC2 for: client tokens, tags, create calls, device names. Pure."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ebs_autoscale.model import GIB, GrowthId, Identity, VolumeSpec

if TYPE_CHECKING:
    from types_boto3_ec2.literals import VolumeTypeType
    from types_boto3_ec2.type_defs import CreateVolumeRequestTypeDef

OWNER_TAG = "ebs-autoscale:owner"
FILESYSTEM_TAG = "ebs-autoscale:filesystem"
GROWTH_TAG = "ebs-autoscale:growth"
MOUNTPOINT_TAG = "ebs-autoscale:mountpoint"

# On every volume of awslabs, clintval and the Go rewrite; the value is the instance id.
PREDECESSOR_TAG = "source-instance"

# A token answers for a deleted or failed volume for about 12 h (measured by the EBS
# CSI driver): then the next of a predictable series is used, by every process alike. A volume
# without a slot is given back every 15 min on average (`backoff`), some 50 times in 12 h.
TOKEN_SERIES_MAX = 64


def token_of(owner: str, growth: GrowthId, series: int) -> str:
    """The client token of a growth: 64 characters, the longest that EC2 takes."""
    name = f"{owner}|{growth.filesystem}|{growth.ordinal}|{series}"
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequests:
    """Builds the same request for the same growth, however often and in whatever process."""

    identity: Identity
    spec: VolumeSpec
    mountpoint: str

    def parameters(
        self,
        growth: GrowthId,
        size_bytes: int,
        *,
        series: int = 1,
        instance_tags: Mapping[str, str] | None = None,
    ) -> CreateVolumeRequestTypeDef:
        """All of a create call; nothing in it may change between a call and its repetition.

        `instance_tags` are copied to the volume where `volume.copy_instance_tags` asks for it.
        """
        spec = self.spec
        copied = instance_tags or {} if spec.copy_instance_tags else {}
        tags = self._tags(growth, copied)
        request: CreateVolumeRequestTypeDef = {
            "AvailabilityZone": self.identity.availability_zone,
            "Size": size_bytes // GIB,
            "VolumeType": cast("VolumeTypeType", spec.type),
            "Encrypted": spec.encrypted,
            "ClientToken": token_of(self.identity.owner, growth, series),
            "TagSpecifications": [
                {
                    "ResourceType": "volume",
                    "Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)],
                }
            ],
        }
        if spec.iops is not None:
            request["Iops"] = spec.iops
        if spec.throughput_mib_per_second is not None:
            request["Throughput"] = spec.throughput_mib_per_second
        if spec.kms_key_id is not None:
            request["KmsKeyId"] = spec.kms_key_id
        return request

    def _tags(self, growth: GrowthId, copied: Mapping[str, str]) -> dict[str, str]:
        """Ours last: nothing else may claim the owner tags."""
        return {
            **copied,
            "Name": f"ebs-autoscale {self.mountpoint} {growth.ordinal}",
            **self.spec.tags,
            MOUNTPOINT_TAG: self.mountpoint,
            **self.owner_tags(growth),
        }

    def owner_tags(self, growth: GrowthId) -> dict[str, str]:
        """The three tags that make a volume ours; one that lacks any is invisible to us."""
        return {
            OWNER_TAG: self.identity.owner,
            FILESYSTEM_TAG: growth.filesystem,
            GROWTH_TAG: str(growth.ordinal),
        }


# Names accepted by EC2 on HVM instances, documented ones first. On Xen /dev/sdX and
# /dev/xvdX are one attachment point, so only two-letter names are offered.
DEVICE_NAMES = tuple(
    f"/dev/xvd{first}{second}"
    for first, seconds in (
        ("b", string.ascii_lowercase),
        ("c", string.ascii_lowercase),
        ("a", string.ascii_lowercase),
        ("d", "abcdefghijklmnopqrstuvwx"),
    )
    for second in seconds
)


def choose_device_name(
    taken: AbstractSet[str], avoid: AbstractSet[str] = frozenset()
) -> str | None:
    """A free name to ask EC2 for, those in `avoid` last; None when all are taken.

    /dev/sdX and /dev/xvdX count as one name: on Xen they are one attachment point.
    """
    points = {_attachment_point(name) for name in taken}
    free = [name for name in DEVICE_NAMES if _attachment_point(name) not in points]
    return next((name for name in free if name not in avoid), free[0] if free else None)


def _attachment_point(name: str) -> str:
    return name.removeprefix("/dev/").removeprefix("xvd").removeprefix("sd")
