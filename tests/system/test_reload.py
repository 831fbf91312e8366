"""The configuration of a running daemon: read again on SIGHUP, and only then."""

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from tests.system.bench import Host, until

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


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mountpoint: [", "config.yaml"),
        ("mountpoint: /elsewhere\n", "/elsewhere"),
        ("mountpoint: /scratch\nlimit: {}\n", "limits"),
    ],
)
def test_an_invalid_configuration_is_refused(host: Host, text: str, named: str) -> None:
    """It is reported until it is corrected, and the previous one stays in force."""
    good = host.config.read_text("utf-8")
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.config.write_text(text, "utf-8")
        daemon.reload()
        daemon.wait_event("condition_began", cause="configuration", containing=named)
        host.fill(25)
        daemon.wait_event("growth_done")
        host.config.write_text(good, "utf-8")
        assert host.run("status").returncode == 1
        daemon.reload()
        daemon.wait_event("condition_ended", cause="configuration")
        assert host.run("status").returncode == 0
        assert daemon.stop() == 0
    assert host.leaked() == []


def test_a_half_written_file_has_no_effect(host: Host) -> None:
    """Growths use what the daemon has read, not what an operator is writing."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.config.write_text("mountp", "utf-8")
        host.fill(25)
        daemon.wait_event("growth_done")
        assert daemon.stop() == 0


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
