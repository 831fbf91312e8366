"""`init` for XFS and ext4: on a volume that it creates, and on one that is mounted already."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ec2_sandbox.devices.partitions import show_partitions

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.ec2.requests import (
    ADOPTED_TAG,
    FILESYSTEM_TAG,
    GROWTH_TAG,
    MOUNTPOINT_TAG,
    OWNER_TAG,
)
from ebs_autoscale.wiring import mounted_at
from tests.program import PROGRAM
from tests.system.bare import CONFIG, FSTAB, CloudHost
from tests.system.bench import until
from tests.system.test_init_crash import kill_in_tool
from tests.unit.samples import policy_of

pytestmark = pytest.mark.kernel

KINDS = ["xfs", "ext4"]
# What a host with such a filesystem needs, and nothing more.
POLICY = policy_of(adopt=True, enlarge=True, adds=False)
ANOTHER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0ffffffffffffffff"


def uuid_of(host: CloudHost) -> str:
    """The UUID of what is mounted."""
    return mounted_at(str(host.mountpoint), SystemClock()).uuid


def attach(host: CloudHost, tags: dict[str, str] | None = None, **params: Any) -> tuple[str, str]:
    """An operator's volume, attached here; its id and node."""
    volume_id = host.sandbox.put_volume(1, tags=tags or {}, **params)
    host.sandbox.operate(
        "AttachVolume",
        VolumeId=volume_id,
        InstanceId=host.sandbox.instance_id,
        Device="/dev/sdf",
    )

    def node() -> str:
        found = [each for each in host.sandbox.state().volumes if each.id == volume_id]
        return found[0].node if found[0].attachment_state == "attached" else ""

    until(lambda: bool(node()), "the attachment")
    return volume_id, f"/dev/{node()}"


def make(kind: str, node: str) -> None:
    """Make a filesystem as a distribution does."""
    force = {"xfs": ["-K"], "ext4": ["-F"]}.get(kind, [])
    subprocess.run([f"mkfs.{kind}", "-q", *force, node], check=True)


def mount(host: CloudHost, node: str, line: str = "") -> None:
    """Mount it on the mountpoint, by a line in fstab if there is one."""
    host.mountpoint.mkdir(exist_ok=True)
    if line:
        FSTAB.write_text(f"{line}\n", "utf-8")
    subprocess.run(["mount", node, str(host.mountpoint)], check=True)


def tags_of(host: CloudHost, volume_id: str) -> dict[str, str]:
    """The tags of a volume."""
    return {**next(v for v in host.sandbox.state().volumes if v.id == volume_id).tags}


def assert_refused(
    host: CloudHost, *words: str, argv: tuple[str, ...] = (), status: int = 5
) -> None:
    """It says so, and nothing was changed: no tag, no line, no configuration."""
    before = host.sandbox.state().volumes, FSTAB.read_bytes()
    ran = host.init(*argv)
    assert ran.returncode == status, ran.stderr
    assert all(each in ran.stderr for each in words), ran.stderr
    assert "Traceback" not in ran.stderr
    assert (host.sandbox.state().volumes, FSTAB.read_bytes()) == before
    assert not CONFIG.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_from_nothing_to_a_purge(cloud_host: CloudHost, kind: str) -> None:
    """A volume as for BTRFS, the filesystem on it, and again; at the end nothing is left."""
    point = cloud_host.mountpoint
    ran = cloud_host.init("--filesystem", kind, "--size", "1GiB", "--mode", "1777")
    assert ran.returncode == 0, ran.stderr
    (volume,) = cloud_host.volumes()
    uuid = uuid_of(cloud_host)
    assert (volume.tags[FILESYSTEM_TAG], volume.tags[GROWTH_TAG]) == (uuid, "0")
    assert volume.delete_on_termination
    assert ADOPTED_TAG not in volume.tags
    checked = {"xfs": 0, "ext4": 2}[kind]
    options = "defaults,nofail,x-systemd.device-timeout=120s"
    assert cloud_host.lines == [f"UUID={uuid} {point} {kind} {options} 0 {checked}"]
    assert point.stat().st_mode & 0o7777 == 0o1777

    other = {"xfs": "ext4", "ext4": "xfs"}[kind]
    assert cloud_host.init("--filesystem", "btrfs").returncode == 5
    subprocess.run(["umount", str(point)], check=True)
    assert cloud_host.init("--filesystem", other).returncode == 5
    ran = cloud_host.init()
    assert ran.returncode == 0, ran.stderr
    assert (uuid_of(cloud_host), len(cloud_host.volumes())) == (uuid, 1)

    (point / "data").touch()
    assert cloud_host.run("uninstall", "--purge-empty").returncode == 5
    (point / "data").unlink()
    ran = cloud_host.run("uninstall", "--purge-empty")
    assert ran.returncode == 0, ran.stderr
    assert cloud_host.volumes() == []
    assert (cloud_host.lines, cloud_host.mounts, CONFIG.exists()) == ([], [], False)


def test_killed_inside_mkfs(cloud_host: CloudHost, tmp_path: Path) -> None:
    """Killed before mkfs has finished, the next run formats again, on the same volume."""
    kind = "ext4"
    inject = "inject=pwrite64:error=EIO:signal=KILL:when=30"
    real = shutil.which(f"mkfs.{kind}")
    work = f'strace -qq -o /dev/null -e {inject} {real} "$@"'
    kill_in_tool(cloud_host, tmp_path, f"mkfs.{kind}", work, "--filesystem", kind)
    assert not cloud_host.mounts
    ran = cloud_host.init("--filesystem", "btrfs")
    assert (ran.returncode, kind in ran.stderr) == (5, True), ran.stderr
    ran = cloud_host.init("--filesystem", kind)
    assert ran.returncode == 0, ran.stderr
    (volume,) = cloud_host.volumes()
    assert volume.tags[FILESYSTEM_TAG] == uuid_of(cloud_host)


@pytest.mark.parametrize("cloud_host", [{"policy": POLICY}], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mounted_one(cloud_host: CloudHost, kind: str) -> None:
    """Its volume is tagged, with no more permissions than that takes; its line stays as it is."""
    volume_id, node = attach(cloud_host)
    make(kind, node)
    line = f"{node}\t{cloud_host.mountpoint} {kind} noatime 0 1"
    mount(cloud_host, node, line)
    for _ in range(2):
        ran = cloud_host.init("--filesystem", kind)
        assert ran.returncode == 0, ran.stderr
        assert "denied" not in ran.stderr
    uuid = uuid_of(cloud_host)
    assert tags_of(cloud_host, volume_id) == {
        OWNER_TAG: cloud_host.sandbox.instance_arn,
        FILESYSTEM_TAG: uuid,
        GROWTH_TAG: "0",
        MOUNTPOINT_TAG: str(cloud_host.mountpoint),
        ADOPTED_TAG: "true",
    }
    assert len(cloud_host.sandbox.calls("CreateTags")) == 1
    assert FSTAB.read_text("utf-8") == f"{line}\n"
    printed = cloud_host.run("iam-policy").stdout
    assert "CreateVolume" not in printed
    assert "ModifyVolume" in printed
    checked = cloud_host.run("check").stdout
    assert "fail ec2" not in checked
    assert "CreateVolume" not in checked

    # It is not deleted with the instance because of us, nor by hand of us.
    assert cloud_host.run("uninstall", "--purge-empty").returncode == 5
    assert cloud_host.run("uninstall").returncode == 0
    (volume,) = cloud_host.volumes()
    assert not volume.delete_on_termination
    assert (len(cloud_host.mounts), FSTAB.read_text("utf-8")) == (1, f"{line}\n")
    assert cloud_host.init().returncode == 0


def test_a_given_device(cloud_host: CloudHost, tmp_path: Path) -> None:
    """A blank volume of an operator gets tags before its filesystem, and stays theirs."""
    volume_id, node = attach(cloud_host)
    # A run that ends between the two is continued with the same UUID.
    (tmp_path / "mkfs.xfs").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    (tmp_path / "mkfs.xfs").chmod(0o755)
    search = cloud_host.environment["PATH"]
    cloud_host.environment["PATH"] = f"{tmp_path}:{search}"
    assert cloud_host.init("--filesystem", "xfs", "--device", node).returncode == 5
    cloud_host.environment["PATH"] = search
    # As it was before mkfs was started.
    with Path(node).open("r+b") as device:
        device.seek(1024**3 - 2 * 1024**2)
        device.write(bytes(2 * 1024**2))
    ran = cloud_host.init("--filesystem", "xfs", "--device", node)
    assert ran.returncode == 0, ran.stderr
    tags = tags_of(cloud_host, volume_id)
    assert (tags[FILESYSTEM_TAG], tags[ADOPTED_TAG]) == (uuid_of(cloud_host), "true")
    assert not cloud_host.volumes()[0].delete_on_termination


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({OWNER_TAG: ANOTHER}, (ANOTHER, "remove its ebs-autoscale tags")),
        ({FILESYSTEM_TAG: "another-uuid"}, ("another-uuid",)),
    ],
)
def test_the_volume_of_somebody_else(
    cloud_host: CloudHost, tags: dict[str, str], words: tuple[str, ...]
) -> None:
    """A volume that another instance or another filesystem owns is refused, as it is."""
    volume_id, node = attach(cloud_host, tags)
    make("xfs", node)
    mount(cloud_host, node)
    assert_refused(cloud_host, volume_id, *words)


def test_not_permitted(cloud_host: CloudHost) -> None:
    """Without the permission nothing is changed, and an operator can set the tags instead."""
    volume_id, node = attach(cloud_host)
    make("xfs", node)
    mount(cloud_host, node)
    cloud_host.sandbox.set_policy(policy_of(adopt=True))
    assert_refused(cloud_host, volume_id, "--adopt --enlarge", "aws ec2 create-tags")
    tags = {
        OWNER_TAG: cloud_host.sandbox.instance_arn,
        FILESYSTEM_TAG: uuid_of(cloud_host),
        GROWTH_TAG: "0",
    }
    pairs = [{"Key": key, "Value": tags[key]} for key in tags]
    cloud_host.sandbox.operate("CreateTags", Resources=[volume_id], Tags=pairs)
    ran = cloud_host.init()
    assert ran.returncode == 0, ran.stderr
    assert "ec2:ModifyVolume is denied" in ran.stderr


@contextmanager
def loop_with(kind: str, host: CloudHost, folder: Path) -> Iterator[None]:
    """A filesystem that is on no volume."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(320 * 1024**2)
    make(kind, str(image))
    host.mountpoint.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(host.mountpoint)], check=True)
    yield
    subprocess.run(["umount", str(host.mountpoint)], check=True)


@pytest.mark.parametrize(("kind", "word"), [("ext4", "EBS"), ("ext3", "ext3")])
def test_what_cannot_grow(cloud_host: CloudHost, tmp_path: Path, kind: str, word: str) -> None:
    """A device that is no EBS volume, and filesystems of other kinds."""
    with loop_with(kind, cloud_host, tmp_path):
        assert_refused(cloud_host, word)


def test_a_partition_that_cannot_grow(cloud_host: CloudHost) -> None:
    """Of two partitions the last one can grow, and the first one is refused before it is tagged."""
    volume_id, node = attach(cloud_host)
    table = "label: gpt\n,400MiB,L\n,400MiB,L\n"
    subprocess.run(["sfdisk", "-q", "--no-tell-kernel", node], input=table, text=True, check=True)
    name = Path(node).name
    for part in show_partitions(name):
        make("xfs", f"/dev/{part}")
    mount(cloud_host, f"{node}p1")
    assert_refused(cloud_host, f"{name}p1", "not the last")
    checked = cloud_host.run("check", str(cloud_host.mountpoint), "--json").stdout
    names = {line["name"] for line in json.loads(checked)}
    assert "growth" in names
    # What is behind it is the other partition, and not unused.
    assert "slack" not in names
    subprocess.run(["umount", str(cloud_host.mountpoint)], check=True)
    mount(cloud_host, f"{node}p2")
    ran = cloud_host.init()
    assert ran.returncode == 0, ran.stderr
    assert tags_of(cloud_host, volume_id)[FILESYSTEM_TAG] == uuid_of(cloud_host)
    assert cloud_host.lines[0].startswith(f"UUID={uuid_of(cloud_host)} ")
    subprocess.run(["umount", str(cloud_host.mountpoint)], check=True)
    undone = cloud_host.run("uninstall")
    assert undone.returncode == 0, undone.stderr
    # XFS has none, mounted or not.
    assert "reserve" not in undone.stdout


@contextmanager
def as_root(host: CloudHost, node: str) -> Iterator[None]:
    """Have this filesystem mounted, with everything else of the machine in it."""
    mount(host, node)
    for entry in Path("/").iterdir():
        place = host.mountpoint / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir():
            place.mkdir()
            subprocess.run(["mount", "--rbind", str(entry), str(place)], check=True)
    yield
    subprocess.run(["umount", "--recursive", "--lazy", str(host.mountpoint)], check=True)


def test_the_root_filesystem(cloud_host: CloudHost) -> None:
    """The default of many distributions: one partition, whose line in fstab stays as it is."""
    volume_id, node = attach(cloud_host)
    make("xfs", node)
    line = "UUID=of-the-image / xfs defaults,noatime 1 1\n"
    FSTAB.write_text(line, "utf-8")
    with as_root(cloud_host, node):
        for argv, status in (
            (["init", "/"], 5),
            (["init", "/"], 0),
            (["plan"], 0),
            (["uninstall", "--purge-empty"], 5),
            (["uninstall"], 0),
            (["init", "/"], 0),
        ):
            ran = subprocess.run(
                ["chroot", str(cloud_host.mountpoint), *PROGRAM, *argv],
                env=cloud_host.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == status, (argv, ran.stderr)
            assert "--mode" not in ran.stderr
            # At first it is of another filesystem.
            uuid = mounted_at(str(cloud_host.mountpoint), SystemClock()).uuid
            FSTAB.write_text(line.replace("of-the-image", uuid), "utf-8")
        assert "\nmountpoint: /\n" in CONFIG.read_text("utf-8")
        assert FSTAB.read_text("utf-8") == f"UUID={uuid} / xfs defaults,noatime 1 1\n"
    assert tags_of(cloud_host, volume_id)[MOUNTPOINT_TAG] == "/"


def test_the_root_filesystem_only_by_its_name(cloud_host: CloudHost, tmp_path: Path) -> None:
    """No link, other spelling, variable or older configuration leads there; its mode stays."""
    link = tmp_path / "link"
    link.symlink_to("/")
    older = tmp_path / "older.json"
    older.write_text('{"mountpoint": "/", "filesystem": "btrfs"}', "utf-8")
    for path in (link, "//", "", "."):
        assert cloud_host.init(at=path).returncode == 2, path
    ran = cloud_host.run("init", "--from", str(older))
    assert (ran.returncode, "root filesystem" in ran.stderr) == (2, True), ran.stderr
    assert cloud_host.init("--mode", "1777", at="/").returncode == 2
    assert cloud_host.sandbox.journal() == []
    CONFIG.parent.mkdir()
    CONFIG.write_text(f"mountpoint: {link}\n", "utf-8")
    ran = cloud_host.run("plan")
    assert (ran.returncode, "root filesystem" in ran.stderr) == (5, True), ran.stderr
