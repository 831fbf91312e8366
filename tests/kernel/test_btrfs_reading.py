"""Readings are compared with what can really be written."""

import os
import timeit
from itertools import pairwise
from pathlib import Path

import pytest

from ebs_autoscale.btrfs import BtrfsFilesystem, Clock
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.policy import problems_of
from tests.kernel.fixtures import Btrfs, Loop

pytestmark = pytest.mark.kernel

MIB = 1024**2
GIB = 1024**3


def write_until_full(path: Path) -> int:
    """Write incompressible content until ENOSPC; returns the bytes written."""
    block, written = os.urandom(MIB), 0
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                written += file.write(block)
            except OSError:
                return written


def fill_metadata(folder: Path, most_bytes: int) -> bool:
    """Write extended attributes, which are metadata only; returns whether ENOSPC ended it."""
    value = os.urandom(12 * 1024)
    try:
        for number in range(most_bytes // len(value)):
            file = folder / f"m{number}"
            file.touch()
            os.setxattr(file, "user.fill", value)
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    ("sizes", "profile"),
    [((GIB // 2,), "dup"), ((GIB // 2,), "single"), ((GIB // 2, GIB // 2), "raid1")],
)
def test_available_is_what_can_be_written(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, sizes: tuple[int, ...], profile: str
) -> None:
    """What is available can be written, up to 16 MiB, whatever the profile of metadata."""
    path = btrfs_at(*map(loop, sizes), mkfs=("-d", "single", "-m", profile))
    if profile == "single":
        # mkfs begins with 8 MiB of it; see the next test for what that means.
        fill_metadata(path, 8 * MIB)
        run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    written = write_until_full(path / "content")
    after = filesystem.read()
    assert before.metadata_profile == profile
    assert before.available_bytes - written <= 16 * MIB
    assert written - before.available_bytes <= 64 * MIB
    assert after.available_bytes < 16 * MIB


def test_available_counts_the_metadata_that_content_needs(
    loop: Loop, btrfs_at: Btrfs, clock: Clock
) -> None:
    """Free data chunks are not available when metadata has no room to account for them."""
    path = btrfs_at(loop(GIB), mkfs=("-d", "single", "-m", "single"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    assert before.available_bytes < before.statvfs_available_bytes
    write_until_full(path / "content")
    assert filesystem.read().available_bytes < 16 * MIB


def test_buffered_writes_count_at_once(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Dirty pages are not available, long before df shows them."""
    path = btrfs_at(loop(2 * GIB))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    (path / "dirty").write_bytes(os.urandom(200 * MIB))
    after = filesystem.read()
    missed = before.available_bytes - after.available_bytes
    assert 199 * MIB <= missed <= 216 * MIB
    assert before.statvfs_available_bytes - after.statvfs_available_bytes < 100 * MIB
    assert before.dirty_bytes < after.dirty_bytes < min(201 * MIB, after.cache_bytes)
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    assert filesystem.read().dirty_bytes <= before.dirty_bytes


def test_metadata_headroom_ends_where_metadata_does(
    loop: Loop, btrfs_at: Btrfs, clock: Clock
) -> None:
    """When no file can be created any more, metadata headroom is about 4 MiB."""
    path = btrfs_at(loop(512 * MIB), mkfs=("-m", "dup"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    with (path / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, before.available_bytes * 3 // 4)
    assert fill_metadata(path, GIB)
    after = filesystem.read()
    assert before.metadata_room_bytes > 100 * MIB
    assert after.metadata_room_bytes < 8 * MIB
    assert after.available_bytes < 16 * MIB


def test_mixed_block_groups(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A small filesystem with mixed block groups can be read."""
    path = btrfs_at(loop(256 * MIB), mkfs=("--mixed",))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    written = write_until_full(path / "content")
    assert -16 * MIB <= before.available_bytes - written <= 16 * MIB
    assert filesystem.read().metadata_room_bytes < 32 * MIB


@pytest.mark.parametrize(("profile", "copies"), [("dup", 2), ("raid1", 2), ("raid0", 1)])
def test_data_profiles_have_their_factor(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, profile: str, copies: int
) -> None:
    """Content that is stored twice needs twice the space."""
    path = btrfs_at(loop(GIB), loop(GIB), mkfs=("-d", profile, "-m", "raid1"))
    available_bytes = BtrfsFilesystem(str(path), clock=clock).read().available_bytes
    assert 0.8 * 2 * GIB / copies < available_bytes < 2 * GIB / copies
    with (path / "content").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, available_bytes - 16 * MIB)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_seed_device_has_no_room(loop: Loop, btrfs_at: Btrfs, clock: Clock, seeds: int) -> None:
    """A seed, and the seed of a seed, is a device of the filesystem, and nothing is written to it.

    What is available can be written, up to 16 MiB.
    """
    devices = [loop(512 * MIB) for _ in range(seeds + 1)]
    path = btrfs_at(devices[0])
    (path / "content").write_bytes(os.urandom(100 * MIB))
    run(["umount", str(path)], timeout_seconds=60)
    for seed, sprout in pairwise(devices):
        run(["btrfstune", "-S", "1", seed.node], timeout_seconds=60)
        run(["mount", seed.node, str(path)], timeout_seconds=60)
        run(["btrfs", "device", "add", sprout.node, str(path)], timeout_seconds=60)
        run(["umount", str(path)], timeout_seconds=60)
    run(["mount", devices[-1].node, str(path)], timeout_seconds=60)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    expected = [(device.name, device is devices[-1]) for device in devices]
    assert [(device.name, device.writable) for device in before.devices] == expected
    assert all(before.has_device(device.name) for device in devices)
    written = write_until_full(path / "more")
    assert abs(before.available_bytes - written) <= 16 * MIB
    assert filesystem.read().available_bytes < 16 * MIB


def test_devids_may_have_gaps(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Devices are found whatever their devids, and while one takes the place of another."""
    devices = [loop(512 * MIB) for _ in range(3)]
    path = btrfs_at(*devices, mkfs=("-m", "single"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    for devid in ("1", "2"):
        run(["btrfs", "device", "remove", devid, str(path)], timeout_seconds=60)
    assert [(d.devid, d.name) for d in filesystem.read().devices] == [(3, devices[2].name)]
    node = devices[0].node
    run(["btrfs", "replace", "start", "-f", "-B", "3", node, str(path)], timeout_seconds=60)
    assert [(d.devid, d.name) for d in filesystem.read().devices] == [(3, devices[0].name)]


def test_devices_have_their_kernel_names(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Devices have kernel names, sizes and unallocated bytes, and the UUID is blkid's."""
    devices = [loop(GIB), loop(2 * GIB)]
    path = btrfs_at(*devices, mkfs=("-m", "raid1"))
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    reading = filesystem.read()
    uuid = run(["blkid", "-p", "-s", "UUID", "-o", "value", devices[0].node], timeout_seconds=60)
    assert filesystem.uuid == reading.filesystem == uuid.strip()
    assert [(m.devid, m.name, m.size_bytes) for m in reading.devices] == [
        (1, devices[0].name, GIB),
        (2, devices[1].name, 2 * GIB),
    ]
    assert all(0 < m.unallocated_bytes < m.size_bytes for m in reading.devices)
    assert reading.has_device(devices[1].name)
    assert filesystem.exclusive_operation() == "none"
    assert reading.size_bytes == 3 * GIB


def test_a_device_registered_by_a_link_has_its_kernel_name(
    loop: Loop, tmp_path: Path, clock: Clock
) -> None:
    """Whatever path a device was mounted by, it has its kernel name."""
    device = loop(GIB)
    link = tmp_path / "by-another-name"
    status = Path(device.node).stat()
    os.mknod(link, status.st_mode, status.st_rdev)
    run(["mkfs.btrfs", "--quiet", device.node], timeout_seconds=60)
    point = tmp_path / "scratch"
    point.mkdir()
    run(["mount", str(link), str(point)], timeout_seconds=60)
    try:
        reading = BtrfsFilesystem(str(point), clock=clock).read()
        assert [device.name for device in reading.devices] == [device.name]
    finally:
        run(["umount", str(point)], timeout_seconds=60)


def test_a_missing_device_has_no_name_and_no_room(
    loop: Loop, btrfs_at: Btrfs, tmp_path: Path, clock: Clock
) -> None:
    """A device that is not there counts for nothing."""
    present, lost = loop(GIB), loop(GIB)
    path = btrfs_at(present, lost, mkfs=("-m", "raid1"))
    run(["umount", str(path)], timeout_seconds=60)
    run(["btrfs", "device", "scan", "--forget", lost.node], timeout_seconds=60)
    point = tmp_path / "degraded"
    point.mkdir()
    run(["mount", "-o", "degraded", present.node, str(point)], timeout_seconds=60)
    try:
        reading = BtrfsFilesystem(str(point), clock=clock).read()
        assert [(device.name, device.missing) for device in reading.devices] == [
            (present.name, False),
            ("", True),
        ]
        assert reading.available_bytes < GIB
    finally:
        run(["umount", str(point)], timeout_seconds=60)


def test_reading_does_not_prevent_an_unmount(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """Between readings the filesystem can be unmounted, and it is read again after a mount."""
    device = loop(GIB)
    path = btrfs_at(device)
    filesystem = BtrfsFilesystem(str(path), clock=clock)
    before = filesystem.read()
    run(["umount", str(path)], timeout_seconds=60)
    run(["mount", device.node, str(path)], timeout_seconds=60)
    assert filesystem.read().devices == before.devices


def test_a_reading_takes_microseconds(loop: Loop, btrfs_at: Btrfs, clock: Clock) -> None:
    """A reading takes about 0.2 ms, on slow hosts less than 1 ms."""
    filesystem = BtrfsFilesystem(str(btrfs_at(loop(GIB))), clock=clock)
    assert min(timeit.repeat(filesystem.read, number=20, repeat=10)) / 20 < 0.001


@pytest.mark.parametrize(
    ("option", "qgroup"), [((), "0/5"), (("-e",), "0/5"), ((), "1/100"), (("-e",), "2/7")]
)
def test_a_quota_is_a_limit(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, option: tuple[str, ...], qgroup: str
) -> None:
    """What a quota group leaves is told, also while it is not committed, until EDQUOT."""
    path = btrfs_at(loop(512 * MIB))

    def quota(*words: str) -> None:
        run(["btrfs", *words, str(path)], timeout_seconds=60)

    filesystem = BtrfsFilesystem(str(path), clock=clock)
    assert filesystem.read().quota is None
    quota("quota", "enable")
    for child, parent in (("0/5", "1/100"), ("1/100", "2/7")):
        quota("qgroup", "create", parent)
        quota("qgroup", "assign", "--no-rescan", child, parent)
    run(["btrfs", "quota", "rescan", "-w", str(path)], timeout_seconds=60)
    assert filesystem.read().quota is None
    quota("qgroup", "limit", *option, "100M", qgroup)
    before = filesystem.read()
    assert before.quota
    assert (before.quota.qgroup, before.quota.limit_bytes) == (qgroup, 100 * MIB)
    assert [problem.cause for problem in problems_of(before)] == [Cause.QGROUP_LIMIT]
    assert before.available_bytes > 200 * MIB
    written = write_until_full(path / "content")
    assert abs(before.quota.left_bytes - written) <= 8 * MIB
    after = filesystem.read()
    assert after.quota
    assert after.quota.left_bytes <= 8 * MIB


@pytest.mark.parametrize("folder", ["", "folder"])
def test_a_read_only_subvolume_is_read_only(
    loop: Loop, btrfs_at: Btrfs, clock: Clock, tmp_path: Path, folder: str
) -> None:
    """Nobody can write where a read-only subvolume, or a folder of one, is mounted."""
    path = btrfs_at(loop(256 * MIB))
    run(["btrfs", "subvolume", "create", str(path / "sub")], timeout_seconds=60)
    (path / "sub/folder").mkdir()
    point = tmp_path / "point"
    point.mkdir()
    run(["mount", "--bind", str(path / "sub" / folder), str(point)], timeout_seconds=60)
    try:
        filesystem = BtrfsFilesystem(str(point), clock=clock)
        for value in ("true", "false"):
            argv = ["btrfs", "property", "set", "-t", "subvol", str(path / "sub"), "ro", value]
            run(argv, timeout_seconds=60)
            if value == "true":
                with pytest.raises(Unfit) as caught:
                    filesystem.read()
                assert caught.value.cause is Cause.READ_ONLY
        filesystem.read()
    finally:
        run(["umount", str(point)], timeout_seconds=60)
