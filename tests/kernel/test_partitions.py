"""The last partition of a block device is extended under its filesystem."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice

from ebs_autoscale.checks import filesystem as filesystem_check
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.filesystems.one_device.filesystem import Clock, OneDeviceFilesystem
from ebs_autoscale.host import paths
from ebs_autoscale.host.command import run
from ebs_autoscale.host.partitions import grow, growing, partition_of, require_growable
from ebs_autoscale.host.partitions import table as partition_table
from tests.kernel.fixtures import Loop
from tests.partitions import (
    BIOS,
    EFI,
    GPT,
    LARGER_BYTES,
    MBR,
    MIB,
    SECTOR,
    SECTORS,
    SIZE_BYTES,
    START,
    change_table,
    damage,
    dump,
    held_tool,
    of,
    partition,
    read,
    tool_of,
)
from tests.signatures import digest, write
from tests.system.bench import until

pytestmark = pytest.mark.kernel

TABLES = pytest.mark.parametrize("table", [GPT, MBR], ids=["gpt", "mbr"])
GIB = 1024**3
TIB = 1024**4
# The last whole MiB is left for the backup of a GPT.
END_BYTES = LARGER_BYTES - MIB
GROWN_BYTES = END_BYTES - START * SECTOR
GROW = """
import sys
from ebs_autoscale.host.partitions import grow, partition_of
grow(partition_of(sys.argv[1]), tell=print)
"""
# It writes files without a pause, until there is space for each, and says what they are to have.
WRITER = """
import contextlib, hashlib, itertools, os, pathlib, sys
for number in itertools.count():
    content, path = os.urandom(1 << 18), pathlib.Path(sys.argv[1], str(number))
    while not path.exists() or path.stat().st_size < len(content):
        with contextlib.suppress(OSError):
            path.write_bytes(content)
    print(number, hashlib.sha256(content).hexdigest(), flush=True)
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for the tables of before."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(paths, "PARTITION_TABLES", folder)
    return folder


@pytest.fixture
def device(loop: Loop, request: pytest.FixtureRequest, kept: Path) -> Iterator[LoopDevice]:  # noqa: ARG001 -- not the host's
    """A device with the table of the test and a partition in use, that has become larger."""
    device = loop(SIZE_BYTES)
    partition(device, getattr(request, "param", GPT))
    # As a mount does, it keeps the kernel from making new partitions of all.
    with Path(f"{device.node}p1").open("rb"):
        device.resize(LARGER_BYTES)
        yield device


EACH_TABLE = pytest.mark.parametrize("device", [GPT, MBR], ids=["gpt", "mbr"], indirect=True)


def extend(device: LoopDevice) -> list[str]:
    """Extend its first partition; returns what is told."""
    told: list[str] = []
    grow(of(device), tell=told.append)
    return told


@EACH_TABLE
def test_nothing_else_changes(device: LoopDevice) -> None:
    """The partition has the space; every other partition, name, flag and byte is as before."""
    before, content = dump(device), read(device, 0, LARGER_BYTES)
    extend(device)

    assert of(device).size_bytes == GROWN_BYTES
    (first, *others), (was, *were) = dump(device).items(), before.items()
    assert first == (was[0], was[1].replace(f"size= {SECTORS}", f"size= {GROWN_BYTES // SECTOR}"))
    assert others == were
    after = read(device, 0, LARGER_BYTES)
    changed = {
        at
        for at in range(0, LARGER_BYTES, SECTOR)
        if content[at : at + SECTOR] != after[at : at + SECTOR]
    }
    assert changed <= {
        *range(0, 34 * SECTOR, SECTOR),
        *range(LARGER_BYTES - 33 * SECTOR, LARGER_BYTES, SECTOR),
    }
    assert run(["sfdisk", "--verify", device.node], timeout_seconds=60)


BOOT, ROOT = "BC13C2FF-59E6-4262-A352-B275FD6F7172", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
# Of images for EC2, made smaller; the number of the partition to grow.
LAYOUTS = {
    "Amazon Linux 2023": (
        1,
        f"""label: gpt
        first-lba: 34
        1: start=24576, size=8192, name=Linux
        127: start=22528, size=2048, type={BIOS}
        128: start=2048, size=20480, type={EFI}
        """,
    ),
    "Ubuntu 24.04": (
        1,
        f"""label: gpt
        first-lba: 34
        1: start=20480, size=8192
        14: start=2048, size=8192, type={BIOS}
        15: start=10240, size=4096, type={EFI}
        16: start=14336, size=6144, type={BOOT}
        """,
    ),
    "RHEL 9": (
        4,
        f"""label: gpt
        1: start=2048, size=2048, type={BIOS}
        2: start=4096, size=4096, type={EFI}
        3: start=8192, size=4096, type={BOOT}
        4: start=12288, size=8192, type={ROOT}
        """,
    ),
    "CentOS 7": (3, "label: dos\n1: start=2048, size=2048, bootable\n3: start=8192, size=8192\n"),
    "one partition": (1, f"label: gpt\n1: start=2048, size=8192, type={ROOT}\n"),
}


@pytest.mark.parametrize(("number", "table"), [*LAYOUTS.values()], ids=[*LAYOUTS])
def test_layouts(loop: Loop, kept: Path, number: int, table: str) -> None:
    """Whatever its number, the last one grows, and the others stay."""
    device = loop(18 * MIB)
    partition(device, table, number=number)
    device.resize(32 * MIB)
    with Path(f"{device.node}p{number}").open("rb"):
        before = dump(device)
        grow(of(device, number), tell=lambda _: None)
        after = dump(device)
    node = f"{device.node}p{number}"
    assert {each for each in before if before[each] != after[each]} == {node}
    assert of(device, number).start_bytes + of(device, number).size_bytes == 31 * MIB
    assert len(list(kept.iterdir())) == 1


@EACH_TABLE
def test_the_advice_about_a_type(device: LoopDevice) -> None:
    """Whoever follows it has a partition that grows."""
    change_table("type=swap", "--partno=1")(device)
    with pytest.raises(Unfit) as caught:
        extend(device)
    command = caught.value.hint.split("`")[1]
    run(command.split(), timeout_seconds=60)
    extend(device)
    assert of(device).size_bytes == GROWN_BYTES


OTHER_DISK = "01234567-89AB-CDEF-0123-456789ABCDEF"


@pytest.mark.parametrize(
    "extra", [f"--disk-id {{}} {OTHER_DISK}", "--part-label {} 14 other", "--delete {} 15"]
)
def test_sfdisk_does_something_else(
    device: LoopDevice, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    """Whatever else it changes is seen, and the operator told where the table of before is."""
    real = shutil.which("sfdisk")
    options = f"--no-reread --no-tell-kernel {extra.format(device.node)}"
    text = f'case "$*" in *--partno*) {real} "$@"; exec {real} {options};; esac; exec {real} "$@"'
    monkeypatch.setenv("PATH", str(tool_of(tmp_path, "sfdisk", text)), prepend=os.pathsep)
    with pytest.raises(Unfit) as caught:
        extend(device)
    (file,) = kept.iterdir()
    assert (caught.value.cause, str(file) in caught.value.hint) == (Cause.PARTITION, True)
    assert of(device).size_bytes == SECTORS * SECTOR


def test_sfdisk_reads_something_else(
    device: LoopDevice, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would not restore is no copy: nothing is changed."""
    real = shutil.which("sfdisk")
    text = f'case "$*" in *--dump*) {real} "$@" | grep -v 2014;; *) exec {real} "$@";; esac'
    monkeypatch.setenv("PATH", str(tool_of(tmp_path, "sfdisk", text)), prepend=os.pathsep)
    before = digest(device)
    with pytest.raises(Unfit) as caught:
        extend(device)
    assert caught.value.cause is Cause.PARTITION
    assert (digest(device), kept.exists()) == (before, False)


@EACH_TABLE
def test_it_is_done_once(device: LoopDevice, kept: Path) -> None:
    """What is done already is neither written nor kept again."""
    extend(device)
    before, files = digest(device), sorted(kept.iterdir())
    extend(device)
    assert (digest(device), sorted(kept.iterdir())) == (before, files)


@EACH_TABLE
def test_what_another_tool_did(device: LoopDevice, kept: Path) -> None:
    """A partition that is larger in the table is told to the kernel, and never made smaller."""
    end = LARGER_BYTES // SECTOR - 34
    change_table(f"{START}, {end - START}", "--partno=1")(device)
    extend(device)
    assert of(device).size_bytes == (end - START) * SECTOR
    assert not kept.exists()


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("tool", "held"), [("sfdisk", "--partno"), ("partx", "--update")])
def test_kill(device: LoopDevice, tmp_path: Path, tool: str, held: str, *, done: bool) -> None:
    """Wherever it is killed, the next run ends with the same, even beside the tool that is left."""
    reached, path = held_tool(tmp_path, tool, held=held, done=done)
    argv = [sys.executable, "-c", GROW, f"{device.name}p1"]
    with subprocess.Popen(argv, env={**os.environ, "PATH": path}) as process:
        until(reached.exists, f"{tool} {held}")
        process.kill()
    try:
        extend(device)
        assert of(device).size_bytes == GROWN_BYTES
        assert run(["sfdisk", "--verify", device.node], timeout_seconds=60)
    finally:
        os.kill(int(reached.read_text("ascii")), signal.SIGKILL)


@pytest.mark.parametrize("written", range(1, 5))
def test_an_interrupted_write(device: LoopDevice, written: int) -> None:
    """Between any two of sfdisk's writes it may be killed, as `strace` shows them."""
    before = read(device, 0, LARGER_BYTES)
    extend(device)
    after = read(device, 0, LARGER_BYTES)
    change_table(f"{START}, {SECTORS}", "--partno=1")(device)
    run(["partx", "--update", "--nr=1", device.node], timeout_seconds=60)

    end = LARGER_BYTES // SECTOR
    writes = [(end - 33, 32), (end - 1, 1), (2, 32), (1, 1), (0, 1)]
    for number, (at, count) in enumerate(writes):
        content = after if number < written else before
        place = slice(at * SECTOR, (at + count) * SECTOR)
        write(device, at * SECTOR, content[place])
    extend(device)
    assert of(device).size_bytes == GROWN_BYTES
    assert read(device, SECTOR, LARGER_BYTES - SECTOR) == after[SECTOR:]


@EACH_TABLE
def test_the_table_of_before(device: LoopDevice, kept: Path) -> None:
    """It is in a file for root only, whose path is told, and sfdisk restores it from that."""
    before = dump(device)
    told = extend(device)
    (file,) = kept.iterdir()
    assert str(file) in told[0]
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)
    write(device, 0, bytes(34 * SECTOR))
    argv = ["sfdisk", "--no-reread", "--no-tell-kernel", device.node]
    run(argv, stdin=file.read_text("utf-8"), timeout_seconds=60)
    assert dump(device) == before


def test_few_tables_are_kept(device: LoopDevice, kept: Path) -> None:
    """The oldest ones go."""
    kept.mkdir()
    for number in range(60):
        file = kept / f"loop0-{number}.sfdisk"
        file.touch()
        os.utime(file, (number, number))
    extend(device)
    assert len(list(kept.iterdir())) == 50
    assert not (kept / "loop0-10.sfdisk").exists()
    assert (kept / "loop0-11.sfdisk").exists()


def test_no_space_to_keep_it(
    device: LoopDevice, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a copy of the table nothing is changed, and no part of one is left."""
    kept.mkdir()
    monkeypatch.setattr(paths, "RUNTIME_DIRECTORY", kept.parent)
    run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(kept)], timeout_seconds=60)
    try:
        (kept / "full").write_bytes(bytes(4096))
        before = digest(device)
        with pytest.raises(Unfit) as caught:
            extend(device)
        assert caught.value.cause is Cause.FILE
        assert (digest(device), [path.name for path in kept.iterdir()]) == (before, ["full"])
    finally:
        run(["umount", str(kept)], timeout_seconds=60)


def test_another_tool_has_the_lock(device: LoopDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as growpart or udev has locked the device, it is left alone."""
    monkeypatch.setattr(growing, "_LOCK_TIMEOUT_SECONDS", 0.1)
    before = digest(device)
    with Path(device.node).open("rb") as node:
        fcntl.flock(node, fcntl.LOCK_EX)
        with pytest.raises(Transient) as caught:
            extend(device)
    assert (caught.value.cause, digest(device)) == (Cause.RESIZE, before)
    extend(device)


@pytest.mark.parametrize("device", [MBR], indirect=True)
def test_an_mbr_holds_two_tib(device: LoopDevice) -> None:
    """It is extended up to there, and says so before EC2 is asked for more."""
    assert require_growable(of(device)) == 2 * TIB
    device.resize(3 * TIB)
    for _ in range(2):
        extend(device)
        assert of(device).start_bytes + of(device).size_bytes == 2 * TIB - MIB


def test_a_gpt_holds_any_volume(device: LoopDevice) -> None:
    """There is no limit that matters."""
    assert require_growable(of(device)) is None


def test_what_is_no_partition(device: LoopDevice) -> None:
    """A whole device, or one that is gone, is none."""
    assert partition_of(device.name) is None
    assert partition_of("nvme99n1p1") is None


@pytest.fixture
def mounted(
    loop: Loop,
    tmp_path: Path,
    kept: Path,  # noqa: ARG001 -- not the host's
    request: pytest.FixtureRequest,
) -> Iterator[tuple[LoopDevice, Path]]:
    """An XFS on a partition, mounted."""
    device, folder = loop(320 * MIB), tmp_path / "mounted"
    partition(device, request.param.replace(f"size={SECTORS}", "size=638976"), mkfs="xfs")
    folder.mkdir()
    run(["mount", f"{device.node}p1", str(folder)], timeout_seconds=60)
    yield device, folder
    run(["umount", str(folder)], timeout_seconds=60)


@pytest.mark.parametrize("mounted", [GPT, MBR], ids=["gpt", "mbr"], indirect=True)
def test_beside_a_writer(mounted: tuple[LoopDevice, Path]) -> None:
    """Not a byte is lost while the table, the kernel and XFS get the new size."""
    device, folder = mounted
    run(["fallocate", "--length=170MiB", str(folder / "filler")], timeout_seconds=60)
    before = shutil.disk_usage(folder)
    lines: list[bytes] = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout
        lines += [writer.stdout.readline() for _ in range(100)]
        device.resize(600 * MIB)
        extend(device)
        run(["xfs_growfs", str(folder)], timeout_seconds=60)
        lines += [writer.stdout.readline() for _ in range(300)]
        writer.kill()
    assert shutil.disk_usage(folder).used > before.total
    run(["umount", str(folder)], timeout_seconds=60)
    run(["xfs_repair", "-n", f"{device.node}p1"], timeout_seconds=60)
    run(["mount", f"{device.node}p1", str(folder)], timeout_seconds=60)
    for number, expected in map(bytes.split, lines):
        with (folder / number.decode()).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == expected.decode()


@pytest.mark.parametrize("mounted", [MBR], indirect=True)
def test_the_most_that_a_filesystem_can_use(
    mounted: tuple[LoopDevice, Path], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told before EC2 is asked; once it has that much, it says that there is no more."""
    device, folder = mounted
    monkeypatch.setattr(partition_table, "_MBR_SECTORS_MAX", 480 * MIB // SECTOR)
    filesystem = OneDeviceFilesystem(str(folder), clock=clock)
    assert filesystem.require_growable() == 480 * MIB
    device.resize(600 * MIB)
    told = filesystem.resize_device(device.name, tell=lambda _: None)
    assert str(paths.PARTITION_TABLES) in str(told)
    assert filesystem.read().devices[0].size_bytes == 479 * MIB
    with pytest.raises(Unfit) as caught:
        filesystem.require_growable()
    assert (caught.value.cause, "480 MiB" in caught.value.what) == (Cause.NOT_GROWABLE, True)


@pytest.mark.parametrize("mounted", [GPT], indirect=True)
def test_the_table_is_kept_while_its_own_filesystem_is_full(
    mounted: tuple[LoopDevice, Path],
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on /: it is kept in memory then, since the growth is what ends that."""
    device, folder = mounted
    monkeypatch.setattr(paths, "PARTITION_TABLES", folder / "tables")
    monkeypatch.setattr(paths, "RUNTIME_DIRECTORY", tmp_path / "run")
    with (folder / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    filesystem = OneDeviceFilesystem(str(folder), clock=clock)
    told = filesystem.resize_device(device.name, tell=lambda _: None)
    (kept,) = (tmp_path / "run" / "tables").iterdir()
    assert str(kept) in str(told)
    assert (kept.stat().st_mode & 0o777, "label: gpt" in kept.read_text()) == (0o600, True)


@pytest.mark.parametrize("mounted", [GPT], indirect=True)
def test_check_tells_it(mounted: tuple[LoopDevice, Path]) -> None:
    """A table that cannot be changed is known before space is short."""
    device, folder = mounted
    expected = filesystem_check.expected(str(folder))

    def verdicts() -> dict[str, str]:
        seen = filesystem_check.look(expected, SystemClock())
        return {line.name: line.verdict for line in filesystem_check.lines(seen)}

    assert "growth" not in verdicts()
    damage(SECTOR + 40)(device)
    assert verdicts()["growth"] == "fail"
