"""The configuration while the daemon runs: read again on SIGHUP, and only then."""

import pytest

from tests.system.bench import Host

pytestmark = pytest.mark.kernel


def test_a_good_configuration_counts_at_once(host: Host) -> None:
    """A limit that is raised and reloaded ends the wait that it caused."""
    host.configure(limits={"volumes": 1})
    with host.daemon() as daemon:
        daemon.wait_for("hold: ")
        host.fill(25)
        daemon.wait_for("is complete")
        host.fill(20)
        daemon.wait_for("refused by limits.volumes")
        host.configure(limits={"volumes": 2})
        daemon.reload()
        daemon.wait_for("goes by")
        daemon.wait_for(f"growth {host.read().filesystem[:8]}-2 is complete")
        assert daemon.stop() == 0
    assert len(host.volumes()) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mountpoint: [", "configuration of before stays"),
        ("mountpoint: /elsewhere\n", "mountpoint is now /elsewhere"),
        ("mountpoint: /scratch\nlimit: {}\n", "did you mean limits?"),
    ],
)
def test_a_bad_configuration_is_refused(host: Host, text: str, sentence: str) -> None:
    """What cannot be gone by is told for as long as it is so, and the old one stays in force."""
    good = host.config.read_text("utf-8")
    with host.daemon() as daemon:
        daemon.wait_for("hold: ")
        host.config.write_text(text, "utf-8")
        daemon.reload()
        daemon.wait_for(sentence)
        host.fill(25)
        daemon.wait_for("is complete")
        host.config.write_text(good, "utf-8")
        assert host.run("status").returncode == 1
        daemon.reload()
        daemon.wait_for("over after")
        assert host.run("status").returncode == 0
        assert daemon.stop() == 0
    assert host.leaked() == []


def test_a_half_written_file_is_nobodys_concern(host: Host) -> None:
    """Growths go by what the daemon has read, not by what somebody is writing."""
    with host.daemon() as daemon:
        daemon.wait_for("hold: ")
        host.config.write_text("mountp", "utf-8")
        host.fill(25)
        daemon.wait_for("is complete")
        assert daemon.stop() == 0


def test_a_configuration_can_be_tested(host: Host) -> None:
    """`run --test` reads the file and does nothing else: 0 or 2."""
    assert host.run("run", "--test").returncode == 0
    host.config.write_text("mountpoint: /scratch\nlimits: {total: many}\n", "utf-8")
    done = host.run("run", "--test")
    assert done.returncode == 2
    assert "limits.total" in done.stderr
