"""A sandbox from outside: start it as a child process, steer it, see what it saw."""

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

from ebs_autoscale.errors import ConfigInvalid, Unfit
from ec2_sandbox.faults import FaultRule
from ec2_sandbox.journal import Call
from ec2_sandbox.settings import SandboxSettings

# Starting takes 0.4 s on an idle machine.
_START_TIMEOUT_SECONDS = 30.0
_STOP_TIMEOUT_SECONDS = 10.0
_CONTROL_TIMEOUT_SECONDS = 10.0
_ENDPOINT = "AWS_ENDPOINT_URL_EC2"


def client_environment(url: str) -> dict[str, str]:
    """Name what sends an AWS client to the sandbox at this address, credentials included.

    Credentials come from the simulated metadata service, never from the files of whoever runs it.
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
    """A volume as the sandbox has it; `node` is the kernel name of its device while it shows."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxState:
    """The world at one moment; `problems` are what the simulation could not do."""

    clock_seconds: float
    instance_state: str
    volumes: tuple[VolumeSeen, ...]
    problems: tuple[str, ...]


class SandboxControl:
    """Steers a running sandbox through its control endpoint."""

    def __init__(self, url: str) -> None:
        self.endpoint_url = url

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that a client process needs; it must have no AWS keys of its own."""
        return client_environment(self.endpoint_url)

    def journal(self, since: int = 0) -> list[Call]:
        """Every call from this sequence number on, EC2's and metadata's, in order of arrival."""
        return [Call(**call) for call in self._ask("GET", f"journal?since={since}")]

    def calls(self, action: str | None = None) -> list[Call]:
        """EC2 calls so far, of one action or of all."""
        return [
            call
            for call in self.journal()
            if (call.action == action if action else call.action != "IMDS")
        ]

    def state(self) -> SandboxState:
        """The world now."""
        seen = self._ask("GET", "state")
        volumes = tuple(VolumeSeen(**volume) for volume in seen.pop("volumes"))
        return SandboxState(**{**seen, "volumes": volumes, "problems": tuple(seen["problems"])})

    def add_fault(self, rule: FaultRule) -> None:
        """Let calls fail by this rule, after the rules there are."""
        self._ask("POST", "faults", rule.to_mapping())

    def clear_faults(self) -> None:
        """Let calls go right again."""
        self._ask("DELETE", "faults")

    def set_policy(self, document: Mapping[str, Any] | None) -> None:
        """Let the instance's role have this IAM policy and no other; None allows everything."""
        self._ask("POST", "policy", {"policy": document})

    def show_device(self, volume_id: str, *, shown: bool) -> None:
        """Let the device of an attached volume be late, or come, whatever EC2 says of it.

        As at a boot before all devices are there; it comes back under the next free name.
        """
        self._ask("POST", "device", {"volume_id": volume_id, "shown": shown})

    def advance(self, seconds: float) -> None:
        """Let the sandbox clock jump; what falls due has happened when this returns."""
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
            raise ConfigInvalid(f"sandbox, {method} {place}: {answer['error']}")
        return answer


class Sandbox(SandboxControl):
    """A sandbox in a child process that ends with this one, however this one ends."""

    def __init__(
        self, process: "subprocess.Popen[str]", *, url: str, settings: SandboxSettings
    ) -> None:
        super().__init__(url)
        self.settings = settings
        self._process = process

    @classmethod
    def start(cls, settings: SandboxSettings, *, directory: Path) -> Self:
        """Start one that keeps its files in `directory`, and wait until it answers.

        Raises Unfit, with what it said, when it cannot.
        """
        argv = [sys.executable, "-I", "-m", "ec2_sandbox"]
        argv += ["--settings", "-", "--until-stdin-closes", "--directory", str(directory)]
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            url = _first_url(process, settings)
            if not url:
                _end(process)
                complaints.seek(0)
                last = complaints.read().strip().splitlines()[-1:]
                said = last[0] if last else "it said nothing"
                raise Unfit(f"the sandbox does not start: {said}", cause="sandbox")
        return cls(process, url=url, settings=settings)

    @property
    def instance_id(self) -> str:
        """The simulated instance."""
        return self.settings.instance_id

    @property
    def owner_arn(self) -> str:
        """The ARN of the simulated instance."""
        return self.settings.owner_arn

    @property
    def pid(self) -> int:
        """The child process, for tests that want to see it die."""
        return self._process.pid

    def stop(self) -> None:
        """End it, with its links and devices; a second time does nothing."""
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
    """Hand the settings over and read where it listens; empty when it ends or takes too long."""
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
        raise ValueError("a sandbox is started with pipes")
    return process.stdin, process.stdout
