"""Every call that EC2 can refuse, as the program makes it, and an EC2 that refuses it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import boto3
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.journal import Call

from ebs_autoscale.ec2.errors import MEANINGS
from ebs_autoscale.errors import Cause
from ebs_autoscale.model import GIB, GrowthId
from ebs_autoscale.volumes import CLIENT_CONFIG, Ec2Volumes
from tests.contract.clouds import INVENTORY, OverHttp
from tests.unit.samples import FILESYSTEM, volume_of

GROWTH = GrowthId(FILESYSTEM, 7)
VOLUME = volume_of(7)
MESSAGE = "Sorry, not today."

# `total_max_attempts` of the client.
TRIES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call as the program makes it, and the ids that its errors name."""

    action: str
    run: Callable[[Ec2Volumes], object]
    names: tuple[str, ...] = ()


OPERATIONS = (
    Operation(action="DescribeVolumes", run=lambda c: c.refresh(VOLUME)),
    Operation(action="DescribeInstances", run=lambda c: c.inventory(FILESYSTEM), names=("i-",)),
    Operation(
        action="DescribeInstanceTypes", run=lambda c: c.inventory(FILESYSTEM), names=("m5.large",)
    ),
    Operation(
        action="CreateVolume",
        run=lambda c: c.create(GROWTH, 20 * GIB, INVENTORY),
        names=("20 GiB", "us-east-1a"),
    ),
    Operation(
        action="AttachVolume",
        run=lambda c: c.attach(VOLUME, "/dev/xvdba", INVENTORY),
        names=(VOLUME.id, "i-", "/dev/xvdba"),
    ),
    Operation(
        action="ModifyInstanceAttribute",
        run=lambda c: c.set_delete_on_termination(VOLUME),
        names=(VOLUME.id, VOLUME.device_name),
    ),
    Operation(
        action="ModifyVolume",
        run=lambda c: c.enlarge(VOLUME, 30 * GIB),
        names=(VOLUME.id, "30 GiB"),
    ),
    Operation(action="DescribeVolumesModifications", run=lambda c: c.with_modifications([VOLUME])),
    Operation(action="CreateTags", run=lambda c: c.claim(VOLUME), names=(VOLUME.id,)),
    Operation(action="DetachVolume", run=lambda c: c.detach(VOLUME), names=(VOLUME.id, "i-")),
    Operation(action="DeleteVolume", run=lambda c: c.delete(VOLUME), names=(VOLUME.id,)),
)


def operation_of(action: str) -> Operation:
    """The operation that makes this call."""
    return next(operation for operation in OPERATIONS if operation.action == action)


_STATUS_OF_CAUSE = {
    Cause.THROTTLED: HTTPStatus.SERVICE_UNAVAILABLE,
    Cause.EC2_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    Cause.CAPACITY: HTTPStatus.INTERNAL_SERVER_ERROR,
    Cause.DENIED: HTTPStatus.FORBIDDEN,
    Cause.CREDENTIALS: HTTPStatus.UNAUTHORIZED,
}


def status_of(code: str) -> int:
    """The HTTP status that EC2 answers with this code."""
    return int(_STATUS_OF_CAUSE.get(MEANINGS[code].cause, HTTPStatus.BAD_REQUEST))


class Refusing:
    """An EC2 that refuses as told; one client for many cases, since each client costs 0.1 s."""

    def __init__(self, http: OverHttp) -> None:
        self._control = http.control
        self._region = http.identity.region
        self._cloud = http.cloud
        self._seen = 0
        self.forget_credentials()

    def forget_credentials(self) -> None:
        """Begin with the credentials of the present environment."""
        self._session = boto3.session.Session(region_name=self._region)
        self.renew()

    def renew(self) -> None:
        """Take a client with a full retry quota (500 tokens, 14 or 5 a retry)."""
        self._cloud.ec2 = self._session.client("ec2", config=CLIENT_CONFIG)

    @contextmanager
    def refusing(self, rule: FaultRule) -> Iterator[tuple[Ec2Volumes, list[Call]]]:
        """The cloud, and afterwards the calls of the rule's action that were made."""
        calls: list[Call] = []
        self._control.add_fault(rule)
        try:
            yield self._cloud, calls
        finally:
            self._control.clear_faults()
            new = self._control.journal(self._seen)
            self._seen += len(new)
            calls += [call for call in new if call.action == rule.action]


def refusal(operation: Operation, code: str) -> FaultRule:
    """This call answered with this code, however often it is made."""
    return FaultRule(
        kind=FaultKind.ERROR,
        action=operation.action,
        code=code,
        message=MESSAGE,
        status=status_of(code),
    )
