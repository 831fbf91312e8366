"""A sandbox inside the test process, and the real boto3 talking to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from ec2_sandbox.client import SandboxControl, VolumeSeen
from ec2_sandbox.http.server import SandboxServer
from ec2_sandbox.settings import SandboxSettings
from ec2_sandbox.world.clock import SandboxClock

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client


class Rig:
    """A running sandbox with a client; by default its clock stands still until advanced."""

    def __init__(self, control: SandboxControl, settings: SandboxSettings) -> None:
        self.settings = settings
        self.control = control
        self.ec2 = self.client()

    def client(self, *, attempts: int = 1, read_timeout: float = 10) -> "EC2Client":
        """Make a client with this number of attempts."""
        return _client(self.control.endpoint_url, attempts=attempts, read_timeout=read_timeout)

    def create(self, **changes: Any) -> str:
        """Create a volume; returns its id."""
        params = {"Size": 10, "VolumeType": "gp3", "AvailabilityZone": self.settings.zone}
        return self.ec2.create_volume(**{**params, **changes})["VolumeId"]

    def attach(self, volume_id: str, device: str = "/dev/xvdba") -> None:
        """Attach a volume."""
        self.ec2.attach_volume(
            VolumeId=volume_id, InstanceId=self.settings.instance_id, Device=device
        )

    def attached(self, device: str = "/dev/xvdba", **changes: Any) -> str:
        """Create and attach a volume, and advance the clock until both are complete."""
        volume_id = self.create(**changes)
        self.control.advance(100)
        self.attach(volume_id, device)
        self.control.advance(100)
        return volume_id

    def seen(self, volume_id: str) -> VolumeSeen:
        """The real state of a volume, not that of the API."""
        return {volume.id: volume for volume in self.control.state().volumes}[volume_id]

    def is_gone(self, volume_id: str) -> bool:
        """Whether the volume does not exist, visible or not."""
        return all(volume.id != volume_id for volume in self.control.state().volumes)

    def raw(self, method: str, target: str, **headers: str) -> tuple[int, str]:
        """Send a request without boto3; returns status and body."""
        connection = HTTPConnection(urlsplit(self.control.endpoint_url).netloc, timeout=10)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, target, headers=names)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def query(self, **form: str) -> tuple[int, str]:
        """Send a form unchanged, valid or not."""
        return self.raw("GET", f"/?{urlencode(form)}")


Start = Callable[..., Rig]


# boto3 needs 60 ms for a client and its first call; sandboxes share ports so that tests can share.
@lru_cache
def _client(url: str, *, attempts: int, read_timeout: float) -> "EC2Client":
    return boto3.client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="test",  # noqa: S106 -- no secret
        config=Config(
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
        ),
    )


@contextmanager
def refused(code: str, *, saying: str = "") -> Iterator[None]:
    """Expect an error of EC2 with this code and these words in its message."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error["Message"]
    assert saying in error["Message"]


def eventually(condition: Callable[[], object], *, seconds: float = 10) -> None:
    """Wait until a condition holds, with a bound."""
    clock = SandboxClock(1.0)
    while not condition():
        assert clock.seconds() < seconds, "the condition did not come true in time"
        clock.pause(0.01)


@pytest.fixture(scope="session")
def ports() -> list[int]:
    """Ports that earlier sandboxes had."""
    return []


def _server(settings: SandboxSettings, directory: Path, ports: list[int]) -> SandboxServer:
    if ports:
        with suppress(OSError):
            return SandboxServer(settings, directory=directory, port=ports.pop())
    return SandboxServer(settings, directory=directory)


@pytest.fixture
def start(tmp_path: Path, ports: list[int]) -> Iterator[Start]:
    """Start sandboxes with the settings given; they end with the test."""
    servers: list[SandboxServer] = []

    def starting(**settings: Any) -> Rig:
        server = _server(SandboxSettings(**{"speed": 0.0, **settings}), tmp_path, ports)
        server.start()
        servers.append(server)
        return Rig(SandboxControl(server.url), server.world.settings)

    yield starting
    for server in servers:
        server.stop()
        ports.append(urlsplit(server.url).port or 0)


@pytest.fixture
def rig(start: Start) -> Rig:
    """A sandbox with the settings of the `instant` preset."""
    return start()
