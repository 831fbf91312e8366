"""A filesystem is made on a blank device, and what an interrupted mkfs.btrfs leaves is known."""

import random
import subprocess
from functools import partial
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.btrfs import mkfs
from ebs_autoscale.filesystems.btrfs.superblock import is_left_by_mkfs, superblock_uuid
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.command import run
from tests.conftest import LoopFactory
from tests.signatures import digest, write

pytestmark = pytest.mark.kernel

SIZE_BYTES = 320 * 1024**2
SUPERBLOCKS_AT = (64 * 1024, 64 * 1024**2)
MAGIC_AT = 64
# 30 ms from the first write to the last on an idle machine.
LONGEST_LIFE_SECONDS = 0.05


def require_blank(device: LoopDevice, filesystem: str) -> None:
    """Verify that it is blank except for what an interrupted mkfs of this filesystem left."""
    is_leftover = partial(is_left_by_mkfs, filesystem=filesystem)
    BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES, is_leftover=is_leftover)


def require_refused(device: LoopDevice, filesystem: str) -> None:
    """Verify that its content counts as such."""
    with pytest.raises(Unfit) as caught:
        require_blank(device, filesystem)
    assert caught.value.cause is Cause.NOT_BLANK


def make(device: LoopDevice, filesystem: str) -> None:
    """Make the filesystem completely."""
    mkfs.make(Path(device.node), filesystem=filesystem, label="scratch")


def unfinish(device: LoopDevice, magic: bytes = b"!BHRfS_M") -> None:
    """Give the superblocks another magic, by default that of an mkfs that has not finished."""
    for place in SUPERBLOCKS_AT:
        write(device, place + MAGIC_AT, magic)


def test_made_as_asked(loop: LoopFactory) -> None:
    """It has the given UUID, with metadata in two copies, and is not made twice."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    assert superblock_uuid(device.node) == uuid
    shown = run(
        ["btrfs", "inspect-internal", "dump-tree", "-t", "chunk", device.node], timeout_seconds=60
    )
    assert {"METADATA|DUP", "SYSTEM|DUP"} <= set(shown.split())
    before = digest(device)
    with pytest.raises(Unfit) as caught:
        make(device, str(uuid4()))
    assert caught.value.cause is Cause.MKFS
    assert digest(device) == before


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere(loop: LoopFactory, seed: int) -> None:
    """Whenever mkfs.btrfs is killed, what it leaves is recognised, and the next one succeeds."""
    dice, pause = random.Random(seed), Event()  # noqa: S311 -- repeatable
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    argv = ["mkfs.btrfs", "-q", "-K", "-m", "dup", "-U", uuid, device.node]
    for _ in range(10):
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        pause.wait(dice.uniform(0, LONGEST_LIFE_SECONDS))
        process.kill()
        process.wait()
        if superblock_uuid(device.node) == uuid:
            break
        require_blank(device, uuid)
    else:
        make(device, uuid)
    run(["btrfs", "check", device.node], timeout_seconds=60)


def test_leftovers_of_another_filesystem(loop: LoopFactory) -> None:
    """An unfinished filesystem is ignored only when it has the UUID that is about to be made."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    unfinish(device)
    require_blank(device, uuid)
    require_refused(device, str(uuid4()))
    with pytest.raises(Unfit):
        BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES)


def test_a_wiped_filesystem_is_no_unfinished_one(loop: LoopFactory) -> None:
    """A complete filesystem whose magic was wiped may have content anywhere."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    unfinish(device, bytes(8))
    require_refused(device, uuid)


@pytest.mark.parametrize("offset", [0, 4096, 1024**2 + 16 * 1024 * 40, SIZE_BYTES - 512])
def test_leftovers_with_other_content(loop: LoopFactory, offset: int) -> None:
    """One block without the UUID is enough to refuse."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    unfinish(device)
    write(device, offset, b"another content" * 4)
    require_refused(device, uuid)
