"""A host whose attachment slots are used up goes on by enlarging the volumes that it has."""

import os
from collections.abc import Callable

import pytest
from ec2_sandbox.client import VolumeSeen

from tests.system.bench import GIB, MIB, Host, until

pytestmark = pytest.mark.kernel

CREATING = {"CreateVolume", "AttachVolume"}
LEFT_PERCENT = 20.0
A_DAY = 4
STEP_BYTES = 256 * MIB


def grow(host: Host) -> set[str]:
    """Have space get short, wait for the growth that ends it; returns what EC2 was asked."""
    calls, before = len(host.sandbox.journal()), host.read().size_bytes
    host.fill(LEFT_PERCENT)
    until(lambda: host.read().size_bytes > before, "the filesystem has grown")
    return {call.action for call in host.sandbox.journal()[calls:]}


def work(host: Host, size_bytes: int) -> set[str]:
    """Do a job that needs so much space, as it comes; returns what EC2 was asked."""
    calls = len(host.sandbox.journal())
    with (host.mountpoint / "job").open("wb") as file:
        for done in range(0, size_bytes, STEP_BYTES):
            until(lambda: host.read().available_bytes > 2 * STEP_BYTES, "there is space")
            os.posix_fallocate(file.fileno(), done, STEP_BYTES)
    return {call.action for call in host.sandbox.journal()[calls:]}


def modifications(host: Host) -> list[int]:
    """How often each of our volumes was modified."""
    return [volume.modifications for volume in host.volumes()]


def enlarge_as_operator(host: Host, volume: VolumeSeen) -> set[str]:
    """Have an operator enlarge a volume, wait until its space is used; what EC2 was asked by us."""
    calls, before = len(host.sandbox.journal()), host.read().size_bytes
    host.sandbox.operate("ModifyVolume", VolumeId=volume.id, Size=volume.size_gib + 1)
    until(lambda: host.read().size_bytes == before + GIB, "its space is used")
    return {call.action for call in host.sandbox.journal()[calls:]}


def test_a_host_without_free_slots(make_host: Callable[..., Host]) -> None:
    """Three slots, one for the root volume, and ten times as much to write as two volumes hold.

    Two volumes are added, then they are enlarged until the job fits. What an operator adds is used
    at once, without a call that creates anything. When the day's modifications are used up that is
    told as a refusal with EC2's reason, and it goes on a day later.
    """
    host = make_host(attachment_limit=3, modify_seconds=(0.1, 0.3))
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        assert {*grow(host), *grow(host)} >= CREATING
        assert len(host.volumes()) == 2
        assert not work(host, 10 * 2 * GIB) & CREATING
        first, second = host.volumes()
        assert all(0 < each <= A_DAY for each in modifications(host))
        daemon.wait_event("decided", decision="enlarge", containing=first.id)
        daemon.wait_event("decided", decision="enlarge", containing=second.id)

        while left := [v for v in host.volumes() if v.modifications < A_DAY]:
            assert not enlarge_as_operator(host, left[0]) & {*CREATING, "ModifyVolume"}

        host.fill(LEFT_PERCENT)
        refusal = daemon.wait_event("condition_began", cause="modifications")
        assert "VolumeModificationRateExceeded" in refusal["message"]
        assert all(volume.id in refusal["message"] for volume in (first, second))
        # A retry of the daemon's has the lock for a moment.
        until(lambda: host.run("grow").returncode == 4, "a refusal")
        assert modifications(host) == [A_DAY, A_DAY]

        host.sandbox.advance(24 * 3600)
        before = host.read().size_bytes
        daemon.reload()
        until(lambda: host.read().size_bytes > before, "it goes on")
        daemon.wait_event("condition_ended", cause="modifications")
        assert daemon.stop() == 0
    assert len(host.volumes()) == 2
    assert not host.leaked()
