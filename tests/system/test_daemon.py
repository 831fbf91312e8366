"""The daemon as systemd and the operator see it."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.system.bench import MIB, Host, events_in, until

pytestmark = pytest.mark.kernel


def test_grows_and_says_so(host: Host) -> None:
    """A low filesystem grows by itself, and the log names each step with its growth and volume."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.fill(25)
        daemon.wait_event("growth_done")
        [volume] = host.volumes()
        steps = [e["step"] for e in events_in(daemon.log) if e["event"] == "step_done"]
        assert steps == ["CreateVolume", "AttachVolume", "AddDevice", "BalanceMetadata"]
        assert daemon.wait_event("step_done", step="AddDevice", volume=volume.id)
        assert "30 %" in daemon.wait_event("decided", decision="grow")["message"]
        assert volume.encrypted
        assert daemon.stop() == 0
    assert host.leaked() == []


@pytest.mark.parametrize("shown_as", ["nitro", "xen"])
def test_no_write_ever_fails(make_host: Callable[..., Host], shown_as: str) -> None:
    """A writer of more than there is room for never sees ENOSPC, by either kind of name."""
    host = make_host(
        block_devices=shown_as,
        create_seconds=(0.3, 0.6),
        attach_seconds=(0.3, 0.6),
        device_seconds=(0.0, 0.3),
    )
    host.fill(40)
    with host.daemon() as daemon, (host.mountpoint / "stream").open("wb", buffering=0) as stream:
        for _ in range(18):
            stream.write(bytes(range(256)) * (MIB // 4))
            until(lambda: host.read().available_bytes > 300 * MIB, "room again")
        until(lambda: not daemon.children(), "the last growth's end")
        assert daemon.stop() == 0
    assert host.devices > 2
    assert host.leaked() == []


def test_idle_costs_nothing(host: Host) -> None:
    """After its start-up look the idle daemon makes no EC2 call and starts no process."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        until(lambda: not daemon.children(), "the end of the start-up look")
        calls = len(host.sandbox.journal())
        process = psutil.Process(daemon.process.pid)
        spent = process.cpu_times()
        until(lambda: process.num_ctx_switches().voluntary > 20, "twenty waits", seconds=60)
        assert len(host.sandbox.journal()) == calls
        # What a process's children cost is added to it when they are reaped.
        assert process.cpu_times().children_user == spent.children_user
        assert not any("botocore" in entry.path for entry in process.memory_maps())
        assert process.memory_info().rss < 40 * MIB


def test_sd_notify(host: Host, tmp_path: Path) -> None:
    """Systemd hears READY once it watches, then WATCHDOG and STATUS, and STOPPING at the end."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(20)
        with host.daemon(NOTIFY_SOCKET=str(address)) as daemon:
            heard = [listener.recv(4096).decode()]
            while heard.count("WATCHDOG=1") < 3:
                heard.append(listener.recv(4096).decode())
            assert daemon.stop() == 0
            while heard[-1] != "STOPPING=1":
                heard.append(listener.recv(4096).decode())
    assert heard[0] == "READY=1"
    assert any(message.startswith("STATUS=") for message in heard)


def test_mount_lost(host: Host) -> None:
    """An unmounted filesystem is an alarm, never a reason to measure or grow what lies beneath."""
    node = f"/dev/{host.read().devices[0].name}"
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        until(lambda: not daemon.children(), "the end of the start-up look")
        calls = len(host.sandbox.journal())
        subprocess.run(["umount", str(host.mountpoint)], check=True)
        daemon.wait_event("condition_began", cause="not mounted")
        assert host.run("status").returncode == 5
        subprocess.run(["mount", node, str(host.mountpoint)], check=True)
        daemon.wait_event("condition_ended", cause="not mounted")
        assert len(host.sandbox.journal()) == calls
        assert daemon.stop() == 0


def test_refusal_is_told_once(host: Host) -> None:
    """At its limit the daemon says so once, keeps watching, and creates nothing."""
    host.configure(growth={"method": "add"}, limits={"volumes": 1})
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.fill(25)
        daemon.wait_event("growth_done")
        host.fill(20)
        daemon.wait_event("condition_began", cause="limits.volumes")
        status = host.run("status", "--json")
        assert status.returncode == 1
        assert list(json.loads(status.stdout)["daemon"]["conditions"]) == ["limits.volumes"]
        events = events_in(daemon.log)
        assert sum(event.get("cause") == "limits.volumes" for event in events) == 1
        assert daemon.stop() == 0
    assert len(host.volumes()) == 1


def test_killed_daemon_leaves_nothing_in_the_way(host: Host) -> None:
    """After kill -9 neither a stale report nor a stale lock misleads anyone."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        daemon.kill()
    assert host.status()["daemon"] is None
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        assert host.status()["daemon"]["pid"] == daemon.process.pid
        assert daemon.stop() == 0
    assert host.status()["daemon"] is None


def test_calls_of_a_growth(make_host: Callable[..., Host]) -> None:
    """An undisturbed growth makes eight EC2 calls at the most, with the latencies EC2 has."""
    host = make_host(
        create_seconds=(1.0, 2.0), attach_seconds=(1.5, 3.0), device_seconds=(0.05, 0.5)
    )
    assert host.run("grow").returncode == 0
    assert len(host.sandbox.calls()) <= 8
    assert all(volume.delete_on_termination for volume in host.volumes())
