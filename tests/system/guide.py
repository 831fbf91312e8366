"""The failure guide, followed: what a daemon reports is provoked, and the advice is taken.

`make guide` runs this and `guide_verbs.py`.
"""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ec2_sandbox.devices.failing import DeviceFault
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.errors import Cause
from ebs_autoscale.filesystems.btrfs.reserve import NAME as RESERVE
from ebs_autoscale.host import paths
from ebs_autoscale.host.fstab import line_for
from tests.contract.permissions import without
from tests.system.bench import GIB, MIB, Host, until
from tests.unit.samples import policy_of

pytestmark = pytest.mark.kernel

Act = Callable[[Host], object]
"""Something that is done to a host."""


@dataclass(frozen=True)
class Shell:
    """A command line about /scratch, which stands for the mountpoint of the host."""

    command: str

    def __call__(self, host: Host) -> None:
        """Run it; what it prints is shown if the test fails."""
        command = self.command.replace("/scratch", str(host.mountpoint))
        subprocess.run(["sh", "-c", command], check=True, timeout=60)


def configured(**sections: Any) -> Act:
    """Write the configuration with these sections."""
    return lambda host: host.configure(**sections)


def fault(kind: FaultKind, action: str, code: str = "", **fields: Any) -> Act:
    """Calls of this action fail so from now on, and space is short."""
    rule = FaultRule(kind=kind, action=action, code=code, **fields)
    return then(lambda host: host.sandbox.add_fault(rule), fill)


def refused(action: str, code: str) -> Act:
    """EC2 refuses calls of this action from now on with this code, and space is short."""
    return fault(FaultKind.ERROR, action, code)


def then(*acts: Act) -> Act:
    """One after the other."""

    def each(host: Host) -> None:
        for act in acts:
            act(host)

    return each


def fill(host: Host) -> None:
    """Use space until a growth is needed."""
    host.fill(20)


def grow(host: Host) -> None:
    """Grow once, before the daemon looks at it."""
    assert host.run("grow").returncode == 0


def enlarging(host: Host) -> None:
    """It has a volume, and is to enlarge that instead of creating another one."""
    grow(host)
    host.configure(growth={"method": "enlarge"})


def grow_late(host: Host) -> None:
    """The block device of the modified volume gets its new size after all."""
    clear(host)
    asked = [call for call in host.sandbox.calls("ModifyVolume") if call.outcome == "ok"]
    for volume in host.volumes():
        sizes = [int(c.params["Size"]) for c in asked if c.params["VolumeId"] == volume.id]
        if sizes:
            host.sandbox.grow_device(volume.id, max(sizes) * GIB)


def refuse_to_resize(host: Host) -> None:
    """The tool fails whenever it is to extend a device; seen by the test run alone."""
    real = Path(shutil.which("btrfs") or "").resolve()
    copy, broken = host.folder / "btrfs", host.folder / "broken"
    shutil.copy(real, copy)
    broken.write_text(
        f'#!/bin/sh\n[ "$1 $2" != "filesystem resize" ] || exit 1\nexec {copy} "$@"\n', "utf-8"
    )
    broken.chmod(0o700)
    Shell(f"mount --bind {broken} {real}")(host)


def repair_tool(host: Host) -> None:
    """The opposite."""
    Shell("umount $(readlink -f $(command -v btrfs))")(host)


def clear(host: Host) -> None:
    """EC2 and IMDS work again."""
    host.sandbox.clear_faults()


def delete_unused(host: Host) -> None:
    """Detach and delete the volumes that are not in the filesystem, as the guide says."""
    for volume in host.leaked():
        with suppress(Exception):  # it may be detached already
            host.sandbox.operate("DetachVolume", VolumeId=volume.id, Force=True)
        host.sandbox.operate("DeleteVolume", VolumeId=volume.id)


def replace_failing(host: Host) -> None:
    """The same, once new volumes no longer fail."""
    host.sandbox.fail_device(DeviceFault.NONE)
    delete_unused(host)


def restore(host: Host) -> None:
    """A backup has restored a volume of this filesystem, with its tags."""
    grow(host)
    [volume] = host.volumes()
    host.sandbox.put_volume(1, tags=volume.tags, content={65536: b"x"})


def write_lines(host: Host) -> None:
    """A typing error in the configuration."""
    host.config.write_text(host.config.read_text("utf-8") + "\nlimits: {totl: 5GiB}\n", "utf-8")


def lose_device(host: Host) -> None:
    """A volume of the filesystem is away when it is mounted with `degraded`."""
    first = f"/dev/{host.read().devices[0].name}"
    host.configure(metadata={"reserve": "off"})
    grow(host)
    [volume] = host.volumes()
    Shell("umount /scratch && (btrfs device scan --forget || true)")(host)
    host.sandbox.operate("DetachVolume", VolumeId=volume.id)
    until(lambda: host.volumes()[0].state == "available", "its end")
    Shell(f"mount -o degraded {first} /scratch")(host)


def attach_again(host: Host) -> None:
    """What the guide says about a missing device."""
    Shell("umount /scratch")(host)
    [volume] = host.volumes()
    host.sandbox.operate(
        "AttachVolume",
        VolumeId=volume.id,
        InstanceId=host.sandbox.instance_id,
        Device="/dev/xvdba",
    )
    until(lambda: host.volumes()[0].node, "its block device")
    Shell("btrfs device scan >/dev/null; mount /scratch")(host)


def limit_quota(host: Host) -> None:
    """A quota that leaves little."""
    Shell("btrfs quota enable /scratch && btrfs qgroup limit 100M 0/5 /scratch")(host)


def use_up(host: Host) -> None:
    """Not a byte is left, and no volume may be created."""
    host.configure(growth={"method": "add"}, limits={"volumes": 1})
    grow(host)
    for size in (100 * MIB, MIB, 65536):
        with suppress(subprocess.CalledProcessError):
            Shell(f"n=0; while fallocate -l {size} /scratch/f{size}-$n; do n=$((n+1)); done")(host)


def take_name_of_reserve(host: Host) -> None:
    """Another user has made a file with the name of the reserve."""
    (host.mountpoint / RESERVE).unlink(missing_ok=True)
    (host.mountpoint / RESERVE).write_text("mine", "utf-8")
    Shell(f"chown 1000:1000 /scratch/{RESERVE}")(host)


FULL_RUN = f"mount -t tmpfs -o size=4k,nr_inodes=1 none {paths.RUNTIME_DIRECTORY}"

# `status` needs its file and a valid configuration.
UNSHOWN = frozenset({Cause.STATUS_FILE, Cause.CONFIGURATION})

# An operator reloads once and waits; a growth that runs may be in the way of it.
RELOAD_EVERY_SECONDS = 10.0


class Entry(NamedTuple):
    """How a cause is provoked, and what the guide says to do about it.

    With `after_start` it is provoked while the daemon runs; it shows within so many seconds.
    """

    cause: Cause
    provoke: Act
    remedy: Act
    after_start: bool = False
    seconds: float = 60.0


ENTRIES = (
    Entry(
        Cause.LIMIT_VOLUMES,
        then(configured(growth={"method": "add"}, limits={"volumes": 1}), grow, fill),
        configured(limits={"volumes": 5}),
    ),
    Entry(
        Cause.LIMIT_TOTAL,
        then(configured(limits={"total": "1GiB"}), grow, fill),
        configured(limits={"total": "5GiB"}),
    ),
    Entry(
        Cause.LIMIT_MONTHLY,
        then(configured(limits={"monthly": 0.09}), grow, fill),
        configured(limits={"monthly": 5}),
    ),
    Entry(
        Cause.LIMIT_COOLDOWN,
        then(configured(limits={"cooldown": "1h"}), grow, fill),
        configured(limits={"cooldown": "0s"}),
    ),
    Entry(Cause.METHOD, then(configured(growth={"method": "enlarge"}), fill), configured()),
    Entry(
        Cause.MODIFICATIONS,
        then(enlarging, refused("ModifyVolume", "VolumeModificationRateExceeded")),
        configured(limits={"volumes": 5}),
    ),
    Entry(
        Cause.SLOW_MODIFICATION,
        then(enlarging, fault(FaultKind.STUCK, "ModifyVolume")),
        grow_late,
        seconds=120,
    ),
    Entry(
        Cause.MODIFICATION_FAILED,
        then(enlarging, fault(FaultKind.FAILED, "ModifyVolume")),
        clear,
    ),
    Entry(Cause.OLD_SIZE, then(enlarging, fault(FaultKind.GHOST, "ModifyVolume")), grow_late),
    Entry(Cause.RESIZE, then(enlarging, refuse_to_resize, fill), repair_tool),
    Entry(
        Cause.DENIED,
        then(lambda h: h.sandbox.set_policy(without("CreateVolumesOfThisInstance")), fill),
        lambda host: host.sandbox.set_policy(policy_of()),
    ),
    Entry(Cause.CREDENTIALS, refused("CreateVolume", "RequestExpired"), clear),
    Entry(Cause.QUOTA, refused("CreateVolume", "VolumeLimitExceeded"), clear),
    Entry(Cause.KMS, refused("CreateVolume", "InvalidKMSKey.InvalidState"), clear),
    Entry(Cause.REQUEST, refused("CreateVolume", "InvalidParameterValue"), clear),
    Entry(Cause.VOLUME_KIND, refused("CreateVolume", "VolumeTypeNotAvailableInZone"), clear),
    Entry(Cause.INSTANCE, refused("AttachVolume", "IncorrectInstanceState"), clear),
    Entry(Cause.PROGRAM, refused("CreateVolume", "InvalidClientToken"), clear),
    Entry(Cause.UNKNOWN_CODE, refused("CreateVolume", "SomethingNew"), clear),
    Entry(Cause.CAPACITY, refused("CreateVolume", "InsufficientVolumeCapacity"), clear),
    Entry(Cause.STATE, refused("AttachVolume", "IncorrectState"), clear),
    Entry(Cause.SLOTS, refused("AttachVolume", "AttachmentLimitExceeded"), clear),
    Entry(
        Cause.ZONE,
        refused("AttachVolume", "InvalidVolume.ZoneMismatch"),
        then(clear, delete_unused),
    ),
    Entry(Cause.THROTTLED, fault(FaultKind.THROTTLE, "DescribeVolumes"), clear),
    Entry(Cause.EC2_ERROR, fault(FaultKind.HTTP, "DescribeVolumes"), clear),
    Entry(Cause.EC2_UNREACHABLE, fault(FaultKind.JUNK, "*", message="<html>Log in"), clear),
    Entry(Cause.IMDS, fault(FaultKind.HTTP, "IMDS", status=403), clear),
    Entry(
        Cause.TOKENS_BURNED,
        fault(
            FaultKind.ERROR,
            "CreateVolume",
            "IdempotentParameterMismatch",
            message="associated with a resource that is already deleted",
        ),
        clear,
    ),
    Entry(
        Cause.NAME_TAKEN,
        fault(
            FaultKind.ERROR,
            "AttachVolume",
            "InvalidParameterValue",
            message="Attachment point /dev/xvdba is already in use",
        ),
        clear,
    ),
    Entry(Cause.VOLUME_LOST, fault(FaultKind.FAILED, "CreateVolume"), clear),
    Entry(Cause.NOT_VISIBLE, fault(FaultKind.UNDONE, "CreateVolume"), clear, seconds=120),
    Entry(Cause.VOLUME_DETACHED, fault(FaultKind.UNDONE, "AttachVolume"), clear),
    Entry(Cause.STUCK_ATTACH, fault(FaultKind.STUCK, "AttachVolume"), clear, seconds=250),
    Entry(
        Cause.UNPROTECTED,
        refused("ModifyInstanceAttribute", "InvalidInstanceAttributeValue"),
        clear,
    ),
    Entry(Cause.UNUSED_VOLUMES, restore, delete_unused),
    Entry(
        Cause.DEVICE_UNREADABLE,
        then(lambda host: host.sandbox.fail_device(DeviceFault.REFUSED), fill),
        replace_failing,
    ),
    Entry(
        Cause.UNWRITABLE,
        then(lambda host: host.sandbox.fail_device(DeviceFault.WRITES_REFUSED), fill),
        replace_failing,
    ),
    Entry(Cause.NOT_MOUNTED, Shell("umount /scratch"), Shell("mount /scratch"), after_start=True),
    Entry(
        Cause.NOT_BTRFS,
        Shell("mount -t tmpfs none /scratch"),
        Shell("umount /scratch"),
        after_start=True,
    ),
    Entry(
        Cause.READ_ONLY,
        Shell("mount -o remount,ro /scratch"),
        Shell("mount -o remount,rw /scratch"),
        after_start=True,
    ),
    Entry(
        Cause.READ_ONLY,
        Shell("btrfs property set -t subvol /scratch ro true"),
        Shell("btrfs property set -t subvol /scratch ro false"),
        after_start=True,
    ),
    Entry(Cause.MISSING_DEVICE, lose_device, attach_again),
    Entry(Cause.FULL, use_up, configured(limits={"volumes": 5})),
    Entry(Cause.QGROUP_LIMIT, limit_quota, Shell("btrfs qgroup limit 500G 0/5 /scratch")),
    Entry(Cause.RESERVE_MISSING, take_name_of_reserve, Shell(f"mv /scratch/{RESERVE} /scratch/x")),
    Entry(
        Cause.CONFIGURATION,
        write_lines,
        configured(),
        after_start=True,
    ),
    Entry(
        Cause.STATUS_FILE,
        Shell(FULL_RUN),
        Shell(f"umount --lazy {paths.RUNTIME_DIRECTORY}"),
        after_start=True,
    ),
    Entry(
        Cause.METRICS,
        configured(metrics={"textfile": "/run/ebs-autoscale/no/such.prom"}),
        configured(),
    ),
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.cause.value)
def test_the_advice_resolves_it(
    entry: Entry,
    make_host: Callable[..., Host],
    fstab: Path,
) -> None:
    """The daemon and `status` tell the cause; after the remedy and a reload it is over."""
    host = make_host(failing_devices=entry.cause in {Cause.DEVICE_UNREADABLE, Cause.UNWRITABLE})
    fstab.write_text(line_for(host.read().filesystem, str(host.mountpoint)) + "\n", "utf-8")
    if not entry.after_start:
        entry.provoke(host)
    with host.daemon() as daemon:
        if entry.after_start:
            daemon.wait_event("started")
            entry.provoke(host)
            daemon.reload()
        cause = entry.cause.value
        daemon.wait_event("condition_began", cause=cause, seconds=entry.seconds)
        if entry.cause not in UNSHOWN:
            assert any(each.startswith(cause) for each in conditions(host))
        entry.remedy(host)
        for _ in range(12):
            daemon.reload()
            with suppress(pytest.fail.Exception):
                wanted = f"the end of {cause}: {conditions(host)}"
                until(lambda: is_over(host, cause), wanted, seconds=RELOAD_EVERY_SECONDS)
                return
        pytest.fail(daemon.log)


def conditions(host: Host) -> list[str]:
    """What `status` reports of the daemon, by cause."""
    return sorted((host.status()["daemon"] or {}).get("conditions", ()))


def is_over(host: Host, cause: str) -> bool:
    """Whether the daemon is there, and no longer reports it."""
    daemon = host.status()["daemon"]
    return bool(daemon) and not any(each.startswith(cause) for each in daemon["conditions"])
