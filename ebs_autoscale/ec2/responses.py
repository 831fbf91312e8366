"""EC2's responses as values of the model. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ebs_autoscale.ec2.requests import ADOPTED_TAG, FILESYSTEM_TAG, GROWTH_TAG
from ebs_autoscale.ec2.volume_types import bytes_per_second_max, largest_gib, list_price
from ebs_autoscale.model import GIB, GrowthId, Identity, Modification, Volume

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import (
        DescribeInstanceTypesResultTypeDef,
        InstanceTypeDef,
        TagTypeDef,
        VolumeAttachmentTypeDef,
        VolumeModificationTypeDef,
        VolumeResponseTypeDef,
        VolumeTypeDef,
    )


# ASCII digits only, and no more than fit into a tag when it is counted on.
_ORDINAL = re.compile(r"[0-9]{1,18}")


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


def growth_of(answer: VolumeTypeDef) -> GrowthId | None:
    """The growth that the tags of a volume name; None without them.

    A tag that is not an ordinal, which somebody wrote by hand, counts as a negative one: below
    those of all growths.
    """
    tags = tags_of(answer.get("Tags", []))
    ordinal = tags.get(GROWTH_TAG)
    if ordinal is None:
        return None
    is_ordinal = _ORDINAL.fullmatch(ordinal)
    return GrowthId(tags.get(FILESYSTEM_TAG, ""), int(ordinal) if is_ordinal else -1)


def volume_of(
    answer: VolumeTypeDef | VolumeResponseTypeDef,
    growth: GrowthId,
    identity: Identity,
    price_factor: float,
) -> Volume:
    """The volume as a value. Raises KeyError for an answer that lacks an essential field."""
    attachments = answer.get("Attachments", [])
    here = [each for each in attachments if each.get("InstanceId") == identity.instance_id]
    attachment: VolumeAttachmentTypeDef = (here or attachments or [{}])[0]
    kind, size_bytes = answer.get("VolumeType", ""), answer["Size"] * GIB
    iops, throughput = answer.get("Iops"), answer.get("Throughput")
    price = list_price(
        kind, identity.region, iops=iops, mib_per_second=throughput, factor=price_factor
    )
    return Volume(
        id=answer["VolumeId"],
        growth=growth,
        size_bytes=size_bytes,
        state=answer["State"],
        attached_to=attachment.get("InstanceId", ""),
        device_name=attachment.get("Device", ""),
        attachment_state=attachment.get("State", ""),
        delete_on_termination=attachment.get("DeleteOnTermination", False),
        foreign=_foreign(answer, identity),
        adopted=ADOPTED_TAG in tags_of(answer.get("Tags", [])),
        usd_per_month=price.usd_per_month(size_bytes) if price else None,
        usd_per_gib=price.usd_per_gib if price else None,
        largest_bytes=largest_gib(kind) * GIB,
        bytes_per_second=bytes_per_second_max(
            kind, size_bytes, iops=iops, mib_per_second=throughput
        ),
    )


def modification_of(answer: VolumeModificationTypeDef, now_seconds: float) -> Modification:
    """The modification as a value, at this time of the epoch. Raises KeyError as `volume_of`."""
    started = answer.get("StartTime")
    return Modification(
        state=answer["ModificationState"],
        target_bytes=answer["TargetSize"] * GIB,
        age_seconds=now_seconds - started.timestamp() if started else None,
    )


def _foreign(answer: VolumeTypeDef | VolumeResponseTypeDef, identity: Identity) -> str:
    """Why no growth on this instance can have created this volume; empty if nothing shows it."""
    zone = answer.get("AvailabilityZone") or identity.availability_zone
    # In answers since the API of October 2025 (EBS volume clones).
    source = str(answer.get("SourceVolumeId") or "")
    if snapshot := answer.get("SnapshotId"):
        return f"restored from {snapshot}"
    if source:
        return f"copied from {source}"
    if zone != identity.availability_zone:
        return f"in Availability Zone {zone}"
    if answer.get("MultiAttachEnabled") or len(answer.get("Attachments", [])) > 1:
        return "enabled for Multi-Attach"
    return ""


def tags_of(tags: Iterable[TagTypeDef]) -> dict[str, str]:
    """The tags by key, without those of AWS itself (aws:…), which cannot be set."""
    pairs = {tag["Key"]: tag["Value"] for tag in tags}
    return {key: value for key, value in pairs.items() if not key.startswith("aws:")}
