"""`init` as an operator or cloud-init runs it: one filesystem on a volume that it creates."""

import fcntl
import json
import re
import stat
import subprocess
from pathlib import Path

import pytest

from ebs_autoscale.model import InitStep, StepKind
from tests.system.bare import CONFIG, FSTAB, CloudHost
from tests.unit.samples import policy_lacking, policy_of

pytestmark = pytest.mark.kernel

STEPS = {StepKind.CREATE_VOLUME, StepKind.ATTACH_VOLUME, *InitStep}


def test_init(cloud_host: CloudHost) -> None:
    """From nothing to a mounted filesystem of 20 GiB; a second time nothing is left to do."""
    ran = cloud_host.init()
    assert ran.returncode == 0, ran.stderr
    cloud_host.assert_ready()
    assert [volume.size_gib for volume in cloud_host.volumes()] == [20]
    assert cloud_host.metadata_profile == "dup"
    assert set(re.findall(r"step=(\w+)", ran.stderr)) == STEPS
    assert f"--config {CONFIG} run --detach" in ran.stderr
    before, calls = (FSTAB.read_bytes(), FSTAB.stat().st_ino), len(cloud_host.sandbox.calls())
    CONFIG.write_text(f"{CONFIG.read_text('utf-8')}# mine\n", "utf-8")

    ran = cloud_host.init("--size", "30GiB")
    assert ran.returncode == 0, ran.stderr
    cloud_host.assert_ready()
    assert (FSTAB.read_bytes(), FSTAB.stat().st_ino) == before
    assert len(cloud_host.sandbox.calls()) == calls
    assert CONFIG.read_text("utf-8").endswith("# mine\n")


def test_the_mode_is_on_the_filesystem(cloud_host: CloudHost) -> None:
    """It survives an unmount; without --mode it is unchanged, and `init` says who cannot write."""
    point = cloud_host.mountpoint
    ran = cloud_host.init()
    assert stat.S_IMODE(point.stat().st_mode) == 0o755
    assert f"init {point} --mode 1777" in ran.stderr.splitlines()[-1]
    (point / "data").mkdir(mode=0o700)

    ran = cloud_host.init("--mode", "1777")
    assert ran.returncode == 0, ran.stderr
    subprocess.run(["umount", str(point)], check=True)
    assert stat.S_IMODE(point.stat().st_mode) == 0o755
    ran = cloud_host.init()
    assert ran.returncode == 0, ran.stderr
    assert "--mode" not in ran.stderr
    assert stat.S_IMODE(point.stat().st_mode) == 0o1777
    assert stat.S_IMODE((point / "data").stat().st_mode) == 0o700

    subprocess.run(["chattr", "+i", str(point)], check=True)
    ran = cloud_host.init("--mode", "2775")
    subprocess.run(["chattr", "-i", str(point)], check=True)
    assert ran.returncode == 5
    assert "Traceback" not in ran.stderr


def test_the_daemon_knows_its_first_volume(cloud_host: CloudHost) -> None:
    """The volume of `init` is a device like any other, so that the next growth is growth 1.

    It was chosen to be used, however small: it does not grow at once.
    """
    assert cloud_host.init("--size", "2GiB").returncode == 0
    cloud_host.assert_ready()
    found = json.loads(cloud_host.run("plan", "--json").stdout)
    assert (found["decision"], found["managed_usd_per_month"]) == ("hold", 0.16)
    assert json.loads(cloud_host.run("status", "--json").stdout)["managed_usd_per_month"] == 0.16
    assert cloud_host.run("check").returncode == 0
    ran = cloud_host.run("grow", "--size", "1GiB")
    assert ran.returncode == 0, ran.stderr
    growths = {volume.tags["ebs-autoscale:growth"]: volume for volume in cloud_host.volumes()}
    assert growths.keys() == {"0", "1"}

    # After a reboot all devices are there, and `init`, run at each boot, mounts what it made.
    subprocess.run(["umount", str(cloud_host.mountpoint)], check=True)
    assert cloud_host.init().returncode == 0
    assert len(cloud_host.mounts) == 1
    assert len(cloud_host.volumes()) == 2


def test_a_size_that_the_type_does_not_have(cloud_host: CloudHost) -> None:
    """A size that EC2 does not offer is refused with exit 2 before any call."""
    CONFIG.parent.mkdir()
    section = "volume: {type: st1}\ngrowth: {min: 125GiB}"
    CONFIG.write_text(f"mountpoint: {cloud_host.mountpoint}\n{section}\n", "utf-8")
    ran = cloud_host.init()
    assert ran.returncode == 2
    assert all(each in ran.stderr for each in ("st1", "125", "16384")), ran.stderr
    assert cloud_host.sandbox.journal() == []


@pytest.mark.parametrize(
    ("section", "argv", "key"),
    [
        ("", ("--size", "20TiB"), "growth.max"),
        ("limits: {total: 25GiB}", ("--size", "30GiB"), "limits.total"),
        ("limits: {monthly: 1}", (), "limits.monthly"),
    ],
)
def test_beyond_a_limit_nothing_is_created(
    cloud_host: CloudHost, section: str, argv: tuple[str, ...], key: str
) -> None:
    """A first volume passes the limits of every growth; a refusal names its price and the key."""
    if section:
        CONFIG.parent.mkdir()
        CONFIG.write_text(f"mountpoint: {cloud_host.mountpoint}\n{section}\n", "utf-8")
    ran = cloud_host.init(*argv)
    assert ran.returncode == 4
    assert key in ran.stderr
    assert "USD a month" in ran.stderr
    assert cloud_host.volumes() == []
    assert CONFIG.exists() is bool(section)


@pytest.mark.parametrize("cloud_host", [{"attachment_limit": 1}], indirect=True)
def test_no_slot_left(cloud_host: CloudHost) -> None:
    """What a limit forbids is refused with exit 4, and nothing is created."""
    ran = cloud_host.init()
    assert (ran.returncode, "limits.volumes" in ran.stderr) == (4, True), ran.stderr
    assert cloud_host.volumes() == []
    assert not cloud_host.lines


@pytest.mark.parametrize("cloud_host", [{"policy": policy_of()}], indirect=True)
def test_the_printed_policy_is_enough(cloud_host: CloudHost) -> None:
    """`init` needs no permission that a growth does not need."""
    ran = cloud_host.init()
    assert ran.returncode == 0, ran.stderr
    cloud_host.assert_ready()


def test_a_role_that_lacks_permissions(cloud_host: CloudHost) -> None:
    """All that is denied is told at once; a volume that exists by then is used by the next run."""
    sandbox = cloud_host.sandbox
    sandbox.set_policy(policy_lacking("DescribeInstances", "CreateTags"))
    ran = cloud_host.init()
    assert ran.returncode == 5
    assert all(each in ran.stderr for each in ("ec2:DescribeInstances", "ec2:CreateTags"))
    assert "Traceback" not in ran.stderr
    assert cloud_host.volumes() == []
    assert not cloud_host.lines
    assert not CONFIG.exists()

    sandbox.set_policy(policy_lacking("AttachVolume", "DeleteVolume"))
    ran = cloud_host.init()
    assert ran.returncode == 5
    [volume] = cloud_host.volumes()
    last = ran.stderr.splitlines()[-1]
    assert all(each in last for each in ("ec2:AttachVolume", "ec2:DeleteVolume"))
    assert f"{volume.id} (20 GiB) exists" in last
    assert f"check {cloud_host.mountpoint}" in last

    sandbox.set_policy(policy_of())
    assert cloud_host.init().returncode == 0
    cloud_host.assert_ready()
    assert [each.id for each in cloud_host.volumes()] == [volume.id]


def test_two_at_once(cloud_host: CloudHost) -> None:
    """While one runs, another ends with exit 3 and creates nothing."""
    lock = Path("/run/ebs-autoscale/init.lock")
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cloud_host.init().returncode == 3
    assert cloud_host.volumes() == []


def test_an_invalid_configuration_comes_first(cloud_host: CloudHost) -> None:
    """An invalid configuration, or one for another mountpoint, is refused before all else."""
    wrong = cloud_host.mountpoint.with_name("wrong.yaml")
    wrong.write_text("mountpoint: /other\n", "utf-8")
    ran = cloud_host.init(config=wrong)
    assert (ran.returncode, "/other" in ran.stderr) == (2, True)
    wrong.write_text("mountpoint: scratch\n", "utf-8")
    assert cloud_host.init(config=wrong).returncode == 2
    assert cloud_host.sandbox.journal() == []
    assert not cloud_host.mountpoint.exists()


def test_a_volume_with_content_is_left_alone(cloud_host: CloudHost) -> None:
    """A managed volume that another program has written to is refused, and stays as it is."""
    assert cloud_host.init("--size", "1GiB").returncode == 0
    node = f"/dev/{cloud_host.volumes()[0].node}"
    subprocess.run(["umount", str(cloud_host.mountpoint)], check=True)
    subprocess.run(["wipefs", "--all", "--quiet", node], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", node], check=True)
    ran = cloud_host.init()
    assert (ran.returncode, "ext4" in ran.stderr) == (5, True)
    assert len(cloud_host.volumes()) == 1
    assert not cloud_host.mounts
    subprocess.run(["e2fsck", "-fn", node], check=True, capture_output=True)


def test_made_anew_after_a_purge(cloud_host: CloudHost) -> None:
    """Another filesystem on the mountpoint, of another size, has nothing of the earlier one.

    Neither its client tokens, which EC2 refuses, nor its UUID, under which the kernel may still
    know its devices.
    """
    uuids = set()
    for size in ("1GiB", "2GiB"):
        assert cloud_host.init("--size", size).returncode == 0
        cloud_host.assert_ready()
        uuids.add(cloud_host.uuid)
        ran = cloud_host.run("uninstall", "--purge-empty")
        assert ran.returncode == 0, ran.stderr
    assert len(uuids) == len(cloud_host.sandbox.calls("CreateVolume")) == 2
