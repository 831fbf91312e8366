"""Growths while the metadata service is ill, and EC2 after an outage, with a writer at work."""

from time import monotonic

import pytest
from ec2_sandbox.faults import IMDS, FaultKind, FaultRule

from tests.system.bench import MIB, Host, until

pytestmark = pytest.mark.kernel


def test_a_growth_does_not_depend_on_imds(host: Host) -> None:
    """What the daemon has fetched is used; credentials that EC2 refuses meanwhile are renewed."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        until(lambda: not daemon.children(), "the end of the start-up look")
        host.sandbox.add_fault(FaultRule(kind=FaultKind.DELAY, action=IMDS, seconds=3))
        began = monotonic()
        host.fill(25)
        daemon.wait_event("step_done", step="AddDevice")
        assert monotonic() - began < 8
        host.sandbox.clear_faults()
        until(lambda: not daemon.children(), "the end of the growth")
        host.sandbox.expire_credentials()
        host.fill(20)
        daemon.wait_event("growth_done", growth=f"{host.read().filesystem[:8]}-2")
        assert daemon.stop() == 0
    assert host.leaked() == []


def test_the_proxy_is_for_ec2_alone(host: Host) -> None:
    """IMDS is asked directly, whatever proxy is set; EC2 is asked through it."""
    proxy, name = host.sandbox.endpoint_url, "http://ec2.example.invalid"
    port = proxy.rpartition(":")[2]
    host.environment |= {"HTTP_PROXY": proxy, "NO_PROXY": "", "AWS_ENDPOINT_URL_EC2": name}
    assert host.run("grow").returncode == 0
    # A proxy that nobody serves, with EC2 beside it.
    direct = f"http://localhost:{port}"
    host.environment |= {
        "HTTP_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "localhost",
        "AWS_ENDPOINT_URL_EC2": direct,
    }
    assert host.run("grow").returncode == 0
    assert host.devices == 3


def test_help_comes_soon_after_an_outage(host: Host) -> None:
    """A denial is retried every ten minutes, but within seconds once a writer needs the space."""
    host.configure(threshold={"available": "50%"})
    denied = FaultRule(kind=FaultKind.ERROR, code="UnauthorizedOperation", action="CreateVolume")
    host.sandbox.add_fault(denied)
    host.fill(40)
    with host.daemon() as daemon:
        daemon.wait_event("condition_began", cause="denied")
        host.sandbox.clear_faults()
        with (host.mountpoint / "stream").open("wb", buffering=0) as stream:

            def write() -> bool:
                stream.write(bytes(range(256)) * (MIB // 512))
                return host.devices > 1

            until(write, "a growth", seconds=40)
        assert daemon.stop() == 0
