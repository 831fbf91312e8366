"""Policies that the role of a simulated instance has, and the life of a volume under them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ebs_autoscale.ec2.iam import policy_document
from ebs_autoscale.errors import EbsAutoscaleError, Transient
from ebs_autoscale.model import GIB, GrowthId, Volume
from tests.contract.clouds import OverHttp
from tests.unit.samples import FILESYSTEM

GROWTH = GrowthId(FILESYSTEM, 1)
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
POLICY = policy_document(kms_key_arn=KEY, adopt=True)

# What the first version of this program asked for, word for word.
SEED: dict[str, Any] = {
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
    """Take one statement out."""
    kept = [each for each in POLICY["Statement"] if each["Sid"] != sid]
    assert len(kept) == len(POLICY["Statement"]) - 1
    return {**POLICY, "Statement": kept}


@dataclass(slots=True)
class Life:
    """One volume from purchase to deletion, call by call."""

    http: OverHttp
    policy: Mapping[str, Any] | None = None

    def look(self) -> None:
        """See what there is."""
        self.http.cloud.inventory(FILESYSTEM)

    def create(self) -> None:
        """Buy it, and see it come to be."""
        bought = self.http.cloud.create(GROWTH, GIB)
        self.http.clock.sleep(10)
        if all(seen.id != bought.id for seen in self.http.control.state().volumes):
            raise Transient("it vanished")

    def attach(self) -> None:
        """Attach it here."""
        self.http.cloud.attach(self._known(), "/dev/xvdba")
        self.http.clock.sleep(10)

    def delete_on_termination(self) -> None:
        """Let it end with the instance."""
        self.http.cloud.delete_on_termination(self._known())

    def detach(self) -> None:
        """Take it away again."""
        self.http.cloud.detach(self._known())
        self.http.clock.sleep(10)

    def delete(self) -> None:
        """Be rid of it."""
        self.http.cloud.delete(self._known())

    def _known(self) -> Volume:
        """The volume, looked at with rights of an operator."""
        self.http.control.set_policy(None)
        [volume] = self.http.cloud.inventory(FILESYSTEM).volumes
        self.http.control.set_policy(self.policy)
        return volume

    def _be_allowed(self, policy: Mapping[str, Any] | None) -> None:
        self.policy = policy
        self.http.control.set_policy(policy)

    def live(self, policy: Mapping[str, Any]) -> dict[str, str]:
        """Do all of it under a policy; what fails is told, and then done without one."""
        failures = {}
        for step in (
            self.look,
            self.create,
            self.attach,
            self.delete_on_termination,
            self.detach,
            self.delete,
        ):
            self._be_allowed(policy)
            try:
                step()
            except EbsAutoscaleError as error:
                failures[step.__name__] = str(error)
                self._be_allowed(None)
                step()
        return failures
