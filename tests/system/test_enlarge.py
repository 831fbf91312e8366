"""A host whose attachment slots are used up goes on by enlarging the volumes that it has."""

from collections.abc import Callable

import pytest

from tests.system.bench import GIB, Host, until

pytestmark = pytest.mark.kernel

CREATING = {"CreateVolume", "AttachVolume"}
LEFT_PERCENT = 20.0


def grow(host: Host) -> set[str]:
    """Have space get short, wait for the growth that ends it; returns what EC2 was asked."""
    calls, before = len(host.sandbox.journal()), host.read().size_bytes
    host.fill(LEFT_PERCENT)
    until(lambda: host.read().size_bytes > before, "the filesystem has grown")
    return {call.action for call in host.sandbox.journal()[calls:]}


def modifications(host: Host) -> list[int]:
    """How often each of our volumes was modified."""
    return [volume.modifications for volume in host.volumes()]


def test_a_host_without_free_slots(make_host: Callable[..., Host]) -> None:
    """Three slots, one for the root volume: two volumes are added, then they are enlarged.

    What an operator has added is used at once, without a call that creates anything. When the day's
    modifications are used up that is told as a refusal with EC2's reason, and it goes on a day
    later.
    """
    host = make_host(attachment_limit=3, modifications=1, modify_seconds=(0.2, 0.5))
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        assert {*grow(host), *grow(host)} >= CREATING
        first, second = host.volumes()

        calls, before = len(host.sandbox.journal()), host.read().size_bytes
        host.sandbox.operate("ModifyVolume", VolumeId=first.id, Size=first.size_gib + 4)
        until(lambda: host.read().size_bytes == before + 4 * GIB, "its space is used")
        asked = {call.action for call in host.sandbox.journal()[calls:]}
        assert not asked & {*CREATING, "ModifyVolume"}

        assert not grow(host) & CREATING
        daemon.wait_event("decided", decision="enlarge", containing=second.id)
        assert modifications(host) == [1, 1]

        host.fill(LEFT_PERCENT)
        refusal = daemon.wait_event("condition_began", cause="modifications")
        assert "VolumeModificationRateExceeded" in refusal["message"]
        assert all(volume.id in refusal["message"] for volume in (first, second))
        # A retry of the daemon's has the lock for a moment.
        until(lambda: host.run("grow").returncode == 4, "a refusal")
        assert modifications(host) == [1, 1]

        host.sandbox.advance(24 * 3600)
        before = host.read().size_bytes
        daemon.reload()
        until(lambda: host.read().size_bytes > before, "it goes on")
        daemon.wait_event("condition_ended", cause="modifications")
        assert daemon.stop() == 0
    assert len(host.volumes()) == 2
    assert not host.leaked()
