"""IAM policies of a simulated instance, and the life of a volume under them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ebs_autoscale.checks.permissions import CREATE, creating, describing, using
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient
from ebs_autoscale.model import GIB, GrowthId, Volume
from ebs_autoscale.policy import GrowthPolicy, Sizing
from tests.contract.clouds import INVENTORY, OverHttp
from tests.unit.samples import FILESYSTEM, policy_of

GROWTH = GrowthId(FILESYSTEM, 1)
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
POLICY = policy_of(kms_key_arn=KEY, adopt=True, enlarge=True)

# The policy that the README of the first ebs-autoscale asked for.
FIRST_POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "ec2:AttachVolume",
                "ec2:DescribeVolumeStatus",
                "ec2:DescribeVolumes",
                "ec2:ModifyInstanceAttribute",
                "ec2:DescribeVolumeAttribute",
                "ec2:CreateVolume",
                "ec2:DeleteVolume",
            ],
            "Resource": "*",
        }
    ],
}


def without(sid: str) -> dict[str, Any]:
    """The printed policy but for one statement."""
    kept = [each for each in POLICY["Statement"] if each["Sid"] != sid]
    assert len(kept) == len(POLICY["Statement"]) - 1
    return {**POLICY, "Statement": kept}


@dataclass(slots=True)
class Life:
    """One volume from its creation to its deletion, call by call."""

    http: OverHttp
    policy: Mapping[str, Any] | None = None

    def look(self) -> None:
        """Take the inventory."""
        self.http.cloud.inventory(FILESYSTEM)

    def create(self) -> None:
        """Create it, and see that it still exists when EC2 is done."""
        created = self.http.cloud.create(GROWTH, GIB, INVENTORY)
        self.http.clock.sleep(10)
        if all(seen.id != created.id for seen in self.http.control.state().volumes):
            raise Transient(f"{created.id} is gone", cause=Cause.VOLUME_LOST)

    def attach(self) -> None:
        """Attach it here."""
        self.http.cloud.attach(self._known(), "/dev/xvdba", INVENTORY)
        self.http.clock.sleep(10)

    def set_delete_on_termination(self) -> None:
        """Set DeleteOnTermination."""
        self.http.cloud.set_delete_on_termination(self._known())

    def look_at_modifications(self) -> None:
        """See whether it is being modified."""
        self.http.cloud.with_modifications([self._known()])

    def enlarge(self) -> None:
        """Enlarge it."""
        self.http.cloud.enlarge(self._known(), 2 * GIB)
        self.http.clock.sleep(10)

    def detach(self) -> None:
        """Detach it."""
        self.http.cloud.detach(self._known())
        self.http.clock.sleep(10)

    def delete(self) -> None:
        """Delete it."""
        self.http.cloud.delete(self._known())

    def _known(self) -> Volume:
        """The volume, as an operator sees it, who may do everything."""
        self.http.control.set_policy(None)
        [volume] = self.http.cloud.inventory(FILESYSTEM).volumes
        self.http.control.set_policy(self.policy)
        return volume

    def _apply(self, policy: Mapping[str, Any] | None) -> None:
        self.policy = policy
        self.http.control.set_policy(policy)

    def run(self, policy: Mapping[str, Any]) -> dict[str, EbsAutoscaleError]:
        """Make each call under a policy, and again without where it fails; the errors by call."""
        failures = {}
        for step in (
            self.look,
            self.create,
            self.attach,
            self.set_delete_on_termination,
            self.look_at_modifications,
            self.enlarge,
            self.detach,
            self.delete,
        ):
            self._apply(policy)
            try:
                step()
            except EbsAutoscaleError as error:
                failures[step.__name__] = error
                self._apply(None)
                step()
        return failures


def rehearsed(
    http: OverHttp,
    volume: Volume | None = None,
    *,
    max_bytes: int = 1024 * GIB,
    enlarges: bool = False,
) -> dict[str, EbsAutoscaleError | None]:
    """What `check` would find, with a volume of ours if there is one."""
    calls = describing(http.cloud, enlarges=enlarges)
    policy = GrowthPolicy(sizing=Sizing(max_bytes=max_bytes))
    settings = Settings(mountpoint="/scratch", policy=policy)
    calls[CREATE] = creating(http.cloud, settings, FILESYSTEM)
    calls |= using(http.cloud, [volume] if volume else [], enlarges=enlarges)
    return {action: call() for action, call in calls.items()}
