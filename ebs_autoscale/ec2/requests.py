"""Requests to EC2: client tokens, tags, parameters of the create call, device names. Pure."""

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

# Also on a volume that was in use before it was ours. The role may set it, but not remove it, and
# may not detach or delete what has it: else whoever may adopt could delete any untagged volume.
ADOPTED_TAG = "ebs-autoscale:adopted"

# On every volume of the older script (awslabs/amazon-ebs-autoscale and its forks); the value is
# the instance id.
PREDECESSOR_TAG = "source-instance"

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html; tags of AWS itself (aws:...)
# do not count.
VOLUME_TAGS_MAX = 50
TAG_VALUE_MAX_LENGTH = 256
RESERVED_TAG_PREFIXES = ("aws:", "ebs-autoscale:")

# EC2 remembers a token for about 12 h after its volume was deleted or failed (measured by the EBS
# CSI driver). Until then every process tries the same series of tokens in the same order. With no
# attachment slot left a volume is created and deleted every 15 min on average (`Cause.SLOTS`),
# about 50 times in 12 h.
TOKEN_SERIES_MAX = 64


def token_of(owner: str, growth: GrowthId, series: int) -> str:
    """The client token of a growth: 64 characters, the longest that EC2 accepts."""
    name = f"{owner}|{growth.filesystem}|{growth.ordinal}|{series}"
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequests:
    """Builds the same request for the same growth, however often and in whichever process."""

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
        outpost_arn: str = "",
    ) -> CreateVolumeRequestTypeDef:
        """The parameters of a create call: equal for a call and its repetition.

        `instance_tags` are copied to the volume if `volume.copy_instance_tags` is set. An instance
        on an Outpost can attach only volumes that were created there.
        """
        spec = self.spec
        tags = self._tags(growth) | self.copied_tags(instance_tags or {})
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
        if outpost_arn:
            request["OutpostArn"] = outpost_arn
        return request

    def copied_tags(self, instance_tags: Mapping[str, str]) -> dict[str, str]:
        """The tags of the instance that a volume gets: the first by key of those there is room for.

        Tags that a volume has anyway are not among them.
        """
        copyable = self._copyable(instance_tags)
        room = VOLUME_TAGS_MAX - len(self._tags(GrowthId("", 0)))
        return {key: instance_tags[key] for key in copyable[:room]}

    def omitted_tags(self, instance_tags: Mapping[str, str]) -> list[str]:
        """The keys of the instance's tags that there is no room for."""
        return self._copyable(instance_tags)[len(self.copied_tags(instance_tags)) :]

    def _copyable(self, instance_tags: Mapping[str, str]) -> list[str]:
        if not self.spec.copy_instance_tags:
            return []
        present = self._tags(GrowthId("", 0))
        return sorted(
            key
            for key in instance_tags
            if key not in present and not key.lower().startswith(RESERVED_TAG_PREFIXES)
        )

    def _tags(self, growth: GrowthId) -> dict[str, str]:
        """Ours come last, so that no configured tag replaces them."""
        return {
            "Name": _tag_value(f"ebs-autoscale {self.mountpoint} {growth.ordinal}"),
            **self.spec.tags,
            MOUNTPOINT_TAG: _tag_value(self.mountpoint),
            **self.owner_tags(growth),
        }

    def owner_tags(self, growth: GrowthId) -> dict[str, str]:
        """The three tags that make a volume ours; a volume that lacks one is invisible."""
        return {
            OWNER_TAG: self.identity.owner,
            FILESYSTEM_TAG: growth.filesystem,
            GROWTH_TAG: str(growth.ordinal),
        }

    def tags_to_adopt(self, growth: GrowthId) -> dict[str, str]:
        """Those of a volume that was in use before: a name it has stays."""
        mountpoint = _tag_value(self.mountpoint)
        return {**self.owner_tags(growth), MOUNTPOINT_TAG: mountpoint, ADOPTED_TAG: "true"}


def _tag_value(text: str) -> str:
    """The text as a tag can have it: a path may be longer, and contain control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)[:TAG_VALUE_MAX_LENGTH]


# Names that EC2 accepts on HVM instances, documented ones first:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html
# On Xen /dev/sdX and /dev/xvdX are one attachment point, so all names have two letters.
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
    """A device name that is not taken, those in `avoid` last; None when all are taken.

    /dev/sdX and /dev/xvdX count as one name.
    """
    points = {_attachment_point(name) for name in taken}
    free = [name for name in DEVICE_NAMES if _attachment_point(name) not in points]
    return next((name for name in free if name not in avoid), free[0] if free else None)


def _attachment_point(name: str) -> str:
    return name.removeprefix("/dev/").removeprefix("xvd").removeprefix("sd")
