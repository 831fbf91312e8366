"""A host with a small BTRFS filesystem, an EC2 beside it, and the installed program."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
import yaml
from ec2_sandbox.client import Sandbox, VolumeSeen

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.model import Reading
from ebs_autoscale.wiring import mounted_at
from tests.program import PROGRAM

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import TagTypeDef

GIB = 1024**3

# What a test sets itself: credentials and endpoints, and the width for which pytest-xdist sets one.
OUTSIDE = ("AWS_", "COLUMNS")
MIB = 1024**2

# Small enough for a test, large enough for BTRFS to behave as it does on large ones.
CONFIG: Mapping[str, Any] = {
    "threshold": {"available": "30%", "available_min": "128MiB", "lead_time": "off"},
    "growth": {"size": "1GiB", "min": "1GiB"},
    "poll": {"max": "500ms"},
    "logging": {"format": "json"},
}


def until(condition: Callable[[], object], what: str, *, seconds: float = 30.0) -> None:
    """Wait for a condition, in vain for so long at most; time that it takes itself is not counted.

    To look costs CPU, which others wait for: what lasts longer is looked at less often.
    """
    pause, waited = Event(), 0.0
    while not condition():
        if waited > seconds:
            pytest.fail(f"in vain for {seconds:.0f} s: {what}", pytrace=True)
        each = min(max(waited / 10, 0.02), 0.2)
        pause.wait(each)
        waited += each


def ec2_of(sandbox: Sandbox) -> "EC2Client":
    """The EC2 of a sandbox, as anybody's program calls it."""
    return boto3.client(
        "ec2",
        region_name=sandbox.settings.region,
        endpoint_url=sandbox.endpoint_url,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="test",  # noqa: S106 -- no secret
    )


def create_volume(sandbox: Sandbox, tags: Mapping[str, str]) -> str:
    """A volume that somebody made with these tags: its id."""
    ec2 = ec2_of(sandbox)
    volume = ec2.create_volume(AvailabilityZone=sandbox.settings.zone, Size=1)
    if tags:
        pairs: list[TagTypeDef] = [{"Key": key, "Value": tags[key]} for key in tags]
        ec2.create_tags(Resources=[volume["VolumeId"]], Tags=pairs)
    return str(volume["VolumeId"])


def events_in(log: str) -> list[dict[str, Any]]:
    """The events in a log of JSON lines; what is no JSON, such as a traceback, is left out."""
    events = []
    for line in log.splitlines():
        with suppress(ValueError):
            events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict)]


def find_event(
    log: str, kind: str, *, containing: str = "", **fields: Any
) -> dict[str, Any] | None:
    """The first event of this kind with these fields; `containing` is an id or a path in it."""
    return next(
        (
            event
            for event in events_in(log)
            if event["event"] == kind
            and fields.items() <= event.items()
            and containing in f"{event['message']} {event.get('hint', '')}"
        ),
        None,
    )


class Daemon:
    """A running `ebs-autoscale run`; dies with the test run whatever happens."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text("utf-8")

    def wait_event(
        self, kind: str, *, containing: str = "", seconds: float = 30.0, **fields: Any
    ) -> dict[str, Any]:
        """Wait until it has told such an event, and return it; see find_event."""
        until(
            lambda: find_event(self.log, kind, containing=containing, **fields),
            f"{kind} {fields} {containing}",
            seconds=seconds,
        )
        return find_event(self.log, kind, containing=containing, **fields) or {}

    def wait_for(self, words: str, *, seconds: float = 30.0) -> None:
        """Wait until it has said that."""
        until(lambda: words in self.log, words, seconds=seconds)

    def children(self) -> list[psutil.Process]:
        """The processes it has started and that still run."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def stop(self, *, seconds: float = 60.0) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def reload(self) -> None:
        """Ask it to read its configuration again."""
        self.process.send_signal(signal.SIGHUP)

    def kill(self, *, with_children: bool = True) -> None:
        """SIGKILL, as the kernel or systemd would."""
        children = self.children()
        self.process.kill()
        self.process.wait()
        if with_children:
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        psutil.wait_procs(children, timeout=60)


class Host:
    """The machine under test: a filesystem of 2 GiB at `mountpoint` and a simulated EC2."""

    def __init__(self, sandbox: Sandbox, *, mountpoint: Path, folder: Path) -> None:
        self.sandbox = sandbox
        self.mountpoint = mountpoint
        self.folder = folder
        self.config = folder / "config.yaml"
        # The ids of volumes with our tags that others have made, or taken out of the filesystem.
        self.others: set[str] = set()
        # Each has a pipe of its own, for good.
        self._clock = SystemClock()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(OUTSIDE)},
            **sandbox.environment,
        }
        self.configure()

    def __repr__(self) -> str:
        """What is shown with a failure."""
        devices = [f"{'missing ' * each.missing}{each.label}" for each in self.read().devices]
        return f"<{devices}, {[f'{v.node} {v.id} {v.state}' for v in self.volumes()]}>"

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write the configuration: what tests start from, and these sections' changes to it."""
        wanted: dict[str, Any] = {"mountpoint": str(self.mountpoint), **CONFIG}
        for name, section in sections.items():
            wanted[name] = {**wanted.get(name, {}), **section}
        self.config.write_text(yaml.safe_dump(wanted), "utf-8")

    @property
    def argv(self) -> list[str]:
        """The command line up to the verb."""
        return [*PROGRAM, "--config", str(self.config)]

    def run(
        self, *arguments: str, before: tuple[str, ...] = (), seconds: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run one verb to its end; `before` is a command that runs it."""
        return subprocess.run(
            [*before, *self.argv, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextmanager
    def daemon(self, *options: str, **environment: str) -> Iterator[Daemon]:
        """Run the daemon, and end it however the test ends."""
        log = self.folder / f"daemon-{len(list(self.folder.glob('daemon-*')))}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self.argv, "run", *options],
                env={**self.environment, **environment},
                stderr=stderr,
            )
        daemon = Daemon(process, log)
        try:
            yield daemon
        except BaseException:
            # Shown with the failure, which may be a rare one.
            sys.stderr.write(f"{log.name}:\n{daemon.log}")
            raise
        finally:
            if process.poll() is None:
                daemon.kill()

    def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def read(self) -> Reading:
        """Look at the filesystem without a process."""
        return mounted_at(str(self.mountpoint), self._clock).read()

    @property
    def devices(self) -> int:
        """How many devices the filesystem has."""
        return len(self.read().devices)

    def fill(self, left_percent: float) -> None:
        """Book space until only this share is available; no content, so it takes no time."""
        found = self.read()
        wanted = found.available_bytes - found.size_bytes * left_percent / 100
        name = f"filling-{len(list(self.mountpoint.iterdir()))}"
        with (self.mountpoint / name).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(wanted))

    def volumes(self) -> list[VolumeSeen]:
        """The volumes that carry our tags, whatever has become of them; not those of others."""
        found = self.sandbox.state().volumes
        return [v for v in found if "ebs-autoscale:owner" in v.tags and v.id not in self.others]

    def leaked(self) -> list[VolumeSeen]:
        """The volumes of ours that are not in the filesystem."""
        reading = self.read()
        return [volume for volume in self.volumes() if not reading.has_device(volume.node)]
