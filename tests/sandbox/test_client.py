"""The sandbox as a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ec2_sandbox.client import Sandbox, SandboxControl
from ec2_sandbox.errors import HostUnfit
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.settings import SandboxSettings

from tests.sandbox.conftest import eventually
from tests.system.bench import ec2_of


def answers(url: str) -> bool:
    """Whether a sandbox is there."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", "/_sandbox/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def foreground(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program as a person would."""
    argv = [sys.executable, "-I", "-m", "ec2_sandbox", *arguments]
    with subprocess.Popen(
        argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_child_process_serves_and_ends(tmp_path: Path) -> None:
    """Started, it answers boto3, is steered, tells what it saw, and ends without a trace."""
    with Sandbox.start(SandboxSettings(create_seconds=(60, 60)), directory=tmp_path) as sandbox:
        ec2 = ec2_of(sandbox)
        sandbox.add_fault(FaultRule(kind=FaultKind.THROTTLE, action="CreateVolume", times=1))
        volume_id = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
        sandbox.advance(60)
        states = {volume.id: volume.state for volume in sandbox.state().volumes}
        assert states[volume_id] == "available"
        outcomes = [call.outcome for call in sandbox.calls("CreateVolume")]
        assert outcomes == ["RequestLimitExceeded", "ok"]
        assert sandbox.instance_arn.endswith(f":123456789012:instance/{sandbox.instance_id}")
    assert not answers(sandbox.endpoint_url)
    assert list(tmp_path.iterdir()) == []
    sandbox.stop()


def test_a_sandbox_that_cannot_start_says_why(tmp_path: Path) -> None:
    """What the child complained of is in the error."""
    with pytest.raises(HostUnfit, match="No such file"):
        Sandbox.start(SandboxSettings(block_devices="nitro"), directory=tmp_path / "nowhere")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """A parent killed without mercy takes its sandbox along."""
    program = (
        "import sys, pathlib\n"
        "from ec2_sandbox.client import Sandbox\n"
        "from ec2_sandbox.settings import SandboxSettings\n"
        f"sandbox = Sandbox.start(SandboxSettings(), directory=pathlib.Path({str(tmp_path)!r}))\n"
        "print(sandbox.endpoint_url, flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-I", "-c", program]
    with subprocess.Popen(argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert answers(url)
        parent.kill()
    eventually(lambda: not answers(url))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_prints_what_a_shell_needs(number: signal.Signals) -> None:
    """In the foreground it prints export lines that work, and a signal ends it with 0."""
    with foreground() as process:
        assert process.stdout is not None
        exports = {}
        for line in iter(process.stdout.readline, "# press Ctrl-C to stop\n"):
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exports[name] = value
        region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")
        control = SandboxControl(exports["AWS_ENDPOINT_URL_EC2"])
        assert dict(control.environment) | region == exports
        assert control.state().instance_state == "running"
        process.send_signal(number)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("settings", "status", "complaint"),
    [('{"colour": 1}', 2, "unknown key 'colour'"), (None, 2, "cannot read the settings")],
)
def test_wrong_settings_end_it(
    tmp_path: Path, settings: str | None, status: int, complaint: str
) -> None:
    """A mistake in the settings is exit status 2 and one sentence."""
    path = tmp_path / "settings.json"
    if settings is not None:
        path.write_text(settings)
    with foreground("--settings", str(path)) as process:
        assert process.wait(20) == status
        assert process.stderr is not None
        (sentence,) = process.stderr.read().splitlines()
        assert complaint in sentence


def test_a_port_in_use_is_no_traceback() -> None:
    """An environment that does not allow it is exit status 5 and one sentence."""
    with foreground() as first:
        assert first.stdout is not None
        port = urlsplit(first.stdout.readline().strip().partition("=")[2]).port
        with foreground("--port", str(port)) as second:
            assert second.wait(20) == 5
            assert second.stderr is not None
            assert "Address already in use" in second.stderr.read()
