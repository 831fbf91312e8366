"""What watches a filesystem in a measurement: the daemon, or a poller of `df`."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from string import ascii_lowercase
from threading import Event, Thread
from typing import Any

import psutil
from ec2_sandbox.client import Sandbox
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.model import DecisionKind, FilesystemKind
from ebs_autoscale.telemetry import EventKind
from tests.bench.ground import GIB, mounted, store, tool
from tests.system.bench import Daemon, Host, ec2_of, until
from tests.system.one_volume import one_volume_host

# Median times on EC2, as measured by the EBS CSI driver; those of a modification are the middle of
# the sandbox's realistic ones.
EC2: Mapping[str, Any] = {
    "create_seconds": (1.5, 1.5),
    "attach_seconds": (2.0, 2.0),
    "modify_seconds": (4.0, 4.0),
    "growth_seconds": (0.3, 0.3),
    # So that growths can be timed one after the other.
    "modifications": 100,
}

# As in our unit. The sandbox has it as well, since the real EC2 takes no CPU time here.
NICE = -10

# As in amazon-ebs-autoscale 2.4.7: `df` every 2 s, and a growth at 50 %.
REFERENCE_POLL_SECONDS = 2.0
REFERENCE_USED_SHARE = 0.5


@contextmanager
def bench_host(
    folder: Path,
    size_bytes: int,
    *,
    options: str = "defaults",
    mkfs: tuple[str, ...] = ("-d", "single", "-m", "dup"),
    config: Mapping[str, Mapping[str, Any]] | None = None,
    kind: FilesystemKind = FilesystemKind.BTRFS,
) -> Iterator[Host]:
    """A host with one filesystem and an EC2 of realistic speed; removed afterwards.

    Without `config` it has the defaults, except for a log that is easier to read by programs. XFS
    and ext4 are on a volume, so their size is in GiB.
    """
    with ExitStack() as stack:
        if kind.takes_devices:
            point = stack.enter_context(mounted(folder, (size_bytes,), mkfs=mkfs, options=options))
            settings = SandboxSettings(block_devices="nitro", **EC2)
            sandbox = stack.enter_context(Sandbox.start(settings, directory=store(folder)))
            own = point.with_name(f"{point.name}-host")
            own.mkdir()
            host = Host(sandbox, mountpoint=point, folder=own)
        else:
            host = stack.enter_context(
                one_volume_host(
                    Path(tempfile.mkdtemp(dir=folder)),
                    directory=store(folder),
                    settings=EC2,
                    kind=kind,
                    size_gib=size_bytes // GIB,
                )
            )
        psutil.Process(host.sandbox.pid).nice(NICE)
        if config is None:
            text = f"mountpoint: {host.mountpoint}\nlogging: {{format: json}}\n"
            host.config.write_text(text, "utf-8")
        else:
            host.configure(**config)
        yield host


@contextmanager
def ours(host: Host) -> Iterator[Daemon]:
    """The daemon, once it has started and looked at EC2."""
    with host.daemon() as daemon:
        psutil.Process(daemon.process.pid).nice(NICE)
        daemon.wait_event(EventKind.DECIDED, decision=DecisionKind.HOLD, seconds=60)
        # Its first child tells that shortly before it ends.
        until(lambda: not _grows(daemon), "the look at start-up to end")
        yield daemon


def _grows(daemon: Daemon) -> bool:
    """Whether a growth is among its children; a notify.command may be, too."""
    with suppress(psutil.NoSuchProcess):
        return any("--request" in child.cmdline() for child in daemon.children())
    return True


@contextmanager
def reference(host: Host, step: str, *, quick: bool = False) -> Iterator[None]:
    """A poller of `df` with a fixed threshold and step.

    It waits for EC2 with boto3's waiter, which polls every 15 s; with `quick` it uses our growths.
    """
    ended = Event()

    def watch() -> None:
        while not ended.wait(REFERENCE_POLL_SECONDS):
            seen = os.statvfs(host.mountpoint)
            if seen.f_bavail < (1 - REFERENCE_USED_SHARE) * seen.f_blocks:
                if quick:
                    host.run("grow", "--size", step)
                else:
                    _grow_like_reference(host, int(step.removesuffix("GiB")), ended)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _grow_like_reference(host: Host, size_gib: int, ended: Event) -> None:
    """Create, wait, attach, wait, add: `create-ebs-volume` of amazon-ebs-autoscale 2.4.7."""
    settings = host.sandbox.settings
    ec2 = ec2_of(host.sandbox)
    volume_id = ec2.create_volume(AvailabilityZone=settings.zone, Size=size_gib)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id])
    name = f"/dev/xvdb{ascii_lowercase[host.devices]}"
    ec2.attach_volume(VolumeId=volume_id, InstanceId=settings.instance_id, Device=name)
    node = ""
    while not node and not ended.wait(1.0):
        volumes = host.sandbox.state().volumes
        node = next(volume.node for volume in volumes if volume.id == volume_id)
    if node:
        tool("btrfs", "device", "add", f"/dev/{node}", str(host.mountpoint))
