"""EC2's responses as values of the model. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, GROWTH_TAG
from ebs_autoscale.model import GIB, GrowthId, Volume

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import (
        DescribeInstanceTypesResultTypeDef,
        InstanceTypeDef,
        TagTypeDef,
        VolumeAttachmentTypeDef,
        VolumeResponseTypeDef,
        VolumeTypeDef,
    )


def slots_free(answer: DescribeInstanceTypesResultTypeDef, instance: InstanceTypeDef) -> int | None:
    """Attachment slots left by EC2's table of instance types; None when the limit is not known.

    For Nitro types whose slots are shared with network interfaces the table assumes one
    interface (https://github.com/kubernetes-sigs/aws-ebs-csi-driver/pull/2749). botocore's model
    has the fields from 1.40.22 on; Xen has no hard limit.
    """
    for found in answer.get("InstanceTypes", []):
        ebs = found.get("EbsInfo", {})
        maximum = ebs.get("MaximumEbsAttachments")
        if maximum is None or found.get("Hypervisor") == "xen":
            return None
        interfaces = len(instance.get("NetworkInterfaces", []))
        shared = ebs.get("AttachmentLimitType") == "shared"
        taken = max(interfaces - 1, 0) if shared else 0
        return maximum - taken - len(instance.get("BlockDeviceMappings", []))
    return None


def cards_by_load(
    answer: DescribeInstanceTypesResultTypeDef, instance: InstanceTypeDef
) -> tuple[int, ...]:
    """The EBS cards of the instance, those with the fewest volumes first; empty if it has one.

    A call that names no card uses card 0, which takes only half of the volumes of the type (EBS
    CSI driver v1.57.0). botocore's model knows cards, here and in the call, from 1.42.32 on.
    """
    for found in answer.get("InstanceTypes", []):
        ebs = found.get("EbsInfo", {})
        named = [card["EbsCardIndex"] for card in ebs.get("EbsCards", []) if "EbsCardIndex" in card]
        cards = named or range(ebs.get("MaximumEbsCards", 1))
        mappings = instance.get("BlockDeviceMappings", [])
        taken = Counter(mapping.get("Ebs", {}).get("EbsCardIndex", 0) for mapping in mappings)
        return tuple(sorted(cards, key=lambda card: (taken[card], card))) if len(cards) > 1 else ()
    return ()


# No filesystem grows a thousand million times; a longer number was not written by this program.
ORDINAL_MAX_LENGTH = 9


def growth_of(answer: VolumeTypeDef) -> GrowthId | None:
    """The growth that the tags of a volume name; None when they name none."""
    tags = tags_of(answer.get("Tags", []))
    ordinal = tags.get(GROWTH_TAG, "")
    is_ours = ordinal.isdecimal() and len(ordinal) <= ORDINAL_MAX_LENGTH
    return GrowthId(tags.get(FILESYSTEM_TAG, ""), int(ordinal)) if is_ours else None


def volume_of(answer: VolumeTypeDef | VolumeResponseTypeDef, growth: GrowthId) -> Volume:
    """The volume as a value; raises KeyError for an answer that lacks an essential field."""
    attachments = answer.get("Attachments", [])
    attachment: VolumeAttachmentTypeDef = attachments[0] if attachments else {}
    return Volume(
        id=answer["VolumeId"],
        growth=growth,
        size_bytes=answer["Size"] * GIB,
        state=answer["State"],
        attached_to=attachment.get("InstanceId", ""),
        device_name=attachment.get("Device", ""),
        attachment_state=attachment.get("State", ""),
        delete_on_termination=attachment.get("DeleteOnTermination", False),
    )


def tags_of(tags: Iterable[TagTypeDef]) -> dict[str, str]:
    """The tags by key, without those of AWS itself (aws:…), which cannot be set."""
    pairs = {tag["Key"]: tag["Value"] for tag in tags}
    return {key: value for key, value in pairs.items() if not key.startswith("aws:")}
