"""A sandbox as a child process, as a test starts it."""

import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ec2_sandbox.client import Sandbox
from ec2_sandbox.errors import HostUnfit
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.settings import SandboxSettings

from tests.sandbox.conftest import eventually
from tests.system.bench import ec2_of


def answers(url: str) -> bool:
    """Whether a sandbox answers."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", "/_sandbox/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_a_child_process_serves_and_ends(tmp_path: Path) -> None:
    """It answers boto3, is controlled, reports its calls, and ends without a trace."""
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
    """The error message of the child process is in the exception."""
    with pytest.raises(HostUnfit, match="No such file"):
        Sandbox.start(SandboxSettings(block_devices="nitro"), directory=tmp_path / "nowhere")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """It ends even when its parent is killed with SIGKILL."""
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
