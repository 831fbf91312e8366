"""What local users do in a folder that is theirs, seen from outside."""

import subprocess
from time import monotonic

import pytest

from tests.system.bench import Host, until

pytestmark = pytest.mark.kernel


def test_a_reserve_that_was_given_away(host: Host) -> None:
    """After `chown -R` of the mountpoint it is told and soon held again, and growths go on."""
    with host.daemon() as daemon:
        until(lambda: host.read().reserve_bytes, "the reserve")
        subprocess.run(["chown", "-R", "65534", str(host.mountpoint)], check=True)
        daemon.wait_event("condition_began", cause="reserve missing")
        daemon.wait_event("condition_ended", cause="reserve missing")
        assert host.read().reserve_bytes
        began = monotonic()
        host.fill(25)
        daemon.wait_event("growth_done")
        assert monotonic() - began < 20
        assert daemon.stop() == 0
    assert host.leaked() == []
