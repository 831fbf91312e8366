"""The implementations of the Cloud port, each with an EC2 of its own that a test can control."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import boto3
import pytest
from ec2_sandbox.client import SandboxControl
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.http.server import SandboxServer
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.ec2.imds import Imds
from ebs_autoscale.ec2.role import InstanceRole
from ebs_autoscale.model import RoleCredentials, VolumeSpec
from ebs_autoscale.resize.ports import Cloud
from ebs_autoscale.volumes import Ec2Volumes
from tests.simulated.clock import Boundaries, SimulatedClock
from tests.simulated.cloud import SimulatedCloud
from tests.unit.samples import inventory_of

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client

# Knows of no EBS cards and of no instance tags: calls are as for the simplest instance.
INVENTORY = inventory_of()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How EC2 behaves in a test; both implementations understand all of it."""

    create_seconds: float = 1.5
    visible_seconds: float = 0.0
    attach_seconds: float = 2.0
    modify_seconds: float = 3.0
    optimize_seconds: float = 600.0
    hidden_names: tuple[str, ...] = ()
    quota_volumes: int = 100


class CloudUnderTest(Protocol):
    """A cloud, its clock, and what others do to its volumes."""

    @property
    def clock(self) -> SimulatedClock:
        """Its time."""
        ...

    @property
    def cloud(self) -> Cloud:
        """The implementation."""
        ...

    def delete(self, volume_id: str) -> None:
        """Delete a volume behind our back."""
        ...

    def failing_modification(self, volume_id: str) -> AbstractContextManager[None]:
        """Meanwhile, modifications of this volume are to end in the state `failed`."""
        ...

    def count(self) -> int:
        """How many volumes exist that a growth created."""
        ...


Start = Callable[[Conditions], AbstractContextManager[CloudUnderTest]]


class InMemory:
    """The simulated EC2 that the unit tests use."""

    def __init__(self, conditions: Conditions) -> None:
        self.clock = SimulatedClock()
        self.cloud = SimulatedCloud(self.clock, Boundaries())
        self.cloud.latencies.create = conditions.create_seconds
        self.cloud.latencies.visible = conditions.visible_seconds
        self.cloud.latencies.attach = conditions.attach_seconds
        self.cloud.latencies.modify = conditions.modify_seconds
        self.cloud.latencies.optimize = conditions.optimize_seconds
        self.cloud.hidden_names |= set(conditions.hidden_names)
        self.cloud.quota_volumes = conditions.quota_volumes

    def delete(self, volume_id: str) -> None:
        """Remove it."""
        self.cloud.volumes.remove(self.cloud.find(volume_id))

    @contextmanager
    def failing_modification(self, volume_id: str) -> Iterator[None]:
        """Say so."""
        self.cloud.failing.add(volume_id)
        yield
        self.cloud.failing.remove(volume_id)

    def count(self) -> int:
        """Count all of them."""
        return len(self.cloud.volumes)


class AdvancingClock(SimulatedClock):
    """A clock that advances the clock of the sandbox with its own."""

    def __init__(self, control: SandboxControl, *, wall_seconds: float) -> None:
        super().__init__()
        self._control = control
        self._began_seconds = self.now_seconds()
        self._wall_seconds = wall_seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass here and in the sandbox."""
        super().sleep(seconds)
        self._control.advance(seconds)

    def wall_seconds(self) -> float:
        """The sandbox's date and time."""
        return self._wall_seconds + self.now_seconds() - self._began_seconds


class OverHttp:
    """Ec2Volumes with the real boto3, talking to the sandbox."""

    def __init__(self, server: SandboxServer, spec: VolumeSpec) -> None:
        self.control = SandboxControl(server.url)
        wall_seconds = server.world.timeline.clock.moment(0).timestamp()
        self.clock = AdvancingClock(self.control, wall_seconds=wall_seconds)
        self.spec, self.imds = spec, Imds(self.clock, self.control.environment)
        self.identity = self.imds.identity()
        self.cloud = self.client()

    def client(self, held: RoleCredentials | None = None) -> Ec2Volumes:
        """Another client, which may begin with credentials that were fetched before."""
        return Ec2Volumes(
            self.identity,
            self.spec,
            mountpoint="/scratch",
            clock=self.clock,
            role=InstanceRole(self.clock, self.imds.credentials, held),
        )

    @cached_property
    def ec2(self) -> "EC2Client":
        """An EC2 client of an operator."""
        return boto3.client("ec2", region_name=self.identity.region)

    def delete(self, volume_id: str) -> None:
        """Delete it as an operator would."""
        self.ec2.delete_volume(VolumeId=volume_id)

    @contextmanager
    def failing_modification(self, volume_id: str) -> Iterator[None]:  # noqa: ARG002 -- of any
        """Add a fault."""
        self.control.add_fault(FaultRule(kind=FaultKind.FAILED, action="ModifyVolume"))
        yield
        self.control.clear_faults()

    def count(self) -> int:
        """Count all but the root volume."""
        return len(self.control.state().volumes) - 1


@contextmanager
def in_memory(conditions: Conditions) -> Iterator[CloudUnderTest]:
    """Start the simulated EC2."""
    yield InMemory(conditions)


StartHttp = Callable[..., AbstractContextManager[OverHttp]]


def over_http(directory: Path, monkeypatch: pytest.MonkeyPatch) -> StartHttp:
    """Start the sandbox, and boto3 against it; time passes only while the clock sleeps."""

    @contextmanager
    def start(
        conditions: Conditions | None = None, *, spec: VolumeSpec | None = None, **settings: Any
    ) -> Iterator[OverHttp]:
        chosen = conditions or Conditions()
        sandbox = SandboxSettings(
            **{
                "speed": 0.0,
                "create_seconds": (chosen.create_seconds,) * 2,
                "visibility_seconds": (chosen.visible_seconds,) * 2,
                "attach_seconds": (chosen.attach_seconds,) * 2,
                "modify_seconds": (chosen.modify_seconds,) * 2,
                "optimize_seconds": (chosen.optimize_seconds,) * 2,
                "hidden_device_names": chosen.hidden_names,
                # The root volume counts against the quota.
                "quota_volumes": chosen.quota_volumes + 1,
                **settings,
            }
        )
        with SandboxServer(sandbox, directory=directory) as server:
            for name, value in SandboxControl(server.url).environment.items():
                monkeypatch.setenv(name, value)
            yield OverHttp(server, spec or VolumeSpec())

    return start
