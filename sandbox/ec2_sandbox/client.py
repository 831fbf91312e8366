"""A running sandbox, seen from a test: start it as a child process, control it, inspect it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from ec2_sandbox.devices.failing import DeviceFault
from ec2_sandbox.errors import HostUnfit, InputInvalid
from ec2_sandbox.faults import FaultRule
from ec2_sandbox.journal import Call
from ec2_sandbox.settings import SandboxSettings

# Starting takes 0.4 s on an idle machine.
_START_TIMEOUT_SECONDS = 30.0
_STOP_TIMEOUT_SECONDS = 10.0
_CONTROL_TIMEOUT_SECONDS = 10.0
_ENDPOINT = "AWS_ENDPOINT_URL_EC2"


def client_environment(url: str) -> dict[str, str]:
    """Return the environment variables that direct an AWS client to the sandbox at this URL.

    Credentials come from the simulated metadata service, never from the user's own files.
    """
    return {
        _ENDPOINT: url,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
        "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSeen:
    """The state of a volume; `node` is the kernel name of its device.

    `modification` is the state of the last of so many `modifications`. What a volume does not have
    is empty.
    """

    id: str
    size_gib: int
    type: str
    encrypted: bool
    state: str
    tags: Mapping[str, str]
    device: str
    attachment_state: str
    delete_on_termination: bool
    node: str
    modification: str = ""
    modifications: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxState:
    """The simulated account at one moment; `problems` lists what the simulation failed to do."""

    clock_seconds: float
    instance_state: str
    volumes: tuple[VolumeSeen, ...]
    problems: tuple[str, ...]


class SandboxControl:
    """Controls a running sandbox through its control endpoint."""

    def __init__(self, url: str) -> None:
        self.endpoint_url = url

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for a client process, which must have no AWS credentials of its own."""
        return client_environment(self.endpoint_url)

    def journal(self, since: int = 0) -> list[Call]:
        """EC2 and metadata calls from this sequence number on, in order of arrival."""
        return [Call(**call) for call in self._ask("GET", f"journal?since={since}")]

    def calls(self, action: str | None = None) -> list[Call]:
        """EC2 calls so far, of one action or of all actions."""
        return [
            call
            for call in self.journal()
            if (call.action == action if action else call.action != "IMDS")
        ]

    def state(self) -> SandboxState:
        """The present state of the account."""
        seen = self._ask("GET", "state")
        volumes = tuple(VolumeSeen(**volume) for volume in seen.pop("volumes"))
        return SandboxState(**{**seen, "volumes": volumes, "problems": tuple(seen["problems"])})

    def add_fault(self, rule: FaultRule) -> None:
        """Add a rule by which calls fail; earlier rules take precedence."""
        self._ask("POST", "faults", rule.to_mapping())

    def clear_faults(self) -> None:
        """Remove all fault rules."""
        self._ask("DELETE", "faults")

    def set_policy(self, document: Mapping[str, Any] | None) -> None:
        """Replace the IAM policy of the instance's role; None allows everything."""
        self._ask("POST", "policy", {"policy": document})

    def show_device(self, volume_id: str, *, shown: bool) -> None:
        """Hide or show the block device of an attached volume, without telling EC2.

        This is what a boot looks like before all devices have been found. A device that is
        shown again takes the next free name.
        """
        self._ask("POST", "device", {"volume_id": volume_id, "shown": shown})

    def fail_device(self, fault: DeviceFault, volume_id: str = "") -> None:
        """Let the block device of a volume fail, or work again; without an id, those to come.

        Needs the setting `failing_devices`.
        """
        self._ask("POST", "device_fault", {"volume_id": volume_id, "fault": fault})

    def grow_device(self, volume_id: str, size_bytes: int) -> None:
        """Enlarge the block device of a volume, without telling EC2.

        With a modification that is `stuck` or a `ghost`, this is a device that grows early or late,
        in steps, or to less than was asked for.
        """
        self._ask("POST", "device_size", {"volume_id": volume_id, "size_bytes": size_bytes})

    def operate(self, action: str, **params: Any) -> Any:
        """Carry out an EC2 action as an operator would; returns EC2's answer.

        No fault and no policy concerns it, and `calls` does not show it. Parameters are spelled as
        for boto3. Raises InputInvalid with EC2's error.
        """
        return self._ask("POST", "operator", {"action": action, "params": params})

    def put_snapshot(self, size_gib: int, content: Mapping[int, bytes]) -> str:
        """Make a snapshot with these bytes at these offsets; returns its id."""
        spelled = {str(offset): data.hex() for offset, data in content.items()}
        wanted = {"size_gib": size_gib, "content": spelled}
        return str(self._ask("POST", "snapshot", wanted)["id"])

    def put_volume(
        self,
        size_gib: int,
        *,
        tags: Mapping[str, str],
        content: Mapping[int, bytes] | None = None,
        **params: Any,
    ) -> str:
        """Create a volume as an operator or a backup service would; returns its id.

        With content, also an empty one, it is restored from a snapshot; else it is blank.
        """
        if content is not None:
            params["SnapshotId"] = self.put_snapshot(size_gib, content)
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        answer = self.operate(
            "CreateVolume",
            AvailabilityZone=self._ask("GET", "settings")["zone"],
            Size=size_gib,
            TagSpecifications=[{"ResourceType": "volume", "Tags": pairs}],
            **params,
        )
        return str(answer["VolumeId"])

    def expire_credentials(self) -> None:
        """Let EC2 refuse the credentials that the metadata service has given away so far."""
        self._ask("DELETE", "credentials")

    def advance(self, seconds: float) -> None:
        """Move the sandbox clock forward; everything due by then has happened on return."""
        self._ask("POST", "clock", {"advance_seconds": seconds})

    def _ask(self, method: str, place: str, content: Mapping[str, Any] | None = None) -> Any:
        host = urlsplit(self.endpoint_url).netloc
        connection = HTTPConnection(host, timeout=_CONTROL_TIMEOUT_SECONDS)
        try:
            body = json.dumps(content) if content is not None else None
            connection.request(method, f"/_sandbox/{place}", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != HTTPStatus.OK:
            raise InputInvalid(f"{method} {place}: {answer['error']}")
        return answer


class Sandbox(SandboxControl):
    """A sandbox in a child process, which ends when this process ends, even by SIGKILL."""

    def __init__(
        self, process: "subprocess.Popen[str]", *, url: str, settings: SandboxSettings
    ) -> None:
        super().__init__(url)
        self.settings = settings
        self._process = process

    @classmethod
    def start(cls, settings: SandboxSettings, *, directory: Path) -> Self:
        """Start a sandbox that stores its volumes in `directory`, and wait until it answers.

        Raises HostUnfit with the sandbox's error message when it cannot start.
        """
        argv = [sys.executable, "-I", "-m", "ec2_sandbox"]
        argv += ["--settings", "-", "--until-stdin-closes", "--directory", str(directory)]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            url = _first_url(process, settings)
            if not url:
                _end(process)
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:]
                reason = last[0] if last else "no error message"
                raise HostUnfit(f"the sandbox did not start: {reason}")
        return cls(process, url=url, settings=settings)

    @property
    def instance_id(self) -> str:
        """The id of the simulated instance."""
        return self.settings.instance_id

    @property
    def instance_arn(self) -> str:
        """The ARN of the simulated instance."""
        return self.settings.instance_arn

    @property
    def pid(self) -> int:
        """The id of the child process."""
        return self._process.pid

    def stop(self) -> None:
        """Stop the sandbox and remove its links and devices; safe to repeat."""
        _end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _first_url(process: "subprocess.Popen[str]", settings: SandboxSettings) -> str:
    """Send the settings and read the URL; empty when the sandbox ends or takes too long."""
    stdin, stdout = _pipes(process)
    try:
        stdin.write(settings.to_json() + "\n")
        stdin.flush()
    except BrokenPipeError:
        return ""
    with DefaultSelector() as selector:
        selector.register(stdout, EVENT_READ)
        if not selector.select(_START_TIMEOUT_SECONDS):
            return ""
    return stdout.readline().strip().partition(f"{_ENDPOINT}=")[2]


def _end(process: "subprocess.Popen[str]") -> None:
    stdin, stdout = _pipes(process)
    stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stdout.close()


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the sandbox process has no pipes")
    return process.stdin, process.stdout
