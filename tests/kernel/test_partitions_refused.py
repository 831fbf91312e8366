"""A partition that is not certain to be safe to extend is refused, and not a byte is changed.

The law: what we, sfdisk, blkid and the kernel say of the block device is the same; the partition is
the last one and holds an XFS or ext4; and nothing else is there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from ec2_sandbox.devices.loop import LoopDevice, set_read_only

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.host.partitions import grow
from tests.kernel.fixtures import Loop
from tests.partitions import (
    BEHIND,
    DISK_AT,
    ENTRIES_AT,
    FIRST_AT,
    GPT,
    LARGER_BYTES,
    LAST_AT,
    MBR,
    SECTOR,
    SECTORS,
    SIZE_BYTES,
    START,
    Spoil,
    bcache,
    both,
    change_table,
    damage,
    fat,
    header,
    inside,
    iso9660,
    mbr_entry,
    of,
    partition,
    put,
)
from tests.signatures import digest, luks, lvm, md, zfs

pytestmark = pytest.mark.kernel

KIB = 1024
AT = START * SECTOR
BACKUP_AT = SIZE_BYTES // SECTOR - 1
OLD_END, NEW_END = SIZE_BYTES - 8 * KIB, LARGER_BYTES - 8 * KIB
LOOP_SET_BLOCK_SIZE = 0x4C09  # linux/loop.h
NO_ENTRIES = put(446, bytes(64))
NO_EXT4 = inside(KIB, bytes(KIB))
LINE = f"start={START}, size={SECTORS}"
LONG_GPT = f"label: gpt\ntable-length: 256\n1: {LINE}\n"


@contextmanager
def device_open(device: LoopDevice) -> Iterator[int]:
    """The device, open for reading."""
    fd = os.open(device.node, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


class Sample(NamedTuple):
    """A table, what is done to the device once it is larger, and a word of what is wrong."""

    table: str
    spoil: Spoil
    word: str
    number: int = 1


def nothing(_device: LoopDevice) -> None:
    """Leave it as it is."""


def kernel_forgets(number: int) -> Spoil:
    """Have the kernel not know of a partition."""
    return lambda device: run(["partx", "-d", f"--nr={number}", device.node], timeout_seconds=60)


TABLES = {
    "partition behind, MBR": Sample(
        f"{MBR}3: start={BEHIND}, size=2048\n", nothing, "not the last"
    ),
    "partition behind, GPT": Sample(
        f"{GPT}2: start={BEHIND}, size=2048\n", nothing, "not the last"
    ),
    "partition behind a hole, MBR": Sample(
        f"{MBR}4: start={BEHIND + 1024}, size=1024\n", nothing, "not the last"
    ),
    "partition behind a hole, GPT": Sample(
        f"{GPT}128: start={BEHIND + 1024}, size=1024\n", nothing, "not the last"
    ),
    "logical": Sample(
        f"label: dos\n1: start=2048, size=10240, type=5\n5: {LINE}\n", nothing, "extended", 5
    ),
    "primary behind an extended one": Sample(
        f"label: dos\n1: {LINE}\n2: start=2048, size=2048, type=5\n", nothing, "extended"
    ),
    "dynamic disk": Sample(MBR, mbr_entry(2, 0x42, 2048, 2048), "dynamic"),
    "BSD disklabel": Sample(MBR, mbr_entry(2, 0xA5, 2048, 2048), "BSD"),
    "type of LVM, MBR": Sample(MBR, mbr_entry(1, 0x8E, START, SECTORS), "type"),
    "type of swap, GPT": Sample(GPT, change_table("type=swap", "--partno=1"), "type"),
    "empty MBR": Sample(MBR, NO_ENTRIES, "differ"),
    "entry without start": Sample(MBR, mbr_entry(1, 0x83, 0, SECTORS), "entry 1"),
    "entry without type": Sample(MBR, mbr_entry(1, 0, START, SECTORS), "entry 1"),
    "code instead of entries": Sample(MBR, put(446, b"\x31\xc0\x8e\xd8" * 16), "entry"),
    "overlapping, MBR": Sample(MBR, mbr_entry(3, 0x83, 3000, 2000), "overlap"),
    "MBR of a larger device": Sample(
        MBR, lambda device: device.resize(5 * KIB**2), "behind its last"
    ),
    "protective MBR alone": Sample(MBR, both(NO_ENTRIES, mbr_entry(1, 0xEE, 1, 9)), "primary"),
    "MBR over a GPT": Sample(GPT, both(NO_ENTRIES, mbr_entry(1, 0x83, START, SECTORS)), "GPT"),
    "hybrid MBR": Sample(GPT, mbr_entry(2, 0x83, START, SECTORS), "hybrid"),
    "protective MBR elsewhere": Sample(GPT, mbr_entry(1, 0xEE, 2, 9), "hybrid"),
    "no MBR": Sample(GPT, put(0, bytes(SECTOR)), "neither"),
    "primary header": Sample(GPT, damage(SECTOR + 40), "primary header"),
    "primary entries": Sample(GPT, damage(2 * SECTOR + 40), "primary entries"),
    "backup header": Sample(GPT, damage(BACKUP_AT * SECTOR + 40), "backup header"),
    "backup entries": Sample(GPT, damage((BACKUP_AT - 32) * SECTOR + 40), "backup entries"),
    "both headers": Sample(GPT, both(damage(512), damage(BACKUP_AT * SECTOR)), "primary header"),
    "headers of two devices": Sample(
        GPT, header(BACKUP_AT, DISK_AT, b"of another table"), "differ"
    ),
    "headers of two sizes": Sample(GPT, header(1, LAST_AT, BEHIND), "differ"),
    "GPT of a larger device": Sample(GPT, lambda device: device.resize(6 * KIB**2), "sectors"),
    "256 entries": Sample(LONG_GPT, nothing, "128"),
    "entries elsewhere": Sample(GPT, header(1, ENTRIES_AT, 3), "128"),
    "partition outside": Sample(
        GPT, both(header(1, FIRST_AT, START + 8), header(BACKUP_AT, FIRST_AT, START + 8)), "outside"
    ),
    "partition unknown to the kernel": Sample(GPT, kernel_forgets(14), "differ"),
    "partition known to the kernel alone": Sample(GPT, change_table("", "--delete"), "differ"),
    "smaller than in the kernel": Sample(GPT, change_table(f"{START}, 4096", "-N1"), "differ"),
    "elsewhere than in the kernel": Sample(
        MBR, change_table(f"{START + 8}, 4096", "-N1"), "differ"
    ),
}

CONTENT = {
    "no filesystem": Sample(GPT, NO_EXT4, "nothing"),
    "filesystem behind the start": Sample(
        MBR,
        both(
            NO_EXT4,
            lambda device: run(
                ["mkfs.ext4", "-q", "-E", f"offset={AT + 1024 * KIB}", device.node, "2M"],
                timeout_seconds=60,
            ),
        ),
        "nothing",
    ),
    "LVM": Sample(GPT, both(NO_EXT4, inside(0, lvm())), "LVM2_member"),
    "md": Sample(GPT, both(NO_EXT4, inside(4 * KIB, md(4 * KIB))), "linux_raid_member"),
    "md at its end": Sample(
        MBR, inside(SECTORS * SECTOR - 8 * KIB, md(SECTORS * SECTOR - 8 * KIB)), "linux_raid_member"
    ),
    "LUKS": Sample(GPT, both(NO_EXT4, inside(0, luks())), "crypto_LUKS"),
    "swap": Sample(
        GPT, lambda device: run(["mkswap", f"{device.node}p1"], timeout_seconds=60), "swap"
    ),
    "bcache": Sample(GPT, both(NO_EXT4, inside(4 * KIB, bcache())), "bcache"),
    "LVM before ext4": Sample(GPT, inside(SECTOR, lvm()[SECTOR:]), "LVM2_member"),
}

BESIDE = {
    "LVM on the device": Sample(MBR, put(SECTOR, lvm()[SECTOR:]), "LVM2_member"),
    "bcache on the device": Sample(MBR, put(4 * KIB, bcache()), "bcache"),
    "md on the device": Sample(MBR, put(4 * KIB, md(4 * KIB)), "linux_raid_member"),
    "md at the end of the device": Sample(GPT, put(NEW_END, md(NEW_END)), "linux_raid_member"),
    "md where the GPT ended": Sample(
        GPT, put(OLD_END - 56 * KIB, md(OLD_END - 56 * KIB)), "linux_raid_member"
    ),
    "md where the device ended": Sample(MBR, put(OLD_END, md(OLD_END)), "data"),
    "ISO 9660": Sample(MBR, put(32 * KIB, iso9660()), "iso9660"),
    "Apple partition map": Sample(
        MBR, both(put(0, b"ER\2\0"), put(SECTOR, b"PM\0\0\0\0\0\1\0\0\0\1")), "mac"
    ),
    "FAT without partitions": Sample(MBR, put(0, fat()), "vfat"),
    "deleted partition": Sample(GPT, put(BEHIND * SECTOR + 4 * KIB, md(4 * KIB)), "linux_raid"),
    "data behind": Sample(MBR, put(BEHIND * SECTOR + 100 * KIB, b"x"), "data"),
}


SAMPLES = CONTENT | BESIDE


@pytest.fixture
def device(loop: Loop) -> LoopDevice:
    """A device that becomes larger."""
    return loop(SIZE_BYTES)


@pytest.mark.parametrize("sample", [*TABLES.values()], ids=[*TABLES])
def test_a_table_is_refused(device: LoopDevice, sample: Sample) -> None:
    """Whatever is wrong, nothing is written, and the operator is told what is and what to do."""
    partition(device, sample.table, mkfs="")
    device.resize(LARGER_BYTES)
    sample.spoil(device)
    refused(device, sample.word, sample.number)


@pytest.mark.parametrize("sample", [*SAMPLES.values()], ids=[*SAMPLES])
def test_other_content_is_refused(device: LoopDevice, sample: Sample) -> None:
    """So it is with a good table, if there is another signature or more than one."""
    partition(device, sample.table)
    device.resize(LARGER_BYTES)
    sample.spoil(device)
    refused(device, sample.word)


def refused(device: LoopDevice, word: str, number: int = 1) -> None:
    """Verify that it is, and that nothing is changed."""
    before, known = digest(device), of(device, number)
    with pytest.raises(Unfit) as caught:
        grow(known, tell=pytest.fail)
    assert word in caught.value.what
    assert (caught.value.cause, bool(caught.value.hint)) == (Cause.PARTITION, True)
    assert (digest(device), of(device, number)) == (before, known)


def test_zfs_beside_it(loop: Loop) -> None:
    """A vdev has 64 MiB at least; of an older one there may be only a label at the end."""
    device = loop(64 * KIB**2)
    partition(device, MBR)
    device.resize(72 * KIB**2)
    put(72 * KIB**2 - 512 * KIB + 128 * KIB, zfs())(device)
    refused(device, "zfs_member")


def test_a_read_only_device(device: LoopDevice) -> None:
    """It is not opened for writing."""
    partition(device, GPT)
    device.resize(LARGER_BYTES)
    with device_open(device) as fd:
        set_read_only(fd, on=True)
        try:
            refused(device, "read-only")
        finally:
            set_read_only(fd, on=False)


@pytest.mark.parametrize(
    ("where", "name"),
    [("{0}/holders", "dm-0"), ("{0}/{0}p1/holders", "md0"), ("{0}/slaves", "sda")],
)
def test_layers_on_it_and_below_it(
    device: LoopDevice, tmp_path: Path, where: str, name: str
) -> None:
    """Neither what LVM, md or dm-crypt use is extended, nor what they provide."""
    partition(device, GPT)
    device.resize(LARGER_BYTES)
    folder = Path("/sys/block", where.format(device.name))
    (tmp_path / name).touch()
    run(["mount", "--bind", str(tmp_path), str(folder)], timeout_seconds=60)
    try:
        refused(device, name)
    finally:
        run(["umount", str(folder)], timeout_seconds=60)


def test_sectors_of_another_size(device: LoopDevice) -> None:
    """All places in a table would be others; volumes of EBS have 512 bytes."""
    partition(device, GPT)
    device.resize(LARGER_BYTES)
    with device_open(device) as fd:
        fcntl.ioctl(fd, LOOP_SET_BLOCK_SIZE, 4096)
    refused(device, "4096")
