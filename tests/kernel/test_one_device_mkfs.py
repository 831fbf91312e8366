"""XFS and ext4 are made on a blank device, and what an interrupted mkfs has left is known."""

import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.one_device import mkfs
from ebs_autoscale.host.command import run
from ebs_autoscale.model import GIB, MIB, FilesystemKind
from ebs_autoscale.provision.existing_device import Candidate, inspect
from tests.conftest import LoopFactory
from tests.signatures import write

pytestmark = pytest.mark.kernel

SIZE_BYTES = 320 * MIB
KINDS = [FilesystemKind.XFS, FilesystemKind.EXT4]
FSCK = {FilesystemKind.XFS: ["xfs_repair", "-n"], FilesystemKind.EXT4: ["e2fsck", "-fn"]}
# mkfs.xfs writes 65 times, the first three times zeroes; mkfs.ext4 58 times, the last time its
# superblock, and the first six times nothing that remains.
KILLED_AT = {FilesystemKind.XFS: (1, 4, 20, 60), FilesystemKind.EXT4: (1, 10, 30, 55)}


def look(device: LoopDevice, uuid: str, kind: FilesystemKind | None = None) -> Candidate:
    """What is on it."""
    clock = SystemClock()
    return inspect(device.name, filesystem=uuid, kind=kind, size_bytes=SIZE_BYTES, clock=clock)


def ends(device: LoopDevice) -> bytes:
    """What is in the first and the last MiB."""
    with Path(device.node).open("rb") as node:
        first = node.read(MIB)
        node.seek(SIZE_BYTES - 2 * MIB)
        return first + node.read()


def make(device: LoopDevice, kind: FilesystemKind, uuid: str) -> None:
    """Make the filesystem, whatever an interrupted one has left."""
    mkfs.make(Path(device.node), kind=kind, filesystem=uuid, label="scratch")


def make_killed(device: LoopDevice, kind: FilesystemKind, uuid: str, at: int, folder: Path) -> None:
    """The same, killed at this write of the tool."""
    real, tool = shutil.which(f"mkfs.{kind}"), folder / f"mkfs.{kind}"
    inject = f"inject=pwrite64:error=EIO:signal=KILL:when={at}"
    tool.write_text(f'#!/bin/sh\nexec strace -qq -o /dev/null -e {inject} {real} "$@"\n')
    tool.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
        with pytest.raises(Unfit) as caught:
            make(device, kind, uuid)
    assert caught.value.cause is Cause.MKFS


@pytest.mark.parametrize("kind", KINDS)
def test_made_as_asked(loop: LoopFactory, kind: FilesystemKind) -> None:
    """It has this UUID and label, is sound, has nothing beside it, and is not made twice."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, kind, uuid)
    assert look(device, str(uuid4())) == Candidate(
        name=device.name, kind=kind, filesystem=uuid, is_formatted=True
    )
    assert "scratch" in run(["blkid", "-p", device.node], timeout_seconds=60)
    run([*FSCK[kind], device.node], timeout_seconds=60)
    before = ends(device)
    assert b"ebs-autoscale" not in before
    with pytest.raises(Unfit) as caught:
        make(device, kind, str(uuid4()))
    assert caught.value.cause is Cause.NOT_BLANK
    assert ends(device) == before


def test_made_to_grow(loop: LoopFactory) -> None:
    """XFS has a log for larger ones, ext4 no blocks for root alone, and no limit of 16 TiB."""
    xfs, ext4 = loop(GIB), loop(GIB)
    make(xfs, FilesystemKind.XFS, str(uuid4()))
    make(ext4, FilesystemKind.EXT4, str(uuid4()))
    shown = run(["xfs_db", "-r", "-c", "sb 0", "-c", "p logblocks", xfs.node], timeout_seconds=60)
    assert shown.split() == ["logblocks", "=", "16384"]
    shown = run(["dumpe2fs", "-h", ext4.node], timeout_seconds=60)
    found = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert "64bit" in found["Filesystem features"].split()
    assert found["Reserved block count"].strip() == "0"
    assert found["Block size"].strip() == "4096"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere(loop: LoopFactory, tmp_path: Path, kind: FilesystemKind) -> None:
    """Whenever mkfs is killed, what it leaves counts as nothing, for the same filesystem alone."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    for at in KILLED_AT[kind]:
        make_killed(device, kind, uuid, at, tmp_path)
        assert look(device, uuid) == Candidate(
            name=device.name, kind=kind, filesystem=uuid, is_formatted=False
        )
        with pytest.raises(Unfit) as caught:
            look(device, str(uuid4()))
        assert caught.value.cause is Cause.NOT_BLANK
        with pytest.raises(Unfit) as caught:
            look(device, uuid, FilesystemKind.BTRFS)
        assert caught.value.cause is Cause.NOT_BLANK
    make(device, kind, uuid)
    assert look(device, uuid).is_formatted
    run([*FSCK[kind], device.node], timeout_seconds=60)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wiped_filesystem_is_no_unfinished_one(loop: LoopFactory, kind: FilesystemKind) -> None:
    """A complete filesystem whose superblock was wiped may have content anywhere."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, kind, uuid)
    write(device, 0, bytes(4096))
    with pytest.raises(Unfit) as caught:
        look(device, uuid)
    assert caught.value.cause is Cause.NOT_BLANK


def test_another_filesystem_over_an_unfinished_one(loop: LoopFactory, tmp_path: Path) -> None:
    """What somebody else has made on the device meanwhile is never overwritten."""
    device, uuid, other = loop(SIZE_BYTES), str(uuid4()), str(uuid4())
    make_killed(device, FilesystemKind.EXT4, uuid, 30, tmp_path)
    subprocess.run(["mkfs.ext2", "-q", "-F", "-U", other, device.node], check=True)
    before = ends(device)
    with pytest.raises(Unfit):
        make(device, FilesystemKind.EXT4, uuid)
    assert ends(device) == before
