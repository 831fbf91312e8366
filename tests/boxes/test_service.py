"""The daemon under real systemd: watched, reloaded, stopped, and back after every boot."""

import json
import re
from pathlib import Path
from time import monotonic

import pytest

from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.model import DecisionKind, StepKind
from ebs_autoscale.telemetry import EventKind
from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import (
    CONFIG_PATH,
    DROP_IN,
    UNIT,
    configure,
    count_events,
    devices,
    fill,
    has_reserve,
    initialise,
    journal_of_daemon,
    shown,
    state,
    volumes,
    wait_event,
    wait_growth,
)
from tests.unit.samples import ADDING

pytestmark = pytest.mark.kernel

GIB = 1024**3
DATA = "/data"
DATA_CONFIG = "/etc/ebs-autoscale/data.yaml"
DATA_UNIT = "ebs-autoscale@data.service"


@pytest.fixture
def box(make_host: MakeBox) -> Box:
    """A machine with a watched filesystem of 2 GiB on /scratch."""
    box = make_host()
    configure(box)
    initialise(box)
    return box


def test_a_growth_and_boots(box: Box) -> None:
    """It grows under its unit, and every boot brings all devices back, whatever their names."""
    watch_partition(box)
    assert_ext4_is_permitted(box)
    fill(box, left=20)
    wait_growth(box)
    assert_partition_grows(box, to_gib=2)
    for renumber in (False, True):
        before = devices(box)
        box.reboot(renumber=renumber)
        box.wait_until(lambda: state(box) == "active", "the service after the boot")
        assert devices(box) == before
        fill(box, left=20)
        wait_growth(box, before)
    assert_partition_grows(box, to_gib=3)
    assert box.failed_units == []
    grow = ("ebs-autoscale", "grow")
    # The daemon's growth has the lock until the reserve is held, too.
    box.wait_until(lambda: box.exec(*grow, check=False).returncode == 0, "a growth by an operator")
    assert_history(box, growths=4)
    assert_explained(box)


def watch_partition(box: Box) -> None:
    """An operator's XFS on a partition of a volume, as an image has it, with its own daemon."""
    disk = attach_volume(box, "/dev/sdf")
    box.exec("sfdisk", "--quiet", "--no-reread", disk, input="label: gpt\nsize=8MiB\n,\n")
    box.exec("partx", "--update", disk)
    box.wait_until(lambda: box.has(f"{disk}p2"), "its partitions")
    watch(box, f"{disk}p2", "xfs", DATA)


def assert_ext4_is_permitted(box: Box) -> None:
    """Where there is an ext4, its unit may extend it; no other unit may do what that takes."""
    watch(box, attach_volume(box, "/dev/sdg"), "ext4", "/ext4")
    names = (DATA_UNIT, "ebs-autoscale@ext4.service")
    bounds = [shown(box, "CapabilityBoundingSet", name).split() for name in names]
    assert ["cap_sys_resource" in each for each in bounds] == [False, True]


def attach_volume(box: Box, device_name: str) -> str:
    """A volume of an operator: the path of its block device."""
    volume = box.sandbox.put_volume(1, tags={}, VolumeType="gp3")
    target = {"VolumeId": volume, "InstanceId": box.sandbox.instance_id, "Device": device_name}
    box.sandbox.operate("AttachVolume", **target)
    box.wait_until(lambda: box.has(box.by_id(volume)), "its device")
    return box.exec("readlink", "-f", box.by_id(volume)).stdout.strip()


def watch(box: Box, node: str, kind: str, mountpoint: str) -> None:
    """Make a filesystem, mount it by fstab, and have `init` find it there."""
    box.exec(f"mkfs.{kind}", "-q", node)
    uuid = box.exec("blkid", "-o", "value", "-s", "UUID", node).stdout.strip()
    line = f"UUID={uuid} {mountpoint} {kind} defaults 0 2"
    box.exec("sh", "-c", f"mkdir {mountpoint}; echo {line} >>/etc/fstab")
    box.exec("mount", mountpoint)
    path = f"/etc/ebs-autoscale{mountpoint}.yaml"
    configure(box, mountpoint, path)
    box.exec("ebs-autoscale", "--config", path, "init", mountpoint)


def assert_partition_grows(box: Box, *, to_gib: int) -> None:
    """Volume, partition and XFS are extended by the daemon, within the sandbox of its unit."""
    box.wait_until(lambda: state(box, DATA_UNIT) == "active", DATA_UNIT)
    fill(box, left=20, mountpoint=DATA, path=DATA_CONFIG)
    wait_event(box, EventKind.GROWTH_DONE, containing=f"@{to_gib}GiB")
    seen = json.loads(box.exec("df", "--output=size", "-B1", DATA).stdout.split()[-1])
    assert seen > (to_gib - 0.2) * GIB


def assert_history(box: Box, *, growths: int) -> None:
    """The journal tells of every growth since the first boot, but not to any user."""
    history = ("ebs-autoscale", "history", "--json")
    found = json.loads(box.exec(*history).stdout)
    ordinals = [growth["growth"].rpartition("-")[2] for growth in found["growths"]]
    assert ordinals == [str(number) for number in range(1, growths + 1)]
    assert all(growth["steps"].keys() == set(ADDING) for growth in found["growths"])
    assert (found["unreadable_lines"], found["notes"]) == (0, [])
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    assert box.exec(*nobody, *history, check=False).returncode == Exit.UNFIT


def assert_explained(box: Box) -> None:
    """`journalctl -x` explains each line of the daemon, with the values of the fields."""

    def explained() -> bool:
        # Between the two looks it may have said something more.
        told = box.journal("-x", "-t", "ebs-autoscale")
        return told.count(" Subject: ") == len(journal_of_daemon(box))

    box.wait_until(explained, "an explanation of each line")
    told = box.journal("-x", "-t", "ebs-autoscale")
    assert not re.findall(r"\b(HINT|CAUSE|VOLUME_ID|GROWTH)\b", told)


def test_the_watchdog_restarts_it(box: Box) -> None:
    """A daemon that hangs is restarted by systemd, without a core dump: it has credentials."""
    assert_seen_after_an_unmount(box)
    box.write(DROP_IN, "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")
    box.exec("systemctl", "daemon-reload")
    box.exec("systemctl", "restart", UNIT)
    stopped = shown(box, "MainPID")
    [core] = re.findall("Max core file size .*", box.read(f"/proc/{stopped}/limits"))
    assert core.split()[-3:] == ["0", "0", "bytes"]
    box.exec("kill", "-STOP", stopped)
    box.wait_until(lambda: shown(box, "NRestarts") != "0", "a restart")
    box.wait_until(lambda: state(box) == "active", "the service again")
    assert shown(box, "MainPID") != stopped
    assert_status_for_every_user(box)


def assert_status_for_every_user(box: Box) -> None:
    """Any user can see the daemon; without permission `status` does not say that none runs."""
    status = ("setpriv", "--reuid=65534", "--clear-groups", "ebs-autoscale", "status")
    assert f"pid {shown(box, 'MainPID')}, " in box.exec(*status).stdout
    box.exec("chmod", "0700", "/run/ebs-autoscale")
    done = box.exec(*status, "--json", check=False)
    assert (done.returncode, "daemon_unknown" in json.loads(done.stdout)) == (Exit.UNFIT, True)


def assert_seen_after_an_unmount(box: Box) -> None:
    """An unmount on the host is seen by the daemon, which continues after the next mount."""
    # A look that the daemon takes after its start may have it open.
    away = ("umount", "/scratch")
    box.wait_until(lambda: box.exec(*away, check=False).returncode == 0, "umount")
    wait_event(box, EventKind.CONDITION_BEGAN, CAUSE=Cause.NOT_MOUNTED.value)
    assert box.exec("ebs-autoscale", "status", check=False).returncode == 5
    box.exec("mount", "/scratch")
    wait_event(box, EventKind.CONDITION_ENDED, CAUSE=Cause.NOT_MOUNTED.value)
    assert_grows_for_a_user(box)


def test_stopped_in_mid_growth(make_host: MakeBox) -> None:
    """A stop ends well within its time, and the next start finishes the growth."""
    box = make_host(create_seconds=(3.0, 3.5))
    configure(box)
    initialise(box)
    fill(box, left=20)
    wait_event(box, EventKind.STEP_STARTED, STEP=StepKind.CREATE_VOLUME)
    began = monotonic()
    box.exec("systemctl", "stop", UNIT, timeout=100)
    assert monotonic() - began < 60
    assert shown(box, "Result") == "success"
    assert devices(box) == 1
    box.exec("systemctl", "start", UNIT)
    wait_growth(box)
    assert devices(box) == 2


def test_stopped_in_mid_balance(make_host: MakeBox) -> None:
    """A running balance is cancelled: after the stop the filesystem is idle."""
    box = make_host()
    configure(box, metadata={"rebalance": "full"})
    initialise(box)
    # Small files are stored in metadata: enough of it for a long balance.
    program = "for i in range(40000): open(f'/scratch/{i}', 'w').write('x' * 2000)"
    box.exec("python3", "-c", program, timeout=300)
    box.exec("btrfs", "filesystem", "sync", "/scratch")
    [uuid] = box.exec("findmnt", "-no", "UUID", "/scratch").stdout.split()
    running = f"/sys/fs/btrfs/{uuid}/exclusive_operation"
    fill(box, left=20)
    box.wait_until(
        lambda: box.read(running).strip() == "balance",
        "the balance",
        seconds=60,
        pause_max_seconds=0.05,
    )
    began = monotonic()
    box.exec("systemctl", "stop", UNIT, timeout=100)
    assert monotonic() - began < 90
    assert shown(box, "Result") == "success"
    assert box.read(running).strip() == "none"
    box.exec("systemctl", "start", UNIT)
    held = {"DECISION": DecisionKind.HOLD.value}
    box.wait_until(lambda: count_events(box, EventKind.DECIDED, **held) == 2, "the next hold")
    assert box.read(running).strip() == "none"
    box.exec("btrfs", "scrub", "start", "-B", "/scratch", timeout=120)


def test_reload(box: Box) -> None:
    """A valid configuration is used at once; an invalid one fails the reload, changing nothing."""
    # Within the sandbox of its unit.
    notify = {"command": ["sh", "-c", "nice >>/run/heard; cat >>/run/heard"]}
    configure(box, limits={"volumes": 7}, notify=notify, metrics={"listen": 9798})
    box.exec("systemctl", "reload", UNIT)
    wait_event(box, EventKind.RELOADED)
    box.write(CONFIG_PATH, "mountpoint: /scratch\nlimits: {volumes: many}\n")
    assert box.exec("systemctl", "reload", UNIT, check=False).returncode != 0
    assert "limits.volumes" in box.journal("-u", UNIT)
    assert state(box) == "active"
    pid = shown(box, "MainPID")
    configure(box, path="/root/good.yaml")
    fill(box, left=20, path="/root/good.yaml")
    wait_growth(box)
    assert shown(box, "MainPID") == pid
    box.wait_until(lambda: EventKind.GROWTH_DONE.value in box.read("/run/heard"), "the command")
    # The command has the usual priority, not that of the daemon.
    assert set(box.read("/run/heard").splitlines()[::2]) == {"0"}
    scrape = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9798/metrics').read())"
    assert "ebs_autoscale_managed_volumes" in box.exec("python3", "-c", scrape).stdout


def assert_grows_for_a_user(box: Box) -> None:
    """A filesystem that was given to a user, who keeps others out, has its reserve and grows."""
    box.wait_until(lambda: has_reserve(box), "the reserve")
    box.exec("chown", "-R", "nobody", "/scratch")
    box.exec("chmod", "0700", "/scratch")
    wait_event(box, EventKind.CONDITION_ENDED, CAUSE=Cause.RESERVE_MISSING.value)
    assert has_reserve(box)
    fill(box, left=20)
    wait_growth(box)
    assert box.exec("ebs-autoscale", "status").returncode == 0


def boot_without_newest(box: Box) -> str:
    """Let it grow, then boot without the volume of that growth; returns its id."""
    fstab = box.read("/etc/fstab").replace("device-timeout=120s", "device-timeout=3s")
    box.write("/etc/fstab", fstab)
    fill(box, left=20)
    wait_growth(box)
    newest = volumes(box)[-1].id
    box.reboot(without={newest})
    wait_event(box, EventKind.CONDITION_BEGAN, containing=newest)
    assert state(box) == "active"
    assert box.exec("findmnt", "/scratch", check=False).returncode != 0
    return newest


def test_a_device_that_is_late(box: Box) -> None:
    """Without one of its volumes the boot continues, nothing is mounted or created; then it is."""
    late = boot_without_newest(box)
    assert count_events(box, EventKind.CONDITION_BEGAN, containing="devid 1")
    assert box.exec("ebs-autoscale", "status", check=False).returncode == 5
    box.exec("systemctl", "stop", UNIT)
    assert shown(box, "Result") == "success"
    assert len(volumes(box)) == 2
    box.exec("systemctl", "start", UNIT)
    box.sandbox.show_device(late, shown=True)
    wait_event(box, EventKind.CONDITION_ENDED, CAUSE=Cause.NOT_MOUNTED.value)
    assert devices(box) == 2
    fill(box, left=20)
    wait_growth(box, 2)
    assert len(volumes(box)) == 3


def test_uninstall(box: Box) -> None:
    """Service, fstab line and configuration are removed, however the latter was named."""
    box.exec("sh", "-c", "echo kept >/scratch/kept")
    here = f"cd {Path(CONFIG_PATH).parent} && EBS_AUTOSCALE_CONFIG={Path(CONFIG_PATH).name}"
    done = box.exec("sh", "-c", f"{here} ebs-autoscale uninstall")
    assert "/scratch" in done.stdout
    assert state(box) == "inactive"
    assert "btrfs" not in box.read("/etc/fstab")
    assert box.read("/scratch/kept") == "kept\n"
    assert box.exec("ls", "/etc/ebs-autoscale", check=False).returncode != 0
    found = box.exec("find", "/etc/systemd", "/usr/lib/systemd", "-name", "*autoscale*").stdout
    assert found == ""


def test_purged(box: Box) -> None:
    """`--purge-empty` deletes an empty filesystem and its volume."""
    assert box.exec("ebs-autoscale", "uninstall", "--purge-empty").returncode == 0
    assert box.exec("findmnt", "/scratch", check=False).returncode != 0
    box.wait_until(lambda: not volumes(box), "the volume's end")
