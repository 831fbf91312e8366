"""What a daemon tells others: metrics while it grows, and events to notify.command."""

import json
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.bench import Host, events_in, until

pytestmark = pytest.mark.kernel


def series_of(text: str) -> dict[tuple[str, ...], float]:
    """Each series by its name and the values of its labels, but for the mountpoint."""
    return {
        (s.name, *(v for k, v in sorted(s.labels.items()) if k != "mountpoint")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_others_see_a_growth(host: Host, tmp_path: Path) -> None:
    """All series are there from the first scrape, and the command gets each event of the log."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    textfile, got = tmp_path / "ebs.prom", tmp_path / "got"
    host.configure(
        metrics={"listen": port, "textfile": str(textfile)},
        notify={"command": ["sh", "-c", f"cat >>{got}"]},
    )

    def scrape() -> dict[tuple[str, ...], float]:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return series_of(answer.read().decode())

    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        before = scrape()
        host.fill(25)
        daemon.wait_event("step_started", step="AttachVolume")
        assert scrape()[("ebs_autoscale_growing",)] == 1
        daemon.wait_event("growth_done")
        until(lambda: not daemon.children(), "the end of the growth")
        until(lambda: scrape()[("ebs_autoscale_growing",)] == 0, "the next tick")
        after = scrape()
        assert set(before) == set(after)
        assert after[("ebs_autoscale_growths_total", "", "done")] == 1
        assert after[("ebs_autoscale_managed_volumes",)] == 1
        assert after[("ebs_autoscale_cost_usd_per_month",)] == pytest.approx(0.08)
        assert after[("ebs_autoscale_attachment_slots_free",)] >= 1
        slots = before[("ebs_autoscale_attachment_slots_free",)]
        assert after[("ebs_autoscale_attachment_slots_free",)] == slots - 1
        assert after[("ebs_autoscale_size_bytes",)] > before[("ebs_autoscale_size_bytes",)]
        assert after[("ebs_autoscale_ec2_calls_total", "CreateVolume", "success")] == 1
        assert after[("ebs_autoscale_step_duration_seconds_count", "CreateVolume")] == 1
        assert after[("ebs_autoscale_last_growth_timestamp_seconds",)] > 0
        assert set(series_of(textfile.read_text())) == set(after)
        until(lambda: "growth_done" in got.read_text(), "the command")
        assert daemon.stop() == 0
    assert textfile.exists()
    heard = [json.loads(line) for line in got.read_text().splitlines()]
    assert [each["event"] for each in heard] == [each["event"] for each in events_in(daemon.log)]
    assert {each["mountpoint"] for each in heard} == {str(host.mountpoint)}


def test_a_command_that_misbehaves_changes_nothing(host: Host) -> None:
    """Whatever it does, a growth is as without it, and nothing of the command is left."""
    misdeeds = "for i in 1 2 3; do setsid sleep 600 & done; head -c 10000000 /dev/zero; sleep 600"
    host.configure(notify={"command": ["sh", "-c", misdeeds]})
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.fill(25)
        daemon.wait_event("growth_done")
        assert daemon.stop() == 0
    remains = ["pgrep", "--full", "sleep 600"]
    until(lambda: subprocess.run(remains, check=False, capture_output=True).returncode, "its end")
    assert host.leaked() == []
