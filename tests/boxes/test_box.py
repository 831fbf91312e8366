"""The machine that other tests use boots, has its EC2, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.machine import BoxFailed
from tests.boxes.tree import Tree
from tests.system.bench import until

pytestmark = pytest.mark.kernel

_GIB = 1024**3
_ENDPOINT = "http://169.254.169.254"
_ASK = """
import sys, urllib.request as u
method, url, *headers = sys.argv[1:]
request = u.Request(url, method=method, headers=dict(h.split(": ") for h in headers))
print(u.urlopen(request, timeout=10).read().decode())
"""
_USER_DATA = """#cloud-config
write_files:
  - path: /etc/written
    content: by cloud-init
runcmd:
  - [sh, -c, "cp /etc/written /etc/ran"]
"""
# A box in a process that is killed.
_DOOMED = """
import sys
from pathlib import Path
from ec2_sandbox.devices.namespace import enter_private_namespace
enter_private_namespace()
from tests.boxes.box import Box
from tests.boxes.tree import Tree
from tests.system.bench import until
from tests.boxes.test_box import attach_volume
with Box(Tree(Path(sys.argv[1]), Path(sys.argv[1]))) as box:
    volume = attach_volume(box)
    box.exec("mkfs.btrfs", "--quiet", box.by_id(volume))
    box.exec("mount", box.by_id(volume), "/mnt")
    print(box.name, flush=True)
    sys.stdin.read()
"""


def ask(box: Box, method: str, url: str, *headers: str) -> str:
    """One HTTP request from inside."""
    return box.exec("python3", "-c", _ASK, method, url, *headers).stdout.strip()


def attach_volume(box: Box, *, device: str = "/dev/xvdba") -> str:
    """Create and attach a volume of 1 GiB from inside; returns its id when it has a device."""

    def ec2(action: str, **parameters: str) -> str:
        form = urlencode({"Action": action, "Version": "2016-11-15", **parameters})
        return ask(box, "GET", f"{_ENDPOINT}/?{form}")

    answer = ec2("CreateVolume", Size="1", VolumeType="gp3", AvailabilityZone="us-east-1a")
    volume_id = answer.partition("<volumeId>")[2].partition("<")[0]
    instance_id = box.sandbox.instance_id
    ec2("AttachVolume", VolumeId=volume_id, InstanceId=instance_id, Device=device)
    box.wait_until(lambda: box.has(box.by_id(volume_id)), f"the device of {volume_id}")
    return volume_id


def make_scratch(box: Box) -> list[str]:
    """Mount a BTRFS of two volumes on /scratch through fstab; returns the ids of the volumes."""
    volumes = [attach_volume(box, device=device) for device in ("/dev/xvdba", "/dev/xvdbb")]
    nodes = [box.by_id(volume) for volume in volumes]
    box.exec("mkfs.btrfs", "--quiet", "-d", "single", "-m", "raid1", *nodes)
    uuid = box.exec("blkid", "-o", "value", "-s", "UUID", nodes[0]).stdout.strip()
    options = "defaults,nofail,x-systemd.device-timeout=60s"
    box.write("/etc/fstab", f"UUID={uuid} /scratch btrfs {options} 0 0\n")
    box.exec("mkdir", "/scratch")
    box.exec("systemctl", "daemon-reload")
    box.exec("systemctl", "start", "scratch.mount")
    box.write("/scratch/kept", "content")
    return volumes


def is_mounted(box: Box) -> bool:
    """Whether /scratch is a mountpoint."""
    return box.exec("mountpoint", "--quiet", "/scratch", check=False).returncode == 0


def node_names(box: Box) -> dict[str, str]:
    """The kernel names of the volumes' devices."""
    return {volume.id: volume.node for volume in box.sandbox.state().volumes if volume.node}


def left_behind(name: str) -> list[str]:
    """Processes, mounts, sparse files, groups and folders of a box that still exist."""
    # Groups of other boxes come and go meanwhile, which Path.rglob() does not bear.
    groups = (path for path, _, _ in os.walk("/sys/fs/cgroup") if Path(path).name == name)
    found = [f"group {path}" for path in groups]
    found += [f"folder {path}" for path in Path("/dev/shm").glob(name)]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # one that was released meanwhile
            if name in path.read_text():
                found.append(f"device {path}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mounts = (process / "mountinfo").read_text()
            words = (process / "cmdline").read_text() + (process / "cgroup").read_text()
        except OSError:
            continue
        if name in words + mounts:
            found.append(f"process {process.name}")
    return found


def test_it_boots_without_a_failed_unit(box: Box) -> None:
    """PID 1 is systemd, and the boot is complete."""
    assert box.read("/proc/1/comm") == "systemd\n"
    assert (box.state, box.failed_units) == ("running", [])


def test_a_failed_unit_is_named(box: Box) -> None:
    """A machine with a failed service is degraded, and boots nevertheless."""
    unit = "[Service]\nType=oneshot\nExecStart=false\n[Install]\nWantedBy=multi-user.target\n"
    box.write("/etc/systemd/system/bad.service", unit)
    box.exec("systemctl", "enable", "bad.service")
    box.reboot()
    assert (box.state, box.failed_units) == ("degraded", ["bad.service"])


def test_it_has_metadata_and_ec2_at_the_real_address(box: Box) -> None:
    """IMDSv2 answers at EC2's address, only with a token, and services know where EC2 is."""
    token = ask(
        box, "PUT", f"{_ENDPOINT}/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60"
    )
    identity = f"{_ENDPOINT}/latest/meta-data/instance-id"
    assert ask(box, "GET", identity, f"X-aws-ec2-metadata-token: {token}") == (
        box.sandbox.instance_id
    )
    with pytest.raises(BoxFailed, match="401"):
        ask(box, "GET", identity)
    shown = box.exec("systemctl", "show-environment").stdout
    wanted = f"AWS_ENDPOINT_URL_EC2={_ENDPOINT}\n"
    assert wanted in shown
    assert wanted in box.read("/etc/environment")


def test_an_attached_volume_shows_as_on_nitro(box: Box) -> None:
    """A volume has a block device and a by-id link from udevd, until it is detached."""
    volume = attach_volume(box)
    node = f"/dev/{node_names(box)[volume]}"
    assert box.exec("readlink", "-f", box.by_id(volume)).stdout.strip() == node
    assert box.exec("blockdev", "--getsize64", node).stdout == f"{_GIB}\n"
    box.sandbox.show_device(volume, shown=False)
    box.wait_until(lambda: not box.has(box.by_id(volume)) and not box.has(node), "it to go")


@pytest.mark.parametrize("renumber", [False, True])
def test_a_filesystem_of_two_volumes_is_there_after_a_reboot(box: Box, *, renumber: bool) -> None:
    """An fstab line by UUID mounts the filesystem again, whatever its device names are then."""
    make_scratch(box)
    before = node_names(box)
    box.reboot(renumber=renumber)
    assert is_mounted(box), box.journal("--boot")
    assert box.read("/scratch/kept") == "content"
    after = node_names(box)
    assert all((before[volume] != after[volume]) == renumber for volume in before)


def test_a_late_device_is_waited_for(box: Box) -> None:
    """Without one device systemd boots and does not mount; it mounts when the device appears."""
    first, late = make_scratch(box)
    box.reboot(without=[late])
    udevadm = ("udevadm", "info", box.by_id(first))
    box.wait_until(lambda: box.has(box.by_id(first)), "the first device")
    box.wait_until(
        lambda: "ID_BTRFS_READY=0" in box.exec(*udevadm, check=False).stdout,
        "udevd to find the filesystem incomplete",
        seconds=10,
    )
    assert not is_mounted(box)
    box.sandbox.show_device(late, shown=True)
    box.wait_until(lambda: is_mounted(box), "the mount")
    assert box.read("/scratch/kept") == "content"


def test_an_extra_device_is_no_volume(box: Box) -> None:
    """Another block device has links by its content, but no by-id link of EBS."""
    disk = box.add_disk(_GIB)
    box.exec("mkfs.ext4", "-q", "-L", "mine", disk.node)
    box.wait_until(lambda: box.has("/dev/disk/by-label/mine"), "its label")
    assert not box.has("/dev/disk/by-id")


def test_user_data_runs_once(make_box: MakeBox) -> None:
    """cloud-init applies the user data at the first boot only."""
    box = make_box(user_data=_USER_DATA)
    status = box.exec("cloud-init", "status", "--wait", "--long", timeout=120)
    assert "status: done" in status.stdout
    assert box.read("/etc/ran") == "by cloud-init"
    box.exec("rm", "/etc/ran")
    box.reboot()
    assert "status: done" in box.exec("cloud-init", "status", "--wait", timeout=120).stdout
    assert not box.has("/etc/ran")


def test_the_wheel_installs_without_a_network(box: Box, wheels: Path) -> None:
    """The wheel of this checkout and its dependencies suffice for a venv inside."""
    box.copy_in(wheels, "/root")
    box.exec("python3", "-m", "venv", "/opt/it", timeout=120)
    source = f"--find-links=/root/{wheels.name}"
    box.exec("/opt/it/bin/pip", "install", "--no-index", source, "ebs-autoscale", timeout=120)
    assert box.exec("/opt/it/bin/ebs-autoscale", "--version").stdout


def test_a_failure_has_the_journal(box: Box) -> None:
    """A wait that times out fails with the end of the journal."""
    box.exec("logger", "the last words")
    with pytest.raises(BoxFailed, match="the last words"):
        box.exec("sleep", "60", timeout=0.5)
    with pytest.raises(BoxFailed, match="never"):
        box.wait_until(lambda: False, "never", seconds=1)


def test_nothing_is_left_after_the_end(make_box: MakeBox) -> None:
    """A stopped box leaves no process, mount, device, group or folder."""
    box = make_box()
    attach_volume(box)
    assert left_behind(box.name)
    box.stop()
    until(lambda: not left_behind(box.name), f"{box.name} to go")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_killed_run(tree: Tree, number: signal.Signals) -> None:
    """The same when the process of the test is killed while a filesystem is mounted."""
    with subprocess.Popen(
        [sys.executable, "-c", _DOOMED, str(tree.root)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        name = process.stdout.readline().strip() if process.stdout else ""
        assert left_behind(name)
        process.send_signal(number)
    until(lambda: not left_behind(name), f"{name} to go")
