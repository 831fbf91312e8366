"""The permissions on volumes that we did not create: to adopt them, and to do nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ebs_autoscale.ec2.requests import ADOPTED_TAG, OWNER_TAG, PREDECESSOR_TAG
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import GIB, Volume
from tests.contract.clouds import INVENTORY, OverHttp, StartHttp
from tests.contract.permissions import POLICY, without
from tests.unit.samples import FILESYSTEM, volume_of

ADOPT = "AdoptVolumesOfAnOlderOne"
ANOTHER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0fedcba9876543210"


IN_USE = "AdoptTheVolumeOfAFilesystem"


def foreign_volume(http: OverHttp, instance_id: str | None) -> Volume:
    """A volume that the older script created for an instance; None for one without its tag."""
    tags = [{"Key": PREDECESSOR_TAG, "Value": instance_id}] if instance_id else []
    parameters: Any = {"TagSpecifications": [{"ResourceType": "volume", "Tags": tags}]}
    zone = http.identity.availability_zone
    created = http.ec2.create_volume(AvailabilityZone=zone, Size=1, **(parameters if tags else {}))
    return volume_of(1, id=created["VolumeId"])


def test_a_volume_of_an_older_autoscaler_is_adopted(start: StartHttp) -> None:
    """With the statement a volume of the older script is tagged; without, the hint names it."""
    with start() as http:
        volume = foreign_volume(http, http.identity.instance_id)
        http.control.set_policy(without(ADOPT))
        with pytest.raises(Unfit) as caught:
            http.cloud.claim(volume)
        assert caught.value.cause is Cause.DENIED
        assert ADOPT in caught.value.hint
        assert "iam-policy --adopt" in caught.value.hint
        http.control.set_policy(POLICY)
        http.cloud.claim(volume)
        http.control.set_policy(None)
        [claimed] = http.cloud.inventory(FILESYSTEM).volumes
        assert claimed.id == volume.id


@pytest.mark.parametrize("instance_id", [None, "i-0fedcba9876543210", "", "*", "i-*"])
def test_no_other_volume_is_adopted(start: StartHttp, instance_id: str | None) -> None:
    """The statement permits nothing on volumes of other instances, nor on untagged ones."""
    with start() as http:
        volume = foreign_volume(http, instance_id)
        http.control.set_policy(POLICY)
        with pytest.raises(Unfit) as caught:
            http.cloud.claim(volume)
        assert caught.value.cause is Cause.DENIED


@pytest.mark.parametrize(
    "key", ["Name", "cost-center", PREDECESSOR_TAG, "ebs-autoscale:mountpoint"]
)
def test_no_other_tag_is_set(start: StartHttp, key: str) -> None:
    """The statement permits to set the three owner tags and no other, not even beside them."""
    with start() as http:
        volume = foreign_volume(http, http.identity.instance_id)
        http.control.set_policy(POLICY)
        own = {"Key": OWNER_TAG, "Value": http.identity.owner}
        tags: Any = [own, {"Key": key, "Value": "x"}]
        with pytest.raises(ClientError, match="ec2:CreateTags on"):
            http.ec2.create_tags(Resources=[volume.id], Tags=tags)


def test_no_other_owner_is_named(start: StartHttp) -> None:
    """The statement does not permit to tag a volume as another instance's."""
    with start() as http:
        volume = foreign_volume(http, http.identity.instance_id)
        http.control.set_policy(POLICY)
        tags: Any = [{"Key": OWNER_TAG, "Value": ANOTHER}]
        with pytest.raises(ClientError, match="ec2:CreateTags on"):
            http.ec2.create_tags(Resources=[volume.id], Tags=tags)


def test_the_volume_of_a_mounted_filesystem(start: StartHttp) -> None:
    """With the statement it is tagged, once, and enlarged; the role cannot get rid of it."""
    with start() as http:
        volume = replace(foreign_volume(http, None), adopted=True)
        http.control.set_policy(without(IN_USE))
        with pytest.raises(Unfit) as caught:
            http.cloud.claim(volume)
        assert caught.value.cause is Cause.DENIED
        http.control.set_policy(POLICY)
        http.cloud.claim(volume)
        [claimed] = http.cloud.inventory(FILESYSTEM).volumes
        assert (claimed.id, claimed.adopted) == (volume.id, True)
        http.clock.sleep(10)
        http.cloud.enlarge(claimed, 2 * GIB)
        attempts: list[Callable[[], None]] = [
            lambda: http.cloud.claim(claimed),
            lambda: http.cloud.attach(claimed, "/dev/xvdba", INVENTORY),
            lambda: http.cloud.detach(claimed),
            lambda: http.cloud.delete(claimed),
        ]
        for denied in attempts:
            with pytest.raises(Unfit) as caught:
                denied()
            assert caught.value.cause is Cause.DENIED
        tag: Any = [{"Key": ADOPTED_TAG}]
        with pytest.raises(ClientError, match="ec2:DeleteTags"):
            http.ec2.delete_tags(Resources=[claimed.id], Tags=tag)


@pytest.mark.parametrize("key", ["Name", PREDECESSOR_TAG, ""])
def test_only_as_adopted(start: StartHttp, key: str) -> None:
    """The statement permits no other tag, nor to leave out the one that says it was adopted."""
    with start() as http:
        volume = foreign_volume(http, None)
        http.control.set_policy(POLICY)
        own = {"Key": OWNER_TAG, "Value": http.identity.owner}
        adopted = {"Key": ADOPTED_TAG, "Value": "true"}
        tags: Any = [own, adopted, {"Key": key, "Value": "x"}] if key else [own]
        with pytest.raises(ClientError, match="ec2:CreateTags on"):
            http.ec2.create_tags(Resources=[volume.id], Tags=tags)
