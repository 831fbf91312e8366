"""kill -9 at every boundary of a growth: the next daemon finishes that same growth."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Literal

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.journal import PENDING

from tests.system.bench import Host, events_in, find_event, until
from tests.told import CONVERGED

pytestmark = pytest.mark.kernel

# Long enough to be killed in, short enough for the killed call's effect to meet its successor.
HELD_SECONDS = 1.5

# A tool that stops at one sub-command, before or after the real one has done its work.
HELD_TOOL = """#!/bin/sh
case "$1 $2" in
"{held}")
    {before}
    touch "{reached}"
    exec sleep 60 ;;
esac
exec {real} "$@"
"""


def assert_grown_once(host: Host, devices: int = 2) -> None:
    """One growth, one volume, in the filesystem, tied to the instance, nothing left over."""
    until(lambda: host.devices == devices, f"{devices} devices")
    until(lambda: not host.leaked(), "no volume outside the filesystem")
    assert len(host.volumes()) == devices - 1
    assert all(volume.delete_on_termination for volume in host.volumes())
    assert {volume.tags["ebs-autoscale:growth"] for volume in host.volumes()} == {
        str(number) for number in range(1, devices)
    }


Finish = Callable[[Host], None]


@pytest.fixture
def finish(record_property: Callable[[str, object], None]) -> Finish:
    """Start a new daemon and let it come to rest; how long that took is in the summary."""

    def finishing(host: Host) -> None:
        began = monotonic()
        with host.daemon() as daemon:
            until(lambda: any("growth" in e for e in events_in(daemon.log)), "a growth")
            until(lambda: not daemon.children() and host.devices > 1, "the growth's end")
            assert_grown_once(host)
            record_property(CONVERGED, monotonic() - began)
            assert daemon.stop() == 0

    return finishing


@pytest.mark.parametrize("with_children", [True, False], ids=["with the growth", "daemon only"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", ["CreateVolume", "AttachVolume", "ModifyInstanceAttribute"])
def test_kill_around_a_call(
    host: Host,
    action: str,
    when: Literal["before", "after"],
    finish: Finish,
    *,
    with_children: bool,
) -> None:
    """Killed before or after a call took effect, the growth is finished with that one volume."""
    rule = FaultRule(kind=FaultKind.DELAY, action=action, when=when, seconds=HELD_SECONDS, times=1)
    host.sandbox.add_fault(rule)
    host.fill(20)
    with host.daemon() as daemon:
        until(lambda: host.sandbox.calls(action), f"the call of {action}")
        daemon.kill(with_children=with_children)

    finish(host)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("waiting_for", ["CreateVolume", "AttachVolume"])
def test_kill_in_a_wait(
    make_host: Callable[..., Host],
    waiting_for: str,
    when: Literal["before", "after"],
    finish: Finish,
) -> None:
    """Killed inside a look whether EC2 is done, the growth is finished with that one volume."""
    host = make_host(create_seconds=(2.0, 2.0), attach_seconds=(2.0, 2.0))
    looks = "DescribeVolumes"
    host.fill(20)
    with host.daemon() as daemon:
        until(lambda: host.sandbox.calls(waiting_for), f"the call of {waiting_for}")
        rule = FaultRule(kind=FaultKind.DELAY, action=looks, when=when, seconds=HELD_SECONDS)
        host.sandbox.add_fault(rule)
        until(lambda: host.sandbox.calls(looks)[-1].outcome == PENDING, "a look")
        daemon.kill()
    host.sandbox.clear_faults()

    finish(host)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("held", ["device add", "balance start"])
def test_kill_around_a_tool(
    host: Host,
    tmp_path: Path,
    held: str,
    record_property: Callable[[str, object], None],
    *,
    done: bool,
) -> None:
    """Killed before or after btrfs did its work, the growth is finished with that one volume."""
    # While it moves metadata, a balance holds up to 0.5 GiB more: that is not to look like a
    # shortage, for which the daemon would stop it.
    host.configure(metadata={"rebalance": "full"}, growth={"size": "2GiB", "min": "1GiB"})
    reached, path = held_tool(tmp_path, held=held, done=done)
    host.fill(20)
    with host.daemon(PATH=path) as daemon:
        until(reached.exists, held)
        daemon.kill()

    began = monotonic()
    with host.daemon() as daemon:
        until(lambda: "is complete" in daemon.log or "hold: " in daemon.log, "the growth's end")
        assert_grown_once(host)
        record_property(CONVERGED, monotonic() - began)
        metadata_on_newest = "relocate" in daemon.log
        assert metadata_on_newest == (not (held == "balance start" and done))
        assert daemon.stop() == 0


def held_tool(folder: Path, *, held: str, done: bool) -> tuple[Path, str]:
    """A `btrfs` that stops at one sub-command; returns the sign that it has, and a PATH with it."""
    reached = folder / "reached"
    real = shutil.which("btrfs") or "btrfs"
    before = f'{real} "$@" || exit' if done else ":"
    tool = folder / "tools" / "btrfs"
    tool.parent.mkdir()
    text = HELD_TOOL.format(held=held, before=before, reached=reached, real=real)
    tool.write_text(text, "utf-8")
    tool.chmod(0o755)
    return reached, f"{tool.parent}:{os.environ['PATH']}"


def test_terminate_inside_a_step(make_host: Callable[..., Host], finish: Finish) -> None:
    """SIGTERM during a slow attach ends both processes soon, with 0; the next daemon finishes."""
    host = make_host(attach_seconds=(4.0, 4.0))
    host.fill(20)
    with host.daemon() as daemon:
        daemon.wait_event("step_started", step="AttachVolume")
        until(lambda: host.sandbox.calls("AttachVolume"), "the attach")
        assert daemon.stop(seconds=10) == 0
        assert find_event(daemon.log, "growth_stopped")
        assert not daemon.children()

    finish(host)
