"""The credentials of the instance's role, as the real boto3 uses them."""

from pathlib import Path

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Unfit
from tests.contract.clouds import OverHttp, StartHttp
from tests.unit.samples import FILESYSTEM

IMDS_IS_ILL = FaultRule(kind=FaultKind.HTTP, action="IMDS", status=500)


def keys_used(http: OverHttp) -> list[str]:
    """The access keys of the calls so far, each as often as it was changed to."""
    keys = [call.access_key for call in http.control.calls()]
    return [key for key, before in zip(keys, ["", *keys], strict=False) if key != before]


def imds_requests(http: OverHttp) -> int:
    """How often the metadata service was asked so far."""
    return len(http.control.journal()) - len(http.control.calls())


def test_what_was_fetched_before_is_used_again(start: StartHttp) -> None:
    """With credentials at hand nothing is asked, so that an outage of IMDS does not matter."""
    with start() as http:
        held = http.imds.credentials()
        http.control.add_fault(IMDS_IS_ILL)
        asked = imds_requests(http)
        http.client(held).inventory(FILESYSTEM)
        assert imds_requests(http) == asked


@pytest.mark.parametrize("late_seconds", [30, 3600])
def test_what_expires_soon_is_not_used(start: StartHttp, late_seconds: float) -> None:
    """Credentials that have expired, or will during the next call, are replaced beforehand."""
    with start(credentials_seconds=3600) as http:
        held = http.imds.credentials()
        http.clock.sleep(3600 + late_seconds - 60)
        http.client(held).inventory(FILESYSTEM)
        assert {call.outcome for call in http.control.calls()} == {"ok"}


def test_credentials_expire_in_mid_growth(start: StartHttp) -> None:
    """What is about to expire is renewed between two calls."""
    with start(credentials_seconds=3600) as http:
        http.cloud.inventory(FILESYSTEM)
        http.clock.sleep(3550)
        http.cloud.inventory(FILESYSTEM)
        assert len(keys_used(http)) == 2
        assert {call.outcome for call in http.control.calls()} == {"ok"}


@pytest.mark.parametrize("code", ["RequestExpired", "ExpiredToken", "AuthFailure"])
def test_credentials_that_ec2_refuses_are_renewed(start: StartHttp, code: str) -> None:
    """Whatever they said of themselves: the same call is repeated with new ones."""
    with start() as http:
        http.cloud.inventory(FILESYSTEM)
        http.control.expire_credentials()
        http.control.add_fault(FaultRule(kind=FaultKind.ERROR, code=code, times=1))
        http.cloud.inventory(FILESYSTEM)
        assert len(keys_used(http)) == 2


def test_refused_without_newer_ones(start: StartHttp) -> None:
    """If IMDS has no others, EC2's refusal stands, after one call."""
    with start() as http:
        http.control.add_fault(FaultRule(kind=FaultKind.ERROR, code="AuthFailure"))
        with pytest.raises(Unfit) as caught:
            http.cloud.inventory(FILESYSTEM)
        assert caught.value.cause is Cause.CREDENTIALS
        assert len(http.control.calls()) == 1


def test_another_role_since(start: StartHttp) -> None:
    """Denied with credentials from before, a call is repeated with those of the role of now."""
    denied = FaultRule(kind=FaultKind.ERROR, code="UnauthorizedOperation", times=1)
    with start(credentials_seconds=3600) as http:
        held = http.imds.credentials()
        http.clock.sleep(3400)
        http.control.add_fault(denied)
        http.client(held).inventory(FILESYSTEM)
        assert len(keys_used(http)) == 2


def test_no_role_is_told_as_such(start: StartHttp) -> None:
    """Only when IMDS says that there is no role is one to be attached."""
    with pytest.raises(Unfit, match="instance profile") as caught, start(role=None):
        pass
    assert caught.value.cause is Cause.CREDENTIALS


def test_a_profile_with_the_instance_as_source(
    start: StartHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a profile names the instance as its source, the credentials come the same way."""
    with start() as http:
        config = tmp_path / "config"
        config.write_text(
            "[default]\nrole_arn = arn:aws:iam::123456789012:role/other\n"
            "credential_source = Ec2InstanceMetadata\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
        http.control.add_fault(FaultRule(kind=FaultKind.HTTP, action="IMDS", status=500, times=1))
        asked = imds_requests(http)
        with pytest.raises(EbsAutoscaleError):
            http.client().inventory(FILESYSTEM)
        assert imds_requests(http) > asked + 2
