"""`check` on hosts that are fit, broken, half broken and hanging: it tells, and changes nothing."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.host.fstab import line_for
from tests.system.bench import GIB, Host

pytestmark = pytest.mark.kernel

# What a person still waits for.
PATIENCE_SECONDS = 15.0

HOST_LINES = {"user", "kernel", "tools", "python", "run", "log", "nvme", "unit"}


def lines_of(host: Host) -> dict[str, list[dict[str, str]]]:
    """The lines of `check --json` by name, and in time."""
    began = monotonic()
    ran = host.run("check", "--json")
    assert monotonic() - began < PATIENCE_SECONDS
    assert ran.stderr == ""
    found: dict[str, list[dict[str, str]]] = {}
    for line in json.loads(ran.stdout):
        assert line.keys() == {"name", "verdict", "sentence", "hint"}
        assert line["hint"] or line["verdict"] == "ok"
        found.setdefault(line["name"], []).append(line)
    return found


def verdicts(lines: dict[str, list[dict[str, str]]], *names: str) -> set[str]:
    """The verdicts of all lines of these names; each name has one at least."""
    return {line["verdict"] for name in names for line in lines[name]}


@pytest.fixture
def fstab(tmp_path: Path) -> Iterator[Path]:
    """This host's table, for this test alone."""
    table = tmp_path / "fstab"
    table.touch()
    subprocess.run(["mount", "--bind", str(table), "/etc/fstab"], check=True)
    yield table
    subprocess.run(["umount", "--lazy", "/etc/fstab"], check=True)


def test_fit(host: Host, fstab: Path) -> None:
    """On a fit host with its daemon every line is ok, with exit 0, and nothing is changed."""
    fstab.write_text(line_for(host.read().filesystem, str(host.mountpoint)), "utf-8")
    with host.daemon() as daemon:
        daemon.wait_for("hold: ")
        lines = lines_of(host)
        assert str(daemon.process.pid) in lines["daemon"][0]["sentence"]
        assert {line["verdict"] for each in lines.values() for line in each} == {"ok"}
        expected = {"config", "mount", "members", "fstab", "daemon", "instance", "ec2", "clock"}
        assert lines.keys() == HOST_LINES | expected | {"slots", "quota"}
        assert host.run("check").returncode == 0
        assert daemon.stop() == 0
    assert host.volumes() == []


def test_without_rights(host: Host) -> None:
    """The denied action is named with what to do, and the exit code is 5."""
    rule = FaultRule(
        kind=FaultKind.ERROR, action="CreateVolume", code="UnauthorizedOperation", status=403
    )
    host.sandbox.add_fault(rule)
    ran = host.run("check")
    assert ran.returncode == 5
    assert "fail ec2         CreateVolume, CreateTags: " in ran.stdout
    assert "UnauthorizedOperation" in ran.stdout


@pytest.mark.parametrize("text", [None, "mountpoint: scratch\n", "\0"])
def test_without_configuration(host: Host, text: str | None) -> None:
    """A configuration that is missing or wrong fails, with exit 2, and the host is looked at."""
    host.config.unlink() if text is None else host.config.write_text(text, "utf-8")
    lines = lines_of(host)
    assert lines["config"][0]["verdict"] == "fail"
    assert lines.keys() == {"config"} | HOST_LINES
    assert host.run("check").returncode == 2
    assert host.sandbox.journal() == []


def test_not_root(host: Host) -> None:
    """Without root that is a failure, and everything else is looked at all the same."""
    # May read everywhere: pytest keeps its folders from everybody else.
    reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    ran = host.run("check", before=("setpriv", "--reuid", "65534", "--clear-groups", *reads, "--"))
    assert ran.returncode == 5
    assert "fail user        not running as root" in ran.stdout
    assert "ok   kernel" in ran.stdout
    assert "ok   slots" in ran.stdout
    assert ran.stderr == ""


def test_no_metadata_service(host: Host) -> None:
    """Off EC2 there is one failed line about it, exit 5, and the mount is looked at."""
    host.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:9"
    lines = lines_of(host)
    assert "instance metadata" in lines["instance"][0]["sentence"]
    assert verdicts(lines, "mount", "members") == {"ok"}
    assert "ec2" not in lines


@contextmanager
def silence() -> Iterator[str]:
    """A server that takes calls and never answers: its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("variable", "name"),
    [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "instance"), ("AWS_ENDPOINT_URL_EC2", "ec2")],
)
def test_silence(host: Host, variable: str, name: str) -> None:
    """When EC2 or its metadata service does not answer, that is told in time, and only once."""
    with silence() as address:
        host.environment[variable] = address
        lines = lines_of(host)
    [line] = lines[name]
    assert line["verdict"] == "fail"
    assert verdicts(lines, "mount", "kernel") == {"ok"}


def test_an_answer_that_is_not_ec2s(host: Host) -> None:
    """A proxy that answers in EC2's place is told as such, once."""
    address = host.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    host.environment["AWS_ENDPOINT_URL_EC2"] = f"{address}/latest/nothing"
    [line] = lines_of(host)["ec2"]
    assert "the answer is not EC2's" in line["sentence"]
    assert "proxy" in line["hint"]


def test_hanging_tool(host: Host, tmp_path: Path) -> None:
    """A tool that hangs costs its own line, in time; the others are told."""
    tool = tmp_path / "btrfs"
    tool.write_text("#!/bin/sh\nexec sleep 600\n", "utf-8")
    tool.chmod(0o755)
    host.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    lines = lines_of(host)
    assert "fail" in verdicts(lines, "tools")
    assert "timed out" in lines["tools"][0]["sentence"]
    assert verdicts(lines, "mount", "ec2") == {"ok"}


@pytest.mark.parametrize(("ahead", "verdict"), [(-100.0, "warn"), (400.0, "fail")])
def test_clock(make_host: Callable[..., Host], ahead: float, verdict: str) -> None:
    """A clock that is wrong is told with how far, also when EC2 refuses every call for it."""
    host = make_host(date_ahead_seconds=ahead)
    if verdict == "fail":
        host.sandbox.add_fault(
            FaultRule(kind=FaultKind.ERROR, action="*", code="RequestExpired", status=400)
        )
    lines = lines_of(host)
    [line] = lines["clock"]
    assert line["verdict"] == verdict
    assert ("ahead of EC2" if ahead < 0 else "behind EC2") in line["sentence"]
    if verdict == "fail":
        assert len(lines["ec2"]) == 1


def test_leftovers(host: Host) -> None:
    """A volume of ours that serves no filesystem is named, attached or not."""
    assert host.run("grow").returncode == 0
    [first] = host.volumes()
    subprocess.run(["btrfs", "device", "remove", f"/dev/{first.node}", host.mountpoint], check=True)
    assert f"attached, but no device: {first.id}" in host.run("check").stdout
    host.fill(10)
    rule = FaultRule(kind=FaultKind.ERROR, action="AttachVolume", code="UnauthorizedOperation")
    host.sandbox.add_fault(rule)
    host.run("grow")
    loose = next(volume.id for volume in host.volumes() if volume.id != first.id)
    assert f"in no filesystem: {loose}" in host.run("check").stdout


def test_missing_member(host: Host, loop: Callable[[int], LoopDevice], fstab: Path) -> None:
    """Of a filesystem that lacks a device, mounted or not, the missing one is told."""
    point = host.mountpoint.with_name("two")
    point.mkdir()
    first, second = loop(GIB), loop(GIB)
    subprocess.run(
        ["mkfs.btrfs", "--quiet", "-m", "raid1", first.node, second.node],
        check=True,
    )
    shown = ["blkid", "-p", "-o", "value", "-s", "UUID", first.node]
    uuid = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
    fstab.write_text(line_for(uuid, str(point)), "utf-8")
    host.configure()
    host.config.write_text(host.config.read_text("utf-8").replace(str(host.mountpoint), str(point)))
    second.close()
    subprocess.run(["btrfs", "device", "scan", "--forget"], check=False)

    lines = lines_of(host)
    assert "not mounted" in lines["mount"][0]["sentence"]
    assert f"{uuid}: 1 of its 2 devices are here (devid 1)" in lines["members"][0]["sentence"]

    subprocess.run(["mount", "-o", "degraded", first.node, str(point)], check=True)
    try:
        lines = lines_of(host)
        assert "lost its device with devid 2" in lines["members"][0]["sentence"]
        assert verdicts(lines, "members") == {"fail"}
    finally:
        subprocess.run(["umount", str(point)], check=True)
