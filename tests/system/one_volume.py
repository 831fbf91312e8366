"""A filesystem of one device: XFS or ext4 on an EBS volume of ours, or on a partition of it."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ec2_sandbox.client import Sandbox
from ec2_sandbox.devices.partitions import show_partitions
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.ec2.requests import FILESYSTEM_TAG, GROWTH_TAG, OWNER_TAG
from ebs_autoscale.model import FilesystemKind
from tests.system.bench import Host, until

DEVICE = "/dev/xvdba"
_UUID_OPTION = {FilesystemKind.XFS: ("-q", "-m", "uuid="), FilesystemKind.EXT4: ("-q", "-U", "")}


@contextmanager
def one_volume_host(
    folder: Path,
    *,
    directory: Path,
    settings: Mapping[str, Any],
    kind: FilesystemKind = FilesystemKind.XFS,
    table: str = "",
    size_gib: int = 1,
) -> Iterator[Host]:
    """A host whose filesystem is on one volume that `init` could have made; removed afterwards.

    With a `table`, for example `label: gpt`, it is on the last of two partitions.
    """
    mountpoint = folder / "scratch"
    mountpoint.mkdir(parents=True)
    chosen = SandboxSettings(**{"block_devices": "nitro", **settings})
    with Sandbox.start(chosen, directory=directory) as sandbox:
        node = _make(sandbox, kind, table, size_gib)
        subprocess.run(["mount", node, str(mountpoint)], check=True)
        try:
            yield Host(sandbox, mountpoint=mountpoint, folder=folder)
        finally:
            subprocess.run(["umount", "--lazy", str(mountpoint)], check=False)


def _make(sandbox: Sandbox, kind: FilesystemKind, table: str, size_gib: int) -> str:
    """Create and attach the volume, and make the filesystem; returns the path of its node."""
    uuid = str(uuid4())
    tags = {OWNER_TAG: sandbox.instance_arn, FILESYSTEM_TAG: uuid, GROWTH_TAG: "0"}
    volume = sandbox.put_volume(size_gib, tags=tags, VolumeType="gp3")

    def seen(what: str) -> str:
        volumes = {each.id: each for each in sandbox.state().volumes}
        return str(getattr(volumes[volume], what))

    until(lambda: seen("state") == "available", "the volume")
    target = {"InstanceId": sandbox.instance_id, "Device": DEVICE}
    sandbox.operate("AttachVolume", VolumeId=volume, **target)
    until(lambda: seen("node") and seen("attachment_state") == "attached", "its device")
    sandbox.operate(
        "ModifyInstanceAttribute",
        InstanceId=sandbox.instance_id,
        BlockDeviceMappings=[{"DeviceName": DEVICE, "Ebs": {"DeleteOnTermination": True}}],
    )
    name = seen("node")
    if table:
        argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", f"/dev/{name}"]
        subprocess.run(argv, input=f"{table}\nsize=8MiB\n,\n", text=True, check=True)
        name = show_partitions(name)[-1]
    *options, last = _UUID_OPTION[kind]
    subprocess.run([f"mkfs.{kind}", *options, f"{last}{uuid}", f"/dev/{name}"], check=True)
    return f"/dev/{name}"
