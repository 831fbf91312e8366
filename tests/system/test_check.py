"""`check` on hosts that are fit, broken and hanging: it reports, and changes nothing."""

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
from tests.unit.samples import policy_of

pytestmark = pytest.mark.kernel

# As long as an operator waits.
PATIENCE_SECONDS = 15.0

EC2_LINES = {"instance", "ec2", "clock", "slots", "quota"}
HOST_LINES = {"user", "kernel", "tools", "python", "run", "log", "nvme", "unit"}


def lines_of(
    host: Host, *arguments: str, before: tuple[str, ...] = ()
) -> dict[str, list[dict[str, str]]]:
    """The lines of `check --json` by name; they come in time."""
    began = monotonic()
    ran = host.run("check", "--json", *arguments, before=before)
    assert monotonic() - began < PATIENCE_SECONDS
    assert ran.stderr == ""
    found: dict[str, list[dict[str, str]]] = {}
    for line in json.loads(ran.stdout):
        assert line.keys() - {"statements"} == {"name", "verdict", "sentence", "hint"}
        assert line["hint"] or line["verdict"] == "ok"
        found.setdefault(line["name"], []).append(line)
    return found


def verdicts(lines: dict[str, list[dict[str, str]]], *names: str) -> set[str]:
    """The verdicts of all lines of these names; each name has one at least."""
    return {line["verdict"] for name in names for line in lines[name]}


@pytest.fixture
def fstab(tmp_path: Path) -> Iterator[Path]:
    """An fstab for this test alone."""
    table = tmp_path / "fstab"
    table.touch()
    subprocess.run(["mount", "--bind", str(table), "/etc/fstab"], check=True)
    yield table
    subprocess.run(["umount", "--lazy", "/etc/fstab"], check=True)


def test_fit(host: Host, fstab: Path) -> None:
    """On a fit host with its daemon every line is ok, with exit 0, and nothing is changed."""
    fstab.write_text(line_for(host.read().filesystem, str(host.mountpoint)), "utf-8")
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        lines = lines_of(host)
        assert str(daemon.process.pid) in lines["daemon"][0]["sentence"]
        assert {line["verdict"] for each in lines.values() for line in each} == {"ok"}
        expected = {"config", "mount", "members", "fstab", "daemon"}
        assert lines.keys() == HOST_LINES | expected | EC2_LINES
        assert host.run("check").returncode == 0
        assert daemon.stop() == 0
    assert host.volumes() == []


def test_without_rights(host: Host) -> None:
    """A denied action is named, with exit 5; the text fits the terminal, and a policy ends it."""
    [look, create, *rest] = policy_of()["Statement"]
    host.sandbox.set_policy(policy_of() | {"Statement": [look, *rest]})
    host.environment["COLUMNS"] = "80"
    ran = host.run("check")
    assert ran.returncode == 5
    text, _, tail = ran.stdout.partition("\n{")
    assert all(len(line) <= 80 or " " not in line[17:].strip() for line in text.splitlines())
    statements = json.loads("{" + tail)["Statement"]
    assert create in statements
    lines = lines_of(host)
    [line] = [line for line in lines["ec2"] if line["verdict"] == "fail"]
    assert "CreateVolume" in line["sentence"]
    assert "UnauthorizedOperation" in line["sentence"]
    assert [line["statements"] for line in lines["policy"]] == [statements]


@pytest.mark.parametrize("text", ["mountpoint: scratch\n", "\0"])
def test_with_an_invalid_configuration(host: Host, text: str) -> None:
    """An invalid configuration fails with exit 2, and only the host is checked."""
    host.config.write_text(text, "utf-8")
    lines = lines_of(host)
    assert lines["config"][0]["verdict"] == "fail"
    assert lines.keys() == {"config"} | HOST_LINES
    assert host.run("check").returncode == 2
    assert host.sandbox.journal() == []


def test_without_a_configuration(host: Host) -> None:
    """Without one and without a mountpoint, exit 2 leads to `init`; EC2 is checked all the same."""
    host.config.unlink()
    lines = lines_of(host)
    assert lines["config"][0]["verdict"] == "fail"
    assert f"--config {host.config} init MOUNTPOINT" in lines["config"][0]["hint"]
    assert lines.keys() == {"config"} | HOST_LINES | EC2_LINES
    assert host.run("check").returncode == 2


def test_before_init(host: Host) -> None:
    """Before anything exists all is checked that can be; what is missing leads to `init`."""
    host.config.unlink()
    new = host.mountpoint.with_name("new")
    lines = lines_of(host, str(new))
    assert lines.keys() == {"config", "mount", "fstab", "daemon"} | HOST_LINES | EC2_LINES
    assert verdicts(lines, "config", "fstab", "daemon") == {"warn"}
    assert verdicts(lines, "mount", "ec2", "slots") == {"ok"}
    hints = [lines[name][0]["hint"] for name in ("config", "fstab", "daemon")]
    assert set(hints) == {f"run `ebs-autoscale --config {host.config} init {new}`"}
    assert not new.exists()
    assert not host.config.exists()
    assert host.volumes() == []

    new.mkdir()
    (new / "hidden").touch()
    assert verdicts(lines_of(host, str(new)), "mount") == {"fail"}
    # What is mounted, `init` would take as it is.
    lines = lines_of(host, str(host.mountpoint))
    assert verdicts(lines, "mount", "members") == {"ok"}
    assert host.run("check", str(host.mountpoint)).returncode == 0


def test_the_configuration_of_another_mountpoint(host: Host) -> None:
    """A configuration that is given and is for another mountpoint is invalid: both are named."""
    [line] = lines_of(host, "/other")["config"]
    assert line["verdict"] == "fail"
    assert all(each in line["sentence"] for each in ("/other", str(host.mountpoint)))
    assert {line["verdict"] for line in lines_of(host, str(host.mountpoint))["config"]} == {"ok"}


def test_not_root(host: Host) -> None:
    """Without root that is a failure, and everything else is checked all the same."""
    # pytest's folders are for root only.
    reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    as_nobody = ("setpriv", "--reuid", "65534", "--clear-groups", *reads, "--")
    assert host.run("check", before=as_nobody).returncode == 5
    lines = lines_of(host, before=as_nobody)
    assert verdicts(lines, "user") == {"fail"}
    assert verdicts(lines, "kernel", "slots") == {"ok"}


def test_no_metadata_service(host: Host) -> None:
    """Off EC2 there is one failed line about it, and the mount is checked."""
    host.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:9"
    lines = lines_of(host)
    assert verdicts(lines, "instance") == {"fail"}
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
    """When EC2 or its metadata service does not answer, one line says so, in time."""
    with silence() as address:
        host.environment[variable] = address
        lines = lines_of(host)
    [line] = lines[name]
    assert line["verdict"] == "fail"
    assert verdicts(lines, "mount", "kernel") == {"ok"}


def test_an_answer_that_is_not_ec2s(host: Host) -> None:
    """A proxy that answers in EC2's place is one failed line."""
    address = host.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    host.environment["AWS_ENDPOINT_URL_EC2"] = f"{address}/latest/nothing"
    [line] = lines_of(host)["ec2"]
    assert line["verdict"] == "fail"
    assert "proxy" in line["hint"]


def test_hanging_tool(host: Host, tmp_path: Path) -> None:
    """A tool that hangs is a failed line, in time; the other checks go on."""
    tool = tmp_path / "btrfs"
    tool.write_text("#!/bin/sh\nexec sleep 600\n", "utf-8")
    tool.chmod(0o755)
    host.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    lines = lines_of(host)
    assert lines["tools"][0]["verdict"] == "fail"
    assert "btrfs --version" in lines["tools"][0]["sentence"]
    assert verdicts(lines, "mount", "ec2") == {"ok"}


@pytest.mark.parametrize(("ahead", "verdict"), [(-100.0, "warn"), (400.0, "fail")])
def test_clock(make_host: Callable[..., Host], ahead: float, verdict: str) -> None:
    """A wrong clock has a line, also when EC2 refuses every call because of it."""
    host = make_host(date_ahead_seconds=ahead)
    if verdict == "fail":
        host.sandbox.add_fault(
            FaultRule(kind=FaultKind.ERROR, action="*", code="RequestExpired", status=400)
        )
    lines = lines_of(host)
    [line] = lines["clock"]
    assert line["verdict"] == verdict
    if verdict == "fail":
        assert len(lines["ec2"]) == 1


def test_orphaned_volumes(host: Host) -> None:
    """A managed volume that is in no filesystem is named, attached or not."""
    assert host.run("grow").returncode == 0
    [first] = host.volumes()
    subprocess.run(["btrfs", "device", "remove", f"/dev/{first.node}", host.mountpoint], check=True)
    [line] = lines_of(host)["leftovers"]
    assert first.id in line["sentence"]
    host.fill(10)
    rule = FaultRule(kind=FaultKind.ERROR, action="AttachVolume", code="UnauthorizedOperation")
    host.sandbox.add_fault(rule)
    host.run("grow")
    [second] = [volume.id for volume in host.volumes() if volume.id != first.id]
    sentences = [line["sentence"] for line in lines_of(host)["leftovers"]]
    assert any(second in sentence for sentence in sentences)


def test_missing_device(host: Host, loop: Callable[[int], LoopDevice], fstab: Path) -> None:
    """A filesystem that lacks a device fails, mounted or not."""
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
    assert verdicts(lines, "mount", "members") == {"fail"}
    assert uuid in lines["members"][0]["sentence"]

    subprocess.run(["mount", "-o", "degraded", first.node, str(point)], check=True)
    try:
        lines = lines_of(host)
        assert verdicts(lines, "members") == {"fail"}
        assert "devid 2" in lines["members"][0]["sentence"]
    finally:
        subprocess.run(["umount", str(point)], check=True)
