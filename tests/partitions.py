"""Block devices with partitions, as images have them, and what is wrong with others."""

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.host.command import run
from ebs_autoscale.host.partitions import Partition, partition_of
from tests.signatures import uncached, write

MIB = 1024**2
SECTOR = 512
SIZE_BYTES, LARGER_BYTES = 8 * MIB, 12 * MIB
# The partition that is to grow; there is space behind it.
START, SECTORS = 4096, 8192
BEHIND = START + SECTORS

BIOS, EFI = "21686148-6449-6E6F-744E-656564454649", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
# As in images of Amazon Linux and Ubuntu, where the first one is behind all others.
GPT = f"""label: gpt
first-lba: 34
1: start={START}, size={SECTORS}, name="Linux", attrs="LegacyBIOSBootable"
14: start=34, size=2014, type={BIOS}
15: start=2048, size=2048, type={EFI}
"""
MBR = f"""label: dos
1: start={START}, size={SECTORS}, bootable
2: start=2048, size=2048, type=c
"""

Spoil = Callable[[LoopDevice], object]


def partition(device: LoopDevice, table: str, *, mkfs: str = "ext4", number: int = 1) -> None:
    """Give the device this table, with a filesystem, if any, in this partition."""
    run(["sfdisk", "--quiet", "--no-tell-kernel", device.node], stdin=table, timeout_seconds=60)
    device.show_partitions()
    if mkfs:
        run([f"mkfs.{mkfs}", "-q", f"{device.node}p{number}"], timeout_seconds=60)


def of(device: LoopDevice, number: int = 1) -> Partition:
    """This partition of the device, as the kernel has it now."""
    found = partition_of(f"{device.name}p{number}")
    assert found
    return found


def dump(device: LoopDevice) -> dict[str, str]:
    """What sfdisk says of each partition, by its node."""
    text = run(["sfdisk", "--dump", device.node], timeout_seconds=60)
    lines = (line.split(" : ", 1) for line in text.splitlines() if " : " in line)
    return {node: " ".join(fields.split()) for node, fields in lines}


def change_table(line: str, *options: str) -> Spoil:
    """Have sfdisk change the table, and the kernel not know."""
    argv = ["sfdisk", "--quiet", "--force", "--no-reread", "--no-tell-kernel", *options]

    def change(device: LoopDevice) -> None:
        run([*argv, device.node], stdin=line, timeout_seconds=60)

    return change


def put(offset: int, content: bytes) -> Spoil:
    """Write this there."""
    return lambda device: write(device, offset, content)


def inside(offset: int, content: bytes) -> Spoil:
    """Write this into the first partition, whose cache is not that of the whole device."""

    def put_there(device: LoopDevice) -> None:
        with Path(f"{device.node}p1").open("r+b", buffering=0) as node:
            os.pwrite(node.fileno(), content, offset)

    return put_there


def damage(offset: int) -> Spoil:
    """Flip a bit there."""

    def flip(device: LoopDevice) -> None:
        (byte,) = read(device, offset, 1)
        write(device, offset, bytes([byte ^ 1]))

    return flip


# Offsets in a header of a GPT (UEFI specification, table 20).
FIRST_AT, LAST_AT, DISK_AT, ENTRIES_AT = 40, 48, 56, 72


def header(sector: int, offset: int, value: int | bytes) -> Spoil:
    """Change this field of a header of the GPT, which is valid afterwards."""

    def change(device: LoopDevice) -> None:
        packed = bytearray(read(device, sector * SECTOR, 92))
        content = value if isinstance(value, bytes) else struct.pack("<Q", value)
        packed[offset : offset + len(content)] = content
        packed[16:20] = bytes(4)
        packed[16:20] = struct.pack("<I", zlib.crc32(packed))
        write(device, sector * SECTOR, bytes(packed))

    return change


def mbr_entry(number: int, kind: int, start: int, sectors: int) -> Spoil:
    """Set an entry of the MBR."""
    packed = struct.pack("<B3sB3sII", 0, b"\0\2\0", kind, b"\xff" * 3, start, sectors)
    return put(446 + 16 * (number - 1), packed)


def read(device: LoopDevice, offset: int, length: int) -> bytes:
    """What is there."""
    with uncached(device) as node:
        return os.pread(node.fileno(), length, offset)


def bcache() -> bytes:
    """The superblock of a backing device (linux, drivers/md/bcache/bcache_ondisk.h)."""
    magic = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")
    return struct.pack("<8xQQ16s16s", 8, 1, magic, b"0123456789abcdef").ljust(4096, b"\0")


def iso9660() -> bytes:
    """The first two volume descriptors (ECMA-119, 8.4)."""
    return (b"\1CD001\1\0" + b"TEST".ljust(72)).ljust(2048, b"\0") + b"\xffCD001\1".ljust(
        2048, b"\0"
    )


def fat() -> bytes:
    """The boot sector of a FAT12, up to its code (Microsoft, FAT specification)."""
    fields = struct.pack("<HBHBHHBHHHII", 512, 1, 1, 2, 224, 2880, 0xF0, 9, 18, 2, 0, 0)
    return (
        b"\xeb\x3c\x90mkfs.fat"
        + fields
        + struct.pack("<BBBI11s8s", 0, 0, 0x29, 7, b"X", b"FAT12   ")
    )


HELD_TOOL = """
case "$*" in
*{held}*)
    {before}
    echo $$ > "{reached}.part" && mv "{reached}.part" "{reached}"
    exec sleep 60 ;;
esac
exec {real} "$@"
"""


def held_tool(folder: Path, tool: str, *, held: str, done: bool) -> tuple[Path, str]:
    """A tool that stops when it has this argument, before or after it has done its work.

    Returns the file that then has its pid, and a PATH with it.
    """
    reached = folder / "reached"
    real = shutil.which(tool) or tool
    before = f'{real} "$@" || exit' if done else ":"
    text = HELD_TOOL.format(held=held, before=before, reached=reached, real=real)
    return reached, f"{tool_of(folder, tool, text)}:{os.environ['PATH']}"


def tool_of(folder: Path, tool: str, text: str) -> Path:
    """A folder for PATH with this shell script in the place of the tool."""
    script = folder / "tools" / tool
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n{text}")
    script.chmod(0o755)
    return script.parent


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def do(device: LoopDevice) -> None:
        for each in spoils:
            each(device)

    return do
