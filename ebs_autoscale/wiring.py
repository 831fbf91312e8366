"""Builders: from a configuration to the filesystem, EC2 and the world of a growth."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.filesystems.btrfs import reading as btrfs_reading
from ebs_autoscale.filesystems.copies import copies_of
from ebs_autoscale.filesystems.mounted import kind_at
from ebs_autoscale.filesystems.one_device import reading as one_device_reading
from ebs_autoscale.filesystems.one_device.filesystem import OneDeviceFilesystem
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.model import Device, Identity, Reading, RoleCredentials
from ebs_autoscale.policy import Remark, remarks_of
from ebs_autoscale.telemetry import Event, EventKind, Level

if TYPE_CHECKING:
    from ebs_autoscale.ec2.calls import CallResult
    from ebs_autoscale.resize import Filesystem, World
    from ebs_autoscale.volumes import Ec2Volumes


MountedFilesystem = BtrfsFilesystem | OneDeviceFilesystem


def filesystem_of(settings: Settings, clock: SystemClock) -> MountedFilesystem:
    """The mounted filesystem; raises Unfit when it is not what the configuration says."""
    return mounted_at(settings.mountpoint, clock)


def mounted_at(mountpoint: str, clock: SystemClock) -> MountedFilesystem:
    """The filesystem that is mounted here; raises Unfit unless it is one that can grow."""
    if kind_at(mountpoint).takes_devices:
        return BtrfsFilesystem(mountpoint, clock=clock)
    return OneDeviceFilesystem(mountpoint, clock=clock)


def devices_despite(error: EbsAutoscaleError, mountpoint: str) -> tuple[Device, ...]:
    """The devices of a filesystem that has no reading because it is read-only; else none."""
    if error.cause is Cause.READ_ONLY:
        with suppress(EbsAutoscaleError, OSError):
            if kind_at(mountpoint).takes_devices:
                return btrfs_reading.devices_at(mountpoint)
            return one_device_reading.devices_at(mountpoint)
    return ()


def volumes_behind(reading: Reading) -> dict[str, str]:
    """The EBS volume of each device of a filesystem where it is known, by the kernel's name."""
    block_devices = BlockDevices()
    found = {
        each.name: block_devices.volume_id_of(each.name) for each in reading.devices if each.name
    }
    return {name: volume for name, volume in found.items() if volume}


def remarks_on(reading: Reading, volumes: Mapping[str, str]) -> list[Remark]:
    """What an operator should know about the devices of this host behind a filesystem."""
    block_devices = BlockDevices()
    names = [device.name for device in reading.devices if device.name]
    return list(
        remarks_of(
            reading,
            volumes=volumes,
            encrypted=[name for name in names if block_devices.is_encrypted(name)],
        )
    )


def world_of(
    settings: Settings,
    filesystem: "Filesystem",
    clock: SystemClock,
    emit: Callable[[Event], None],
    identity: Identity | None = None,
    credentials: RoleCredentials | None = None,
) -> "World":
    """Everything a growth touches; asks IMDS for what is not known, and loads boto3."""
    from ebs_autoscale.resize import World  # noqa: PLC0415 -- it loads boto3

    return World(
        cloud=cloud_of(settings, clock, identity, credentials, emit),
        block_devices=BlockDevices(),
        filesystem=filesystem,
        clock=clock,
        emit=emit,
        rebalance=settings.rebalance,
        reserve_bytes=settings.reserve_bytes,
        delete_on_termination=settings.volume.delete_on_termination,
        adopt=settings.adopt,
        find_copies=copies_of,
    )


def cloud_of(
    settings: Settings,
    clock: SystemClock,
    identity: Identity | None = None,
    credentials: RoleCredentials | None = None,
    emit: Callable[[Event], None] | None = None,
) -> "Ec2Volumes":
    """EC2 as this instance; asks IMDS for what is not known. Raises Unfit or Stopped.

    With `emit`, each request is told as an event.
    """
    # 50 MB and half a second: paid by the process that talks to EC2, never by the daemon.
    from ebs_autoscale.ec2.calls import follow_calls  # noqa: PLC0415 -- goes with boto3
    from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- it loads boto3
    from ebs_autoscale.ec2.role import InstanceRole  # noqa: PLC0415 -- it loads boto3
    from ebs_autoscale.volumes import Ec2Volumes  # noqa: PLC0415 -- it loads boto3

    imds = Imds(clock)
    cloud = Ec2Volumes(
        identity or imds.identity(),
        settings.volume,
        mountpoint=settings.mountpoint,
        clock=clock,
        role=InstanceRole(clock, imds.credentials, credentials),
    )
    if emit:
        follow_calls(cloud.ec2.meta.events, clock, partial(_tell_call, emit))
    return cloud


def _tell_call(
    emit: Callable[[Event], None], action: str, result: "CallResult", seconds: float
) -> None:
    emit(
        Event(
            kind=EventKind.EC2_CALL,
            sentence=f"{action}: {result.value} after {seconds:.2f} s",
            level=Level.DEBUG,
            action=action,
            result=result.value,
            seconds=round(seconds, 3),
        )
    )
