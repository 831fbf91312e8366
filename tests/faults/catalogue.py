"""Every call that EC2 can refuse, as the program makes it, and EC2 refusing it over HTTP."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import boto3
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.journal import Call

from ebs_autoscale.ec2.errors import MEANINGS
from ebs_autoscale.model import GIB, GrowthId, Volume
from ebs_autoscale.volumes import CLIENT_CONFIG, Ec2Volumes
from tests.contract.clouds import OverHttp
from tests.unit.samples import FILESYSTEM, volume_of

GROWTH = GrowthId(FILESYSTEM, 7)
VOLUME = volume_of(7)
WORDS = "Sorry, not today."

# `total_max_attempts` of the client.
TRIES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A call as the program makes it, and what its errors say that failed."""

    action: str
    what: str
    ask: Callable[[Ec2Volumes], object]


def _named(volume: Volume) -> str:
    return f"{volume.id} ({volume.device_name})"


ASKS = (
    Ask(action="DescribeVolumes", what="list volumes", ask=lambda c: c.refresh(VOLUME)),
    Ask(action="DescribeInstances", what="describe i-", ask=lambda c: c.inventory(FILESYSTEM)),
    Ask(
        action="DescribeInstanceTypes",
        what="describe instance type m5.large",
        ask=lambda c: c.inventory(FILESYSTEM),
    ),
    Ask(
        action="CreateVolume",
        what="create a volume of 20 GiB in us-east-1a",
        ask=lambda c: c.create(GROWTH, 20 * GIB),
    ),
    Ask(
        action="AttachVolume",
        what=f"attach {VOLUME.id} to i-",
        ask=lambda c: c.attach(VOLUME, "/dev/xvdba"),
    ),
    Ask(
        action="ModifyInstanceAttribute",
        what=f"set DeleteOnTermination of {_named(VOLUME)}",
        ask=lambda c: c.delete_on_termination(VOLUME),
    ),
    Ask(action="CreateTags", what=f"tag {VOLUME.id} as ours", ask=lambda c: c.claim(VOLUME)),
    Ask(action="DetachVolume", what=f"detach {VOLUME.id} from i-", ask=lambda c: c.detach(VOLUME)),
    Ask(action="DeleteVolume", what=f"delete {VOLUME.id}", ask=lambda c: c.delete(VOLUME)),
)

_STATUS_OF_CAUSE = {
    "throttled": HTTPStatus.SERVICE_UNAVAILABLE,
    "ec2 ill": HTTPStatus.INTERNAL_SERVER_ERROR,
    "capacity": HTTPStatus.INTERNAL_SERVER_ERROR,
    "denied": HTTPStatus.FORBIDDEN,
    "credentials": HTTPStatus.UNAUTHORIZED,
}


def status_of(code: str) -> int:
    """The HTTP status that EC2 answers with."""
    return int(_STATUS_OF_CAUSE.get(MEANINGS[code].cause, HTTPStatus.BAD_REQUEST))


class Refusing:
    """An EC2 that refuses as it is told; one client for many cases, since each costs 0.1 s."""

    def __init__(self, http: OverHttp) -> None:
        self._control = http.control
        self._region = http.identity.region
        self._cloud = http.cloud
        self._seen = 0
        self.forget_credentials()

    def forget_credentials(self) -> None:
        """Begin with what the environment says now."""
        self._session = boto3.session.Session(region_name=self._region)
        self.renew()

    def renew(self) -> None:
        """Take a client whose budget of retries is not used up (500 tokens, 14 or 5 for each)."""
        self._cloud.ec2 = self._session.client("ec2", config=CLIENT_CONFIG)

    @contextmanager
    def refusing(self, rule: FaultRule) -> Iterator[tuple[Ec2Volumes, list[Call]]]:
        """The cloud, and afterwards the calls of the rule's action that it has made."""
        calls: list[Call] = []
        self._control.add_fault(rule)
        try:
            yield self._cloud, calls
        finally:
            self._control.clear_faults()
            new = self._control.journal(self._seen)
            self._seen += len(new)
            calls += [call for call in new if call.action == rule.action]


def refusal(ask: Ask, code: str) -> FaultRule:
    """This call answered with this code, however often it is made."""
    return FaultRule(
        kind=FaultKind.ERROR,
        action=ask.action,
        code=code,
        message=WORDS,
        status=status_of(code),
    )
