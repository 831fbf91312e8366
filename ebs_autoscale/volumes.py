"""EBS volumes by boto3: list, create, attach, enlarge, detach, delete them; wait for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import boto3
import botocore.config
import botocore.exceptions
import botocore.session

from ebs_autoscale.ec2.absence import Absence, AttachmentLook, Refreshing, lost
from ebs_autoscale.ec2.failures import translated_errors
from ebs_autoscale.ec2.requests import (
    FILESYSTEM_TAG,
    GROWTH_TAG,
    OWNER_TAG,
    PREDECESSOR_TAG,
    TOKEN_SERIES_MAX,
    CreateRequests,
)
from ebs_autoscale.ec2.responses import (
    cards_by_load,
    growth_of,
    modification_of,
    slots_free,
    tags_of,
    volume_of,
)
from ebs_autoscale.ec2.volume_types import price_of
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import (
    DEAD_VOLUME_STATES,
    GIB,
    GrowthId,
    Identity,
    Inventory,
    Modification,
    Volume,
    VolumeSpec,
)

if TYPE_CHECKING:
    from types_boto3_ec2.client import EC2Client
    from types_boto3_ec2.literals import InstanceTypeType
    from types_boto3_ec2.type_defs import (
        AttachVolumeRequestTypeDef,
        DescribeInstanceTypesResultTypeDef,
        EbsInstanceBlockDeviceSpecificationTypeDef,
        FilterTypeDef,
        InstanceTypeDef,
        VolumeResponseTypeDef,
        VolumeTypeDef,
    )

    from ebs_autoscale.clock import Clock
    from ebs_autoscale.ec2.role import InstanceRole

# botocore's default retry mode differs between versions.
CLIENT_CONFIG = botocore.config.Config(
    retries={"mode": "standard", "total_max_attempts": 5},
    connect_timeout=5,
    read_timeout=20,
    user_agent_extra="ebs-autoscale",
)

# For interactive use: fail fast, without retries.
FAIL_FAST_CONFIG = CLIENT_CONFIG.merge(
    botocore.config.Config(
        retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=2, read_timeout=5
    )
)

# A new volume may be missing from lists for seconds:
# https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
VISIBLE_AFTER_SECONDS = 20.0

PAGE_SIZE = 200

# Errors that another EBS card may not return: this card is full, or does not exist.
CARD_CAUSES = frozenset({Cause.SLOTS, Cause.REQUEST, Cause.VOLUME_KIND})

# Creating takes 1.5 s at the median and 4 s at the 99th percentile (EBS CSI driver). Asking before
# the median mostly costs a call and the wait for the next one. Another volume is created long
# before a writer can have filled the filesystem.
FIRST_LOOK_AFTER_CREATE_SECONDS = 2.0
CREATE_PATIENCE_SECONDS = 30.0

# A volume that EC2 has not shown by then may have been deleted; its client token tells.
VISIBLE_PATIENCE_SECONDS = 10.0

# Attaching takes seconds. A volume that is still "attaching" after this long stays so until it is
# detached; the EBS CSI driver waits as long.
ATTACH_STUCK_AFTER_SECONDS = 90.0

# Most detaches take 1 to 4 s; one in state "busy" may never end.
DETACH_PATIENCE_SECONDS = 60.0

LOOK_BACKOFF = 1.5
LOOK_MAX_SECONDS = 5.0


class Ec2Volumes:
    """The volumes of one filesystem on one instance; every call raises Transient or Unfit.

    A volume without our three owner tags is invisible.
    """

    def __init__(
        self,
        identity: Identity,
        spec: VolumeSpec,
        *,
        mountpoint: str,
        clock: Clock,
        config: botocore.config.Config = CLIENT_CONFIG,
        role: InstanceRole | None = None,
    ) -> None:
        self.identity = identity
        self.requests = CreateRequests(identity=identity, spec=spec, mountpoint=mountpoint)
        self._clock = clock
        try:
            core = botocore.session.get_session()
            if role:
                # The last link of boto3's chain, also where a profile names it as its source.
                chain = core.get_component("credential_provider")
                chain.get_provider("iam-role").load = role.load
            session = boto3.session.Session(botocore_session=core, region_name=identity.region)
            self.ec2: EC2Client = session.client("ec2", config=config)
            if role:
                # types-boto3 does not know that such a handler returns the wait before a retry.
                renew = cast("Callable[..., None]", role.renew_if_refused)
                self.ec2.meta.events.register("needs-retry.ec2", renew)
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            hint = "check the AWS_* environment variables and ~/.aws of this user"
            raise Unfit(f"no EC2 client: {error}", hint=hint, cause=Cause.CREDENTIALS) from error

    def inventory(self, filesystem: str) -> Inventory:
        """The volumes of this filesystem, and the names and slots of this instance; three calls."""
        volumes = self._list(filesystem)
        return replace(self.instance(), volumes=tuple(volumes))

    def instance(self) -> Inventory:
        """The names, slots and tags of this instance, and no volumes; two calls."""
        instance, kind = self._instance(), self._instance_type()
        mappings = instance.get("BlockDeviceMappings", [])
        with translated_errors(f"cannot describe {self.identity.instance_id}"):
            return Inventory(
                instance_id=self.identity.instance_id,
                volumes=(),
                device_names=frozenset(m["DeviceName"] for m in mappings if "DeviceName" in m),
                price=price_of(self.requests.spec, self.identity.region),
                slots_free=slots_free(kind, instance),
                cards=cards_by_load(kind, instance),
                instance_tags=tags_of(instance.get("Tags", [])),
                outpost_arn=instance.get("OutpostArn", ""),
            )

    def create(self, growth: GrowthId, size_bytes: int, inventory: Inventory) -> Volume:
        """Create the volume of this growth, or return the one that was created before."""
        searched = False
        for series in range(1, TOKEN_SERIES_MAX + 1):
            try:
                if volume := self._create(growth, size_bytes, series, inventory):
                    return volume
            except EbsAutoscaleError as error:
                match error.cause:
                    case Cause.TOKEN_SPENT:
                        continue
                    # EC2 checks quotas before idempotency, so the repetition of a create that
                    # succeeded can be answered so. What is not listed yet is found by the next
                    # growth: this call has created nothing.
                    case Cause.QUOTA:
                        if found := self._listed(growth):
                            return found
                        raise
                    # What has used up the token may not be listed yet. No create succeeds with
                    # such a token: searching again is pointless.
                    case Cause.TOKEN_MISMATCH:
                        if not searched and (found := self._find(growth)):
                            return found
                        searched = True
                    case _:
                        raise
        raise Unfit(
            f"growth {growth}: EC2 rejected {TOKEN_SERIES_MAX} client tokens in a row",
            hint="every volume created for this growth was deleted: check the role's permissions "
            "on the KMS key, what deletes volumes, and whether the instance has free attachment "
            "slots; EC2 accepts the tokens again after about 12 h",
            cause=Cause.TOKENS_BURNED,
        )

    def _create(
        self, growth: GrowthId, size_bytes: int, series: int, inventory: Inventory
    ) -> Volume | None:
        """Ask once, with the token of this series; None when it stands for a deleted volume."""
        request = self.requests.parameters(
            growth,
            size_bytes,
            series=series,
            instance_tags=inventory.instance_tags,
            outpost_arn=inventory.outpost_arn,
        )
        zone = self.identity.availability_zone
        with translated_errors(f"cannot create a volume of {size_bytes // GIB} GiB in {zone}"):
            answer = self.ec2.create_volume(**request)
            is_dead = answer.get("State") in DEAD_VOLUME_STATES
            return None if is_dead else self._volume(answer, growth)

    def predecessors(self) -> tuple[Volume, ...]:
        """Volumes that the older script created for this instance and that are not ours yet."""
        filters: Sequence[FilterTypeDef] = [
            {"Name": f"tag:{PREDECESSOR_TAG}", "Values": [self.identity.instance_id]}
        ]
        found = self._found(filters)
        with translated_errors("cannot list volumes"):
            return tuple(
                self._volume(answer, GrowthId("", 0))
                for answer in found
                if OWNER_TAG not in tags_of(answer.get("Tags", []))
            )

    def attached(self) -> list[tuple[Volume, Mapping[str, str]]]:
        """Every volume that is attached to this instance, whoever's it is, with its tags."""
        found = self._found(
            [{"Name": "attachment.instance-id", "Values": [self.identity.instance_id]}]
        )
        with translated_errors("cannot list volumes"):
            growths = [growth_of(answer) or GrowthId("", 0) for answer in found]
            return [
                (self._volume(answer, growth), tags_of(answer.get("Tags", [])))
                for answer, growth in zip(found, growths, strict=True)
            ]

    def claim(self, volume: Volume) -> None:
        """Put our three owner tags on a volume that we did not create; more if it is in use."""
        requests, growth = self.requests, volume.growth
        tags = requests.tags_to_adopt(growth) if volume.adopted else requests.owner_tags(growth)
        with translated_errors(f"cannot tag {volume.id}"):
            self.ec2.create_tags(
                Resources=[volume.id], Tags=[{"Key": key, "Value": tags[key]} for key in tags]
            )

    def refresh(self, volume: Volume) -> Volume | None:
        """The volume as EC2 shows it now; None while EC2 does not."""
        found = self._describe([{"Name": "volume-id", "Values": [volume.id]}])
        return found[0] if found else None

    def attach(self, volume: Volume, device_name: str, inventory: Inventory) -> None:
        """Start to attach the volume; raises NameTaken when another device name is needed.

        With several EBS cards the one with the fewest volumes is tried first, then the others,
        then EC2's own choice, because EC2's table of instance types may be wrong about cards.
        """
        instance_id = self.identity.instance_id
        call: AttachVolumeRequestTypeDef = {
            "VolumeId": volume.id,
            "InstanceId": instance_id,
            "Device": device_name,
        }
        on_cards: list[AttachVolumeRequestTypeDef] = [
            {**call, "EbsCardIndex": card} for card in inventory.cards
        ]
        for attempt in (*on_cards, call):
            try:
                with translated_errors(
                    f"cannot attach {volume.id} to {instance_id} as {device_name}"
                ):
                    self.ec2.attach_volume(**attempt)
            except Unfit as error:
                if attempt is call or error.cause not in CARD_CAUSES:
                    raise
            else:
                return

    def set_delete_on_termination(self, volume: Volume) -> None:
        """Have EC2 delete the attached volume together with the instance."""
        ebs: EbsInstanceBlockDeviceSpecificationTypeDef = {
            "VolumeId": volume.id,
            "DeleteOnTermination": True,
        }
        with translated_errors(
            f"cannot set DeleteOnTermination of {volume.id} ({volume.device_name})"
        ):
            self.ec2.modify_instance_attribute(
                InstanceId=self.identity.instance_id,
                BlockDeviceMappings=[{"DeviceName": volume.device_name, "Ebs": ebs}],
            )

    def detach(self, volume: Volume) -> None:
        """Start to detach the volume; succeeds when it is not attached."""
        instance_id = self.identity.instance_id
        try:
            with translated_errors(f"cannot detach {volume.id} from {instance_id}"):
                self.ec2.detach_volume(VolumeId=volume.id, InstanceId=instance_id)
        except Transient as error:
            if error.cause not in {Cause.STATE, Cause.NOT_VISIBLE}:
                raise

    def delete(self, volume: Volume) -> None:
        """Delete a volume, which EC2 refuses if it is attached; succeeds when it is gone.

        This makes it safe to repeat a call whose response was lost.
        """
        try:
            with translated_errors(f"cannot delete {volume.id}"):
                self.ec2.delete_volume(VolumeId=volume.id)
        except Transient as error:
            if error.cause is not Cause.NOT_VISIBLE:
                raise

    def enlarge(self, volume: Volume, size_bytes: int) -> Modification:
        """Begin to enlarge the volume to this size; EC2 refuses it while another one is running."""
        with translated_errors(f"cannot enlarge {volume.id} to {size_bytes // GIB} GiB"):
            answer = self.ec2.modify_volume(VolumeId=volume.id, Size=size_bytes // GIB)
            return modification_of(answer["VolumeModification"], self._clock.wall_seconds())

    def with_modifications(self, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
        """The same volumes, each with its latest modification; one call."""
        # With VolumeIds EC2 answers an error if one of them was never modified.
        filters: Sequence[FilterTypeDef] = [
            {"Name": "volume-id", "Values": [volume.id for volume in volumes]}
        ]
        with translated_errors("cannot look at the modifications of volumes"):
            pages = self.ec2.get_paginator("describe_volumes_modifications").paginate(
                Filters=filters, PaginationConfig={"PageSize": PAGE_SIZE}
            )
            now = self._clock.wall_seconds()
            answers = [each for page in pages for each in page.get("VolumesModifications", [])]
            found = {each["VolumeId"]: modification_of(each, now) for each in answers}
        return tuple(replace(each, modification=found.get(each.id)) for each in volumes)

    def owned(self) -> tuple[Volume, ...]:
        """The volumes of this instance, of all filesystems."""
        filters: Sequence[FilterTypeDef] = [
            {"Name": f"tag:{OWNER_TAG}", "Values": [self.identity.owner]},
            {"Name": "tag-key", "Values": [GROWTH_TAG]},
        ]
        return tuple(self._describe(filters))

    def _find(self, growth: GrowthId) -> Volume | None:
        """Search for the growth's volume by its tags, as long as EC2 may not list it yet."""
        deadline = self._clock.now_seconds() + VISIBLE_AFTER_SECONDS
        while True:
            found = self._listed(growth)
            if found or self._clock.now_seconds() > deadline:
                return found
            self._clock.sleep(4.0)

    def _listed(self, growth: GrowthId) -> Volume | None:
        for volume in self._list(growth.filesystem):
            is_alive = volume.state not in DEAD_VOLUME_STATES
            if volume.growth == growth and is_alive and not volume.foreign:
                return volume
        return None

    def _list(self, filesystem: str) -> list[Volume]:
        return self._describe(
            [
                {"Name": f"tag:{OWNER_TAG}", "Values": [self.identity.owner]},
                {"Name": f"tag:{FILESYSTEM_TAG}", "Values": [filesystem]},
                {"Name": "tag-key", "Values": [GROWTH_TAG]},
            ]
        )

    def _describe(self, filters: Sequence[FilterTypeDef]) -> list[Volume]:
        """Our volumes that match.

        Filters instead of VolumeIds give an empty list instead of an error, and count against the
        larger request bucket
        (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
        """
        found, now = self._found(filters), self._clock.wall_seconds()
        with translated_errors("cannot list volumes"):
            ours = [(self._volume(v, growth), v) for v in found if (growth := growth_of(v))]
            return [
                replace(volume, age_seconds=now - v["CreateTime"].timestamp()) for volume, v in ours
            ]

    def _volume(self, answer: VolumeTypeDef | VolumeResponseTypeDef, growth: GrowthId) -> Volume:
        return volume_of(answer, growth, self.identity, self.requests.spec.price_factor)

    def _found(self, filters: Sequence[FilterTypeDef]) -> list[VolumeTypeDef]:
        with translated_errors("cannot list volumes"):
            pages = self.ec2.get_paginator("describe_volumes").paginate(
                Filters=filters, PaginationConfig={"PageSize": PAGE_SIZE}
            )
            return [volume for page in pages for volume in page.get("Volumes", [])]

    def _instance(self) -> InstanceTypeDef:
        instance_id = self.identity.instance_id
        with translated_errors(f"cannot describe {instance_id}"):
            answer = self.ec2.describe_instances(
                Filters=[{"Name": "instance-id", "Values": [instance_id]}]
            )
        for reservation in answer.get("Reservations", []):
            for instance in reservation.get("Instances", []):
                return instance
        raise Transient(f"EC2 does not show {instance_id}", cause=Cause.INSTANCE_NOT_VISIBLE)

    def _instance_type(self) -> DescribeInstanceTypesResultTypeDef:
        kind = self.identity.instance_type
        with translated_errors(f"cannot describe instance type {kind}"):
            return self.ec2.describe_instance_types(InstanceTypes=[cast("InstanceTypeType", kind)])


def wait_available(
    ec2: Refreshing, volume: Volume, clock: Clock, tell: Callable[[str], None]
) -> Volume:
    """The volume once it is available or in use; creating may fail after EC2 accepted the call.

    Raises Unfit when the volume is gone, Transient when it takes too long, and Stopped.
    """
    deadline = clock.now_seconds() + CREATE_PATIENCE_SECONDS
    ask_again = clock.now_seconds() + VISIBLE_PATIENCE_SECONDS
    delay = FIRST_LOOK_AFTER_CREATE_SECONDS
    absence, was_visible = Absence(clock.now_seconds), volume.age_seconds is not None
    seen: Volume | None = volume
    while seen is None or seen.state not in {"available", "in-use"}:
        state = seen.state if seen else "not visible yet"
        if state in DEAD_VOLUME_STATES:
            raise lost(volume, state)
        if absence.lasts(absent=seen is None) and was_visible:
            raise lost(volume, "gone")
        if not was_visible and clock.now_seconds() >= ask_again:
            raise Transient(
                f"EC2 does not show {volume.id} {VISIBLE_PATIENCE_SECONDS:.0f} s after creating it",
                hint="if it was deleted, another one is created",
                cause=Cause.NOT_VISIBLE,
            )
        if clock.now_seconds() > deadline:
            raise Transient(
                f"{volume.id} is still {state} after {CREATE_PATIENCE_SECONDS:.0f} s",
                hint="see the volume in EC2; if this happens again, check the role's permissions "
                "on the KMS key",
                cause=Cause.SLOW_CREATE,
            )
        tell(f"waiting for {volume.id} to become available ({state})")
        clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
        seen = ec2.refresh(volume)
        was_visible = was_visible or seen is not None
    return seen


def wait_attached(
    ec2: Refreshing, volume: Volume, clock: Clock, tell: Callable[[str], None]
) -> Volume | None:
    """The volume once it is attached to this instance; None when that takes too long.

    Raises Unfit when the volume is gone, and Transient when it was detached.
    """
    deadline = clock.now_seconds() + ATTACH_STUCK_AFTER_SECONDS
    delay = 0.5
    attachment = AttachmentLook(ec2, volume, clock.now_seconds)
    while True:
        seen = attachment.look()
        if seen and seen.attachment_state == "attached":
            return seen
        state = seen.attachment_state or seen.state if seen else "not visible yet"
        if clock.now_seconds() > deadline:
            return None
        tell(f"waiting for {volume.id} to be attached ({state})")
        clock.sleep(delay)
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)


def wait_detached(ec2: Refreshing, volume: Volume, clock: Clock) -> Volume | None:
    """The volume once it is available again; None when it is gone.

    Raises Transient when it takes too long, Stopped.
    """
    deadline = clock.now_seconds() + DETACH_PATIENCE_SECONDS
    delay, absence = 1.0, Absence(clock.now_seconds)
    while True:
        clock.sleep(delay)
        seen = ec2.refresh(volume)
        if seen and seen.state == "available":
            return seen
        if absence.lasts(absent=seen is None or seen.state in DEAD_VOLUME_STATES):
            return None
        if clock.now_seconds() > deadline:
            raise Transient(
                f"timed out detaching {volume.id} from {volume.device_name}",
                hint="force-detach the volume in EC2",
                cause=Cause.STUCK_DETACH,
            )
        delay = min(delay * LOOK_BACKOFF, LOOK_MAX_SECONDS)
