"""A filesystem made on a blank device, and what a killed mkfs.btrfs leaves of it."""

import random
import subprocess
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.errors import Unfit
from ebs_autoscale.filesystems.btrfs import mkfs as formatting
from ebs_autoscale.filesystems.btrfs.ioctl import superblock_uuid
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


def require_blank(device: LoopDevice, unfinished: str) -> None:
    """Prove it blank but for what the making of this filesystem left."""
    BlockDevices().require_blank(device.name, size_bytes=SIZE_BYTES, unfinished=unfinished)


def make(device: LoopDevice, filesystem: str) -> None:
    """Make it to its end."""
    formatting.make(Path(device.node), filesystem=filesystem, label="scratch")


def unfinish(device: LoopDevice, magic: bytes = b"!BHRfS_M") -> None:
    """Give the superblocks another magic; the one of a mkfs that is not through, by default."""
    for place in SUPERBLOCKS_AT:
        write(device, place + MAGIC_AT, magic)


def test_made_as_asked(loop: LoopFactory) -> None:
    """It has the name it was to have, with metadata in two copies, and is not made twice."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    assert superblock_uuid(device.node) == uuid
    shown = run(
        ["btrfs", "inspect-internal", "dump-tree", "-t", "chunk", device.node], timeout_seconds=60
    )
    assert {"METADATA|DUP", "SYSTEM|DUP"} <= set(shown.split())
    before = digest(device)
    with pytest.raises(Unfit, match="existing filesystem"):
        make(device, str(uuid4()))
    assert digest(device) == before


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere(loop: LoopFactory, seed: int) -> None:
    """Whenever mkfs.btrfs is killed, its leavings are known, and the next one succeeds."""
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


def test_leavings_of_another_filesystem(loop: LoopFactory) -> None:
    """An unfinished filesystem counts as nothing only for the one whose name it has."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    unfinish(device)
    require_blank(device, uuid)
    for other in (str(uuid4()), ""):
        with pytest.raises(Unfit, match="is not empty"):
            require_blank(device, other)


def test_a_wiped_filesystem_is_no_unfinished_one(loop: LoopFactory) -> None:
    """Where somebody wiped the magic of a complete filesystem there may be content all over."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    unfinish(device, bytes(8))
    with pytest.raises(Unfit, match="is not empty"):
        require_blank(device, uuid)


@pytest.mark.parametrize("offset", [0, 4096, 1024**2 + 16 * 1024 * 40, SIZE_BYTES - 512])
def test_leavings_with_something_else(loop: LoopFactory, offset: int) -> None:
    """One block that does not have the name is enough to refuse."""
    device, uuid = loop(SIZE_BYTES), str(uuid4())
    make(device, uuid)
    unfinish(device)
    write(device, offset, b"somebody else's" * 4)
    with pytest.raises(Unfit, match="is not empty"):
        require_blank(device, uuid)
