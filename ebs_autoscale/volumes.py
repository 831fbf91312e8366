"""EC2: list, create, attach, protect; the only importer of boto3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import boto3
import botocore.config
import botocore.exceptions

from ebs_autoscale.ec2.calls import meant
from ebs_autoscale.ec2.requests import (
    FILESYSTEM_TAG,
    GROWTH_TAG,
    OWNER_TAG,
    PREDECESSOR_TAG,
    TOKEN_SERIES_MAX,
    Purchase,
)
from ebs_autoscale.ec2.responses import cards_by_load, growth_of, slots_free, tags_of, volume_of
from ebs_autoscale.errors import EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import GIB, GrowthId, Identity, Inventory, Volume, VolumeSpec

if TYPE_CHECKING:
    from types_boto3_ec2.client import EC2Client
    from types_boto3_ec2.literals import InstanceTypeType
    from types_boto3_ec2.type_defs import (
        AttachVolumeRequestTypeDef,
        DescribeInstanceTypesResultTypeDef,
        EbsInstanceBlockDeviceSpecificationTypeDef,
        FilterTypeDef,
        InstanceTypeDef,
        VolumeTypeDef,
    )

    from ebs_autoscale.clock import Clock

# botocore's default mode and count differ between versions; ours do not.
CLIENT_CONFIG = botocore.config.Config(
    retries={"mode": "standard", "total_max_attempts": 5},
    connect_timeout=5,
    read_timeout=20,
    user_agent_extra="ebs-autoscale",
)

# For somebody who waits for the answer: with the first that does not come he knows enough.
HASTY_CONFIG = CLIENT_CONFIG.merge(
    botocore.config.Config(
        retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=2, read_timeout=5
    )
)

# A volume may stay invisible to Describe for seconds after its creation.
VISIBLE_AFTER_SECONDS = 20.0

PAGE_SIZE = 200

# Causes that another EBS card may not have: this one is full, or there is no such card.
OF_THE_CARD = frozenset({"slots", "request", "volume kind"})


class Ec2Volumes:
    """The volumes of one filesystem on one instance; raises Transient or Unfit, never boto's own.

    A volume without our three owner tags is invisible here.
    """

    def __init__(
        self,
        identity: Identity,
        spec: VolumeSpec,
        *,
        mountpoint: str,
        clock: Clock,
        config: botocore.config.Config = CLIENT_CONFIG,
    ) -> None:
        self.identity = identity
        self._spec = spec
        self.purchase = Purchase(identity=identity, spec=spec, mountpoint=mountpoint)
        self._clock = clock
        self._cards: tuple[int, ...] = ()
        try:
            session = boto3.session.Session(region_name=identity.region)
            self.ec2: EC2Client = session.client("ec2", config=config)
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            hint = "check the AWS_* environment and ~/.aws of this user"
            raise Unfit(f"no EC2 client: {error}", hint=hint, cause="credentials") from error

    def inventory(self, filesystem: str) -> Inventory:
        """What belongs to this filesystem, the names taken here and the slots left; 3 calls."""
        volumes = self._list(filesystem)
        instance, kind = self._instance(), self._instance_type()
        self._cards = cards_by_load(kind, instance)
        if self._spec.copy_instance_tags:
            self.purchase = replace(self.purchase, instance_tags=tags_of(instance.get("Tags", [])))
        mappings = instance.get("BlockDeviceMappings", [])
        newest = max((created for _, created in volumes), default=None)
        return Inventory(
            instance_id=self.identity.instance_id,
            volumes=tuple(volume for volume, _ in volumes),
            device_names=frozenset(m["DeviceName"] for m in mappings if "DeviceName" in m),
            slots_free=slots_free(kind, instance),
            seconds_since_last_create=None
            if newest is None
            else self._clock.wall_seconds() - newest,
        )

    def create(self, growth: GrowthId, size_bytes: int) -> Volume:
        """Buy the volume of this growth, or return the one that was bought before."""
        sought = False
        for series in range(1, TOKEN_SERIES_MAX + 1):
            try:
                zone = self.identity.availability_zone
                with meant(f"create a volume of {size_bytes // GIB} GiB in {zone}"):
                    answer = self.ec2.create_volume(
                        **self.purchase.parameters(growth, size_bytes, series)
                    )
            except EbsAutoscaleError as error:
                if error.cause == "token spent" or (error.cause == "token burned" and sought):
                    continue
                # Quotas are checked before idempotency: a create that did succeed can
                # be answered so when it is repeated. And a token may be burned.
                if error.cause not in {"quota", "token burned"}:
                    raise
                if volume := self._find(growth):
                    return volume
                if error.cause == "quota":
                    raise
                # A burned token buys nothing, so that the next one's search would find no more.
                sought = True
                continue
            if answer.get("State") not in {"deleting", "deleted", "error"}:
                return volume_of(answer, growth)
        raise Unfit(
            f"growth {growth}: {TOKEN_SERIES_MAX} client tokens in a row are burned",
            hint="volumes of this growth were created and vanished: check KMS rights, who deletes "
            "volumes, and whether ebs-autoscale itself did for want of an attachment slot; it is "
            "tried again as EC2 forgets the tokens (about 12 h)",
            cause="token burned",
        )

    def predecessors(self) -> tuple[Volume, ...]:
        """Volumes that an older autoscaler made for this instance and nobody has adopted.

        awslabs, clintval and the Go rewrite all tag with `source-instance`.
        """
        filters: Sequence[FilterTypeDef] = [
            {"Name": f"tag:{PREDECESSOR_TAG}", "Values": [self.identity.instance_id]}
        ]
        found = self._found(filters)
        return tuple(
            volume_of(answer, GrowthId("", 0))
            for answer in found
            if OWNER_TAG not in tags_of(answer.get("Tags", []))
        )

    def claim(self, volume: Volume) -> None:
        """Put our three owner tags on a volume that an older autoscaler made."""
        tags = self.purchase.owner_tags(volume.growth)
        with meant(f"tag {volume.id} as ours"):
            self.ec2.create_tags(
                Resources=[volume.id], Tags=[{"Key": key, "Value": tags[key]} for key in tags]
            )

    def refresh(self, volume: Volume) -> Volume | None:
        """The volume as EC2 shows it now; None while EC2 does not show it."""
        found = self._describe([{"Name": "volume-id", "Values": [volume.id]}])
        return found[0][0] if found else None

    def attach(self, volume: Volume, device_name: str) -> None:
        """Ask EC2 to attach; raises NameTaken when another name is needed.

        On the EBS card with the fewest volumes where the type has several. What is known of cards
        is a hint: one that EC2 refuses gives way to the next, and at last to EC2's own choice.
        """
        instance_id = self.identity.instance_id
        call: AttachVolumeRequestTypeDef = {
            "VolumeId": volume.id,
            "InstanceId": instance_id,
            "Device": device_name,
        }
        on_cards: list[AttachVolumeRequestTypeDef] = [
            {**call, "EbsCardIndex": card} for card in self._cards
        ]
        for choice in (*on_cards, call):
            try:
                with meant(f"attach {volume.id} to {instance_id} as {device_name}"):
                    self.ec2.attach_volume(**choice)
            except Unfit as error:
                if choice is call or error.cause not in OF_THE_CARD:
                    raise
            else:
                return

    def delete_on_termination(self, volume: Volume) -> None:
        """Have EC2 delete the volume with the instance; attached volumes only."""
        ebs: EbsInstanceBlockDeviceSpecificationTypeDef = {
            "VolumeId": volume.id,
            "DeleteOnTermination": True,
        }
        with meant(f"set DeleteOnTermination of {volume.id} ({volume.device_name})"):
            self.ec2.modify_instance_attribute(
                InstanceId=self.identity.instance_id,
                BlockDeviceMappings=[{"DeviceName": volume.device_name, "Ebs": ebs}],
            )

    def detach(self, volume: Volume) -> None:
        """Ask EC2 to take back an attachment that never came to us; done when there is none."""
        instance_id = self.identity.instance_id
        try:
            with meant(f"detach {volume.id} from {instance_id}"):
                self.ec2.detach_volume(VolumeId=volume.id, InstanceId=instance_id)
        except Transient as error:
            if error.cause not in {"state", "not visible"}:
                raise

    def delete(self, volume: Volume) -> None:
        """Delete a volume that was never attached; EC2 refuses it if it is attached after all.

        One that is gone is deleted: this is how a repetition after a lost answer ends.
        """
        try:
            with meant(f"delete {volume.id}"):
                self.ec2.delete_volume(VolumeId=volume.id)
        except Transient as error:
            if error.cause != "not visible":
                raise

    def owned(self) -> tuple[Volume, ...]:
        """The volumes of this instance, of whichever filesystem."""
        filters: Sequence[FilterTypeDef] = [
            {"Name": f"tag:{OWNER_TAG}", "Values": [self.identity.owner]},
            {"Name": "tag-key", "Values": [GROWTH_TAG]},
        ]
        return tuple(volume for volume, _ in self._describe(filters))

    def _find(self, growth: GrowthId) -> Volume | None:
        """Look for the growth's volume by its tags, as long as it may still be invisible."""
        deadline = self._clock.now_seconds() + VISIBLE_AFTER_SECONDS
        while True:
            for volume, _ in self._list(growth.filesystem):
                if volume.growth == growth and volume.state not in {"deleting", "deleted", "error"}:
                    return volume
            if self._clock.now_seconds() > deadline:
                return None
            self._clock.sleep(4.0)

    def _list(self, filesystem: str) -> list[tuple[Volume, float]]:
        return self._describe(
            [
                {"Name": f"tag:{OWNER_TAG}", "Values": [self.identity.owner]},
                {"Name": f"tag:{FILESYSTEM_TAG}", "Values": [filesystem]},
                {"Name": "tag-key", "Values": [GROWTH_TAG]},
            ]
        )

    def _describe(self, filters: Sequence[FilterTypeDef]) -> list[tuple[Volume, float]]:
        """Our volumes among those matching, each with its creation in seconds since the epoch.

        Filters and not VolumeIds: an empty list instead of an error, and the larger throttling
        bucket (EC2 developer guide, "Request throttling").
        """
        found = self._found(filters)
        try:
            return [
                (volume_of(volume, growth), volume["CreateTime"].timestamp())
                for volume in found
                if (growth := growth_of(volume))
            ]
        except KeyError as error:
            raise Transient(f"EC2's list of volumes lacks {error}", cause="ec2 ill") from error

    def _found(self, filters: Sequence[FilterTypeDef]) -> list[VolumeTypeDef]:
        with meant("list volumes"):
            pages = self.ec2.get_paginator("describe_volumes").paginate(
                Filters=filters, PaginationConfig={"PageSize": PAGE_SIZE}
            )
            return [volume for page in pages for volume in page.get("Volumes", [])]

    def _instance(self) -> InstanceTypeDef:
        instance_id = self.identity.instance_id
        with meant(f"describe {instance_id}"):
            answer = self.ec2.describe_instances(
                Filters=[{"Name": "instance-id", "Values": [instance_id]}]
            )
        for reservation in answer.get("Reservations", []):
            for instance in reservation.get("Instances", []):
                return instance
        raise Transient(f"EC2 does not show {instance_id}", cause="instance")

    def _instance_type(self) -> DescribeInstanceTypesResultTypeDef:
        kind = self.identity.instance_type
        with meant(f"describe instance type {kind}"):
            return self.ec2.describe_instance_types(InstanceTypes=[cast("InstanceTypeType", kind)])
