"""What a demo needs before the daemon can start: a first volume, a filesystem, a configuration."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from ec2_sandbox.client import Sandbox, VolumeSeen
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Transient
from ebs_autoscale.host.command import run
from ebs_autoscale_demo.isolation import PRIVATE
from ebs_autoscale_demo.workload import AVAILABLE_PERCENT, Script

MOUNTPOINT = PRIVATE / "demo/scratch"
CONFIG = PRIVATE / "demo/config.yaml"

_DEVICE_NAME = "/dev/sdf"
_PATIENCE_SECONDS = 30.0
_LOOK_EVERY_SECONDS = 0.1
_TOOL_TIMEOUT_SECONDS = 60.0


def _config(script: Script) -> str:
    # By its forecast alone the daemon would buy in one growth what the demo shows in three.
    return f"""\
mountpoint: {MOUNTPOINT}
threshold:
  available: {AVAILABLE_PERCENT}%
  available_min: 128MiB
growth:
  size: 50%
  min: 1GiB
  max: {script.first_gib}GiB
logging:
  format: json
"""


@contextmanager
def simulated_ec2(directory: Path) -> Iterator[Sandbox]:
    """EC2 with the latencies of a good day; programs started from here on talk to it alone."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    settings = SandboxSettings.realistic(block_devices="nitro")
    with Sandbox.start(settings, directory=directory) as sandbox:
        os.environ.update(sandbox.environment)
        yield sandbox


def buy_first_volume(sandbox: Sandbox, script: Script, clock: SystemClock) -> str:
    """An ordinary volume as an instance's owner would have one: the kernel name of its node."""
    try:
        return _buy(sandbox, script, clock)
    except (BotoCoreError, ClientError) as error:
        raise Transient(f"cannot buy the first volume: {error}", cause="sandbox") from error


def _buy(sandbox: Sandbox, script: Script, clock: SystemClock) -> str:
    settings = sandbox.settings
    ec2: Any = botocore.session.get_session().create_client("ec2", region_name=settings.region)
    volume_id = ec2.create_volume(
        AvailabilityZone=settings.zone,
        Size=script.first_gib,
        VolumeType="gp3",
        Encrypted=True,
    )["VolumeId"]
    _wait(sandbox, volume_id, lambda volume: volume.state == "available", clock)
    ec2.attach_volume(VolumeId=volume_id, InstanceId=sandbox.instance_id, Device=_DEVICE_NAME)
    attached = _wait(sandbox, volume_id, lambda volume: bool(volume.node), clock)
    ec2.modify_instance_attribute(
        InstanceId=sandbox.instance_id,
        BlockDeviceMappings=[{"DeviceName": _DEVICE_NAME, "Ebs": {"DeleteOnTermination": True}}],
    )
    return attached.node


@contextmanager
def mounted_filesystem(node: str, script: Script, clock: SystemClock) -> Iterator[None]:
    """A new BTRFS filesystem on this node, mounted for as long as all goes well."""
    _run(["mkfs.btrfs", "--quiet", f"/dev/{node}"], clock)
    MOUNTPOINT.mkdir(parents=True)
    _run(["mount", "-t", "btrfs", f"/dev/{node}", str(MOUNTPOINT)], clock)
    CONFIG.write_text(_config(script))
    yield
    # After a failure or Ctrl-C the end of the namespace unmounts it.
    _run(["umount", str(MOUNTPOINT)], clock)


def _wait(
    sandbox: Sandbox,
    volume_id: str,
    condition: Callable[[VolumeSeen], bool],
    clock: SystemClock,
) -> VolumeSeen:
    deadline = clock.now_seconds() + _PATIENCE_SECONDS
    while clock.now_seconds() < deadline:
        for volume in sandbox.state().volumes:
            if volume.id == volume_id and condition(volume):
                return volume
        clock.sleep(_LOOK_EVERY_SECONDS)
    raise Transient(
        f"the sandbox did not get {volume_id} ready in {_PATIENCE_SECONDS:.0f} s: "
        f"{'; '.join(sandbox.state().problems) or 'no reason given'}",
        cause="sandbox",
    )


def _run(argv: list[str], clock: SystemClock) -> None:
    run(argv, timeout_seconds=_TOOL_TIMEOUT_SECONDS, stopping=lambda: clock.stopping)
