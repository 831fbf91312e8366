"""What the daemon fetches from IMDS before a growth needs it."""

from datetime import UTC, datetime

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.daemon.metadata import RENEW_EVERY_SECONDS, RETRY_SECONDS, InstanceMetadata
from tests.contract.clouds import StartHttp


@pytest.mark.parametrize(
    ("valid_seconds", "next_seconds"), [(21600, RENEW_EVERY_SECONDS), (600, 300), (10, 60)]
)
def test_credentials_are_fetched_again_in_time(
    start: StartHttp, valid_seconds: float, next_seconds: float
) -> None:
    """After half of the time for which they are valid, between a minute and an hour."""
    with start(credentials_seconds=valid_seconds) as http:
        metadata = InstanceMetadata()
        assert metadata.fetch() == pytest.approx(next_seconds, abs=5)
        assert metadata.identity == http.identity
        assert metadata.credentials
        left = metadata.credentials.expires_at_seconds - datetime.now(UTC).timestamp()
        assert left == pytest.approx(valid_seconds, abs=5)


def test_what_is_known_is_kept_through_an_outage(
    start: StartHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure takes nothing away, and is tried again within a minute."""
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    with start() as http:
        metadata = InstanceMetadata()
        metadata.fetch()
        known = metadata.credentials
        http.control.add_fault(FaultRule(kind=FaultKind.HTTP, action="IMDS", status=500))
        assert metadata.fetch() == RETRY_SECONDS
        assert (metadata.identity, metadata.credentials) == (http.identity, known)


def test_an_instance_without_a_role(start: StartHttp) -> None:
    """There may be other credentials: the identity is known, and IMDS is left alone for an hour."""
    rule = FaultRule(kind=FaultKind.HTTP, action="IMDS", status=404, path="/latest/meta-data/iam")
    with start() as http:
        http.control.add_fault(rule)
        metadata = InstanceMetadata()
        assert metadata.fetch() == RENEW_EVERY_SECONDS
        assert metadata.identity == http.identity
        assert metadata.credentials is None
