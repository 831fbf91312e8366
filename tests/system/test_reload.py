"""The configuration of a running daemon: read again on SIGHUP, and only then."""

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from tests.system.bench import Host, events_in, until

pytestmark = pytest.mark.kernel


def test_a_valid_configuration_applies_at_once(host: Host) -> None:
    """A limit that is raised and reloaded ends the wait that it has caused."""
    host.configure(growth={"method": "add"}, limits={"volumes": 1})
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.fill(25)
        daemon.wait_event("growth_done")
        host.fill(20)
        daemon.wait_event("condition_began", cause="limits.volumes")
        host.configure(growth={"method": "add"}, limits={"volumes": 2})
        daemon.reload()
        daemon.wait_event("reloaded")
        daemon.wait_event("growth_done", growth=f"{host.read().filesystem[:8]}-2")
        assert daemon.stop() == 0
    assert len(host.volumes()) == 2


def test_an_invalid_configuration_is_refused(host: Host) -> None:
    """It is reported until it is corrected; the previous one stays in force, also for growths."""
    good = host.config.read_text("utf-8")
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        for text, named in (
            ("mountpoint: /elsewhere\n", "/elsewhere"),
            ("mountpoint: /scratch\nlimit: {}\n", "limits"),
            ("mountpoint: [", "config.yaml"),
        ):
            host.config.write_text(text, "utf-8")
            daemon.reload()
            daemon.wait_event("condition_began", cause="configuration", containing=named)
            host.config.write_text(good, "utf-8")
            daemon.reload()
            until(lambda: ended(daemon.log) == began(daemon.log), f"the end of {text!r}")
        host.config.write_text("mountp", "utf-8")
        daemon.reload()
        until(lambda: began(daemon.log) == ended(daemon.log) + 1, "the next condition")
        host.fill(25)
        daemon.wait_event("growth_done")
        host.config.write_text(good, "utf-8")
        assert host.run("status").returncode == 1
        daemon.reload()
        until(lambda: ended(daemon.log) == began(daemon.log), "its end")
        assert host.run("status").returncode == 0
        assert daemon.stop() == 0
    assert host.leaked() == []


def began(log: str) -> int:
    """How often a wrong configuration was told."""
    return count(log, "condition_began")


def ended(log: str) -> int:
    """How often it was told that it is right again."""
    return count(log, "condition_ended")


def count(log: str, kind: str) -> int:
    """The events of this kind about the configuration."""
    return sum(
        (event["event"], event.get("cause")) == (kind, "configuration") for event in events_in(log)
    )


def test_a_configuration_can_be_tested(host: Host) -> None:
    """`run --test` reads the file and does nothing else: 0 or 2."""
    assert host.run("run", "--test").returncode == 0
    host.config.write_text("mountpoint: /scratch\nlimits: {total: many}\n", "utf-8")
    done = host.run("run", "--test")
    assert done.returncode == 2
    assert "limits.total" in done.stderr


def test_a_warning_ends_when_its_cause_is_put_right(host: Host) -> None:
    """After the role was given a right that it lacked, a reload looks at once, without a need."""
    denied = FaultRule(
        kind=FaultKind.ERROR, code="UnauthorizedOperation", action="ModifyInstanceAttribute"
    )
    host.sandbox.add_fault(denied)
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.fill(25)
        daemon.wait_event("condition_began", cause="denied")
        until(lambda: not daemon.children(), "the end of the growth")
        host.sandbox.clear_faults()
        daemon.reload()
        daemon.wait_event("condition_ended", cause="denied", seconds=15)
        assert daemon.stop() == 0
    assert all(volume.delete_on_termination for volume in host.volumes())
