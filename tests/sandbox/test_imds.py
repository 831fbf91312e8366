"""The instance metadata service."""

import json

import boto3
import pytest
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.world.clock import SandboxClock

from tests.sandbox.conftest import Rig, Start, refused

TOKEN = "/latest/api/token"  # noqa: S105 -- a path
TTL = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}


def ask(rig: Rig, path: str) -> tuple[int, str]:
    """Get a path with a new token."""
    _, token = rig.raw("PUT", TOKEN, **TTL)
    return rig.raw("GET", path, X_aws_ec2_metadata_token=token)


def test_nothing_without_a_token(rig: Rig) -> None:
    """Version 1 requests, wrong tokens and expired ones get 401."""
    assert rig.raw("GET", "/latest/meta-data/instance-id")[0] == 401
    _, token = rig.raw("PUT", TOKEN, **TTL)
    path = "/latest/meta-data/instance-id"
    assert rig.raw("GET", path, X_aws_ec2_metadata_token=token[::-1])[0] == 401
    assert rig.raw("GET", path, X_aws_ec2_metadata_token=token) == (200, "i-0123456789abcdef0")
    rig.control.advance(61)
    assert rig.raw("GET", path, X_aws_ec2_metadata_token=token)[0] == 401


@pytest.mark.parametrize("ttl", ["", "0", "21601", "soon"])
def test_a_token_needs_a_lifetime(rig: Rig, ttl: str) -> None:
    """Without a lifetime of 1 s to 6 h there is no token."""
    assert rig.raw("PUT", TOKEN, X_aws_ec2_metadata_token_ttl_seconds=ttl)[0] == 400


def test_the_identity_document_names_the_instance(rig: Rig) -> None:
    """The identity document has region, zone, account and instance."""
    status, body = ask(rig, "/latest/dynamic/instance-identity/document")
    identity = json.loads(body)
    assert status == 200
    assert (identity["instanceId"], identity["region"]) == ("i-0123456789abcdef0", "us-east-1")
    assert (identity["availabilityZone"], identity["accountId"]) == ("us-east-1a", "123456789012")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("instance-type", "m5.large"),
        ("placement/region", "us-east-1"),
        ("placement/availability-zone", "us-east-1a"),
        ("services/partition", "aws"),
        ("iam/security-credentials/", "sandbox"),
        ("network/interfaces/macs/", "02:00:00:00:00:00/\n02:00:00:00:00:01/"),
        ("tags/instance", "Name"),
        ("tags/instance/Name", "worker"),
    ],
)
def test_paths_and_folders(start: Start, path: str, text: str) -> None:
    """A value has its text, a directory the names in it."""
    rig = start(network_interfaces=2, instance_tags={"Name": "worker"})
    assert ask(rig, f"/latest/meta-data/{path}") == (200, text)


def test_what_is_not_there_is_404(start: Start) -> None:
    """No role, no tags in metadata, no spot notice: 404."""
    rig = start(role=None, tags_in_metadata=False, instance_tags={"Name": "worker"})
    for path in ("iam/security-credentials/", "tags/instance", "spot/instance-action"):
        assert ask(rig, f"/latest/meta-data/{path}")[0] == 404


@pytest.fixture
def on_the_instance(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Make this process run as if on the simulated instance, without credentials of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in rig.control.environment.items():
        monkeypatch.setenv(name, value)
    return rig


def test_boto3_finds_its_credentials(on_the_instance: Rig) -> None:
    """With the environment of the sandbox alone, boto3 gets endpoint and credentials."""
    client = boto3.session.Session().client("ec2", region_name="us-east-1")
    client.describe_volumes()
    (call,) = on_the_instance.control.calls("DescribeVolumes")
    assert call.access_key == "ASIASANDBOX000000000"


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (FaultRule(kind=FaultKind.HTTP, action="IMDS", status=503), 503),
        (FaultRule(kind=FaultKind.HTTP, action="IMDS", status=403), 403),
    ],
)
def test_it_can_be_ill(rig: Rig, rule: FaultRule, status: int) -> None:
    """A rule for IMDS returns its status; rules for EC2 do not apply to it."""
    rig.control.add_fault(FaultRule(kind=FaultKind.ERROR))
    assert rig.raw("PUT", TOKEN, **TTL)[0] == 200
    rig.control.add_fault(rule)
    assert rig.raw("PUT", TOKEN, **TTL)[0] == status
    assert [call.fault for call in rig.control.journal()] == ["", "http"]


def test_it_can_be_slow(rig: Rig) -> None:
    """A delay is real, and the response comes after it."""
    rig.control.add_fault(FaultRule(kind=FaultKind.DELAY, action="IMDS", seconds=0.2))
    clock = SandboxClock(1.0)
    assert rig.raw("PUT", TOKEN, **TTL)[0] == 200
    assert clock.seconds() >= 0.2


def test_it_can_refuse(rig: Rig) -> None:
    """A rule can close the connection without a response."""
    rig.control.add_fault(FaultRule(kind=FaultKind.LOST_BEFORE, action="IMDS"))
    with pytest.raises(ConnectionError):
        rig.raw("PUT", TOKEN, **TTL)


def test_it_can_speak_nonsense(rig: Rig) -> None:
    """A rule can replace the answer, for all paths or for those below one."""
    rule = FaultRule(kind=FaultKind.JUNK, action="IMDS", path="/latest/meta-data", message="{")
    rig.control.add_fault(rule)
    assert ask(rig, "/latest/meta-data/instance-id") == (200, "{")
    assert ask(rig, "/latest/dynamic/instance-identity/document")[1] != "{"


def test_it_can_drip(rig: Rig) -> None:
    """A rule can send an answer byte by byte; the answer is the same."""
    path = "/latest/meta-data/instance-id"
    rig.control.add_fault(FaultRule(kind=FaultKind.DRIP, action="IMDS", path=path, seconds=0.01))
    clock = SandboxClock(1.0)
    assert ask(rig, path) == (200, rig.settings.instance_id)
    assert clock.seconds() >= 0.01 * len(rig.settings.instance_id)


def keys_of(rig: Rig) -> dict[str, str]:
    """The credentials that the service issues now."""
    keys: dict[str, str] = json.loads(
        ask(rig, "/latest/meta-data/iam/security-credentials/sandbox")[1]
    )
    return keys


def test_credentials_are_renewed_before_they_expire(start: Start) -> None:
    """They stay the same until five minutes before their end."""
    rig = start(credentials_seconds=3600)
    first = keys_of(rig)["AccessKeyId"]
    rig.control.advance(3200)
    assert keys_of(rig)["AccessKeyId"] == first
    rig.control.advance(101)
    assert keys_of(rig)["AccessKeyId"] != first


@pytest.mark.parametrize("how", ["by time", "by hand"])
def test_expired_credentials_are_refused(on_the_instance: Rig, how: str) -> None:
    """EC2 refuses what has expired, and accepts what is issued next."""
    rig = on_the_instance
    client = boto3.session.Session().client("ec2", region_name="us-east-1")
    client.describe_volumes()
    if how == "by time":
        rig.control.advance(6 * 3600)
    else:
        rig.control.expire_credentials()
    with refused("RequestExpired"):
        client.describe_volumes()
    boto3.session.Session().client("ec2", region_name="us-east-1").describe_volumes()
