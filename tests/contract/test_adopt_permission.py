"""The one right on volumes that exist, and that we have not made: to adopt a predecessor's."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ebs_autoscale.ec2.requests import OWNER_TAG, PREDECESSOR_TAG
from ebs_autoscale.errors import Unfit
from ebs_autoscale.model import Volume
from tests.contract.clouds import OverHttp, over_http
from tests.contract.permissions import POLICY, without
from tests.unit.samples import FILESYSTEM, volume_of

ADOPTS = "AdoptVolumesOfAnOlderOne"
ANOTHER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0fedcba9876543210"

StartHttp = Callable[..., AbstractContextManager[OverHttp]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartHttp:
    """Begin with the sandbox and boto3."""
    return over_http(tmp_path, monkeypatch)


def predecessor(http: OverHttp, instance_id: str | None) -> Volume:
    """A volume as an older autoscaler made it for an instance, or as anybody makes one."""
    tags = [{"Key": PREDECESSOR_TAG, "Value": instance_id}] if instance_id else []
    parameters: Any = {"TagSpecifications": [{"ResourceType": "volume", "Tags": tags}]}
    zone = http.identity.availability_zone
    made = http.ec2.create_volume(AvailabilityZone=zone, Size=1, **(parameters if tags else {}))
    return volume_of(1, id=made["VolumeId"])


def test_a_predecessors_volume_becomes_ours(start: StartHttp) -> None:
    """With its statement a predecessor's volume is tagged; without, the hint names it."""
    with start() as http:
        volume = predecessor(http, http.identity.instance_id)
        http.control.set_policy(without(ADOPTS))
        with pytest.raises(Unfit, match=f"add the statement {ADOPTS}; .*iam-policy --adopt"):
            http.cloud.claim(volume)
        http.control.set_policy(POLICY)
        http.cloud.claim(volume)
        http.control.set_policy(None)
        [claimed] = http.cloud.inventory(FILESYSTEM).volumes
        assert claimed.id == volume.id


@pytest.mark.parametrize("instance_id", [None, "i-0fedcba9876543210", "", "*", "i-*"])
def test_nobody_elses_volume_becomes_ours(start: StartHttp, instance_id: str | None) -> None:
    """The same statement gives no right on the volumes of other instances, nor on any other."""
    with start() as http:
        volume = predecessor(http, instance_id)
        http.control.set_policy(POLICY)
        with pytest.raises(Unfit, match="ec2:CreateTags is denied"):
            http.cloud.claim(volume)


def test_a_predecessors_volume_becomes_nobody_elses(start: StartHttp) -> None:
    """The same statement gives no right to name another owner."""
    with start() as http:
        volume = predecessor(http, http.identity.instance_id)
        http.control.set_policy(POLICY)
        tags: Any = [{"Key": OWNER_TAG, "Value": ANOTHER}]
        with pytest.raises(ClientError, match="ec2:CreateTags on"):
            http.ec2.create_tags(Resources=[volume.id], Tags=tags)
