"""What the daemon of the demo needs: an EC2, a first volume, a filesystem, a configuration."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from ec2_sandbox.client import Sandbox, VolumeSeen
from ec2_sandbox.errors import SandboxError
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale_demo.clock import now_seconds, sleep
from ebs_autoscale_demo.command import run
from ebs_autoscale_demo.isolation import PRIVATE
from ebs_autoscale_demo.workload import AVAILABLE_PERCENT, Workload

MOUNTPOINT = PRIVATE / "demo/scratch"
CONFIG = PRIVATE / "demo/config.yaml"

_DEVICE_NAME = "/dev/sdf"
_VOLUME_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.1


@contextmanager
def simulated_ec2(workload: Workload) -> Iterator[Sandbox]:
    """A simulated EC2 with realistic latencies; programs started from now on use it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    settings = SandboxSettings.realistic(block_devices="nitro")
    with Sandbox.start(settings, directory=workload.directory) as sandbox:
        os.environ.update(sandbox.environment)
        yield sandbox


def create_first_volume(sandbox: Sandbox, workload: Workload) -> str:
    """Create and attach the first volume, as its owner would; returns its kernel name."""
    try:
        return _create(sandbox, workload)
    except (BotoCoreError, ClientError) as error:
        raise SandboxError(f"cannot create the first volume: {error}") from error


def _create(sandbox: Sandbox, workload: Workload) -> str:
    settings = sandbox.settings
    ec2: Any = botocore.session.get_session().create_client("ec2", region_name=settings.region)
    volume_id = ec2.create_volume(
        AvailabilityZone=settings.zone,
        Size=workload.first_gib,
        VolumeType="gp3",
        Encrypted=True,
    )["VolumeId"]
    _wait(sandbox, volume_id, lambda volume: volume.state == "available")
    ec2.attach_volume(VolumeId=volume_id, InstanceId=sandbox.instance_id, Device=_DEVICE_NAME)
    attached = _wait(sandbox, volume_id, lambda volume: bool(volume.node))
    ec2.modify_instance_attribute(
        InstanceId=sandbox.instance_id,
        BlockDeviceMappings=[{"DeviceName": _DEVICE_NAME, "Ebs": {"DeleteOnTermination": True}}],
    )
    return attached.node


def _wait(sandbox: Sandbox, volume_id: str, condition: Callable[[VolumeSeen], bool]) -> VolumeSeen:
    deadline = now_seconds() + _VOLUME_TIMEOUT_SECONDS
    while now_seconds() < deadline:
        for volume in sandbox.state().volumes:
            if volume.id == volume_id and condition(volume):
                return volume
        sleep(_POLL_SECONDS)
    raise SandboxError(
        f"{volume_id} was not ready after {_VOLUME_TIMEOUT_SECONDS:.0f} s: "
        f"{'; '.join(sandbox.state().problems) or 'no reason given'}"
    )


@contextmanager
def mounted_filesystem(node: str) -> Iterator[None]:
    """A new BTRFS filesystem on this device, mounted at MOUNTPOINT."""
    run(["mkfs.btrfs", "--quiet", f"/dev/{node}"])
    MOUNTPOINT.mkdir(parents=True)
    run(["mount", "-t", "btrfs", f"/dev/{node}", str(MOUNTPOINT)])
    yield
    # After an error, the end of the namespace unmounts it.
    run(["umount", str(MOUNTPOINT)])


def write_configuration(workload: Workload) -> None:
    """Write the configuration of the daemon to CONFIG."""
    # Because of its forecast, and without growth.max, the daemon would add in one growth what the
    # demo shows in three.
    CONFIG.write_text(
        f"""\
mountpoint: {MOUNTPOINT}
threshold:
  available: {AVAILABLE_PERCENT}%
  available_min: 128MiB
growth:
  size: 50%
  min: 1GiB
  max: {workload.first_gib}GiB
logging:
  format: json
"""
    )
