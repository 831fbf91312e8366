"""What `check` says of a filesystem and of its line in fstab."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale.checks import filesystem
from ebs_autoscale.checks.filesystem import (
    FilesystemSeen,
    expected,
    fstab_lines,
    lines,
    policy_lines,
)
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.filesystems.btrfs.scan import PresentDevices
from ebs_autoscale.host.fstab import line_for, parse
from ebs_autoscale.model import FilesystemKind, Inodes, Reading
from ebs_autoscale.policy import GrowthMethod, GrowthPolicy, Sizing, problems_of
from tests.unit.samples import FILESYSTEM, reading_of

OTHER = "11111111-2222-4333-8444-555555555555"
GOOD = line_for(FILESYSTEM, "/scratch")


def seen_of(reading: Reading, operation: str = "none") -> FilesystemSeen:
    """A mounted filesystem with a good line in fstab."""
    return FilesystemSeen(
        mountpoint="/scratch",
        uuid=reading.filesystem,
        reading=reading,
        operation=operation,
        fstab=parse(GOOD),
    )


@pytest.mark.parametrize(
    ("operation", "verdict"), [("balance paused", "warn"), ("device replace", "ok")]
)
def test_a_mounted_filesystem(operation: str, verdict: str) -> None:
    """A healthy one is ok in each line; a paused balance is a warning with how to resume it."""
    healthy = list(lines(seen_of(reading_of(100, 50))))
    assert [line.name for line in healthy] == ["mount", "members", "fstab"]
    assert {line.verdict for line in healthy} == {"ok"}
    found = lines(seen_of(reading_of(100, 50), operation))
    [line] = [line for line in found if line.name == "operation"]
    assert line.verdict == verdict
    assert ("btrfs balance resume /scratch" in line.hint) == (verdict == "warn")


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"missing": True}, "members", "fail"),
        ({"errors": (1, 0, 0, 2, 0)}, "errors", "warn"),
    ],
)
def test_a_problem_with_a_device(changes: dict[str, Any], name: str, verdict: str) -> None:
    """A problem is reported in the words of the daemon and `status`."""
    reading = reading_of(100, 50, devices=2)
    first, second = reading.devices
    reading = replace(reading, devices=(first, replace(second, **changes)))
    found = [line for line in lines(seen_of(reading)) if line.verdict != "ok"]
    assert [(line.name, line.verdict) for line in found] == [(name, verdict)]
    [problem] = problems_of(reading)
    assert (found[0].sentence, found[0].hint) == (problem.sentence, problem.hint)


def test_a_full_filesystem() -> None:
    """Running out of space is a warning: the daemon can still work."""
    found = [line for line in lines(seen_of(reading_of(100, 0))) if line.verdict != "ok"]
    assert [(line.name, line.verdict) for line in found] == [("space", "warn")]
    assert found[0].hint


@pytest.mark.parametrize(
    ("present", "verdict"), [(PresentDevices(2, (1, 2)), "ok"), (PresentDevices(2, (1,)), "fail")]
)
def test_an_unmounted_filesystem(present: PresentDevices, verdict: str) -> None:
    """It fails, and says whether all of its devices are present."""
    error = Unfit("/scratch is not mounted", hint="mount it", cause=Cause.NOT_MOUNTED)
    seen = FilesystemSeen(
        mountpoint="/scratch", uuid=FILESYSTEM, error=error, present=present, fstab=parse(GOOD)
    )
    mount, members, fstab = lines(seen)
    assert (mount.name, mount.verdict) == ("mount", "fail")
    # While a device is missing, to mount it is no advice.
    assert (mount.hint == "mount it") == (verdict == "ok")
    assert ("attach" in mount.hint and "attach" in members.hint) == (verdict == "fail")
    assert (members.name, members.verdict) == ("members", verdict)
    assert FILESYSTEM in members.sentence
    assert fstab.verdict == "ok"


@pytest.mark.parametrize(
    ("table", "verdict", "named"),
    [
        (GOOD, "ok", f"UUID={FILESYSTEM}"),
        (f"/dev/disk/by-uuid/{FILESYSTEM} /scratch btrfs noauto 0 0", "ok", "by-uuid"),
        ("LABEL=scratch /scratch auto nofail 0 0", "ok", "LABEL=scratch"),
        ("", "warn", "/scratch"),
        (f"{GOOD}\n{GOOD}", "warn", "2 lines"),
        ("/dev/nvme1n1 /scratch btrfs nofail 0 0", "warn", "/dev/nvme1n1"),
        (f"UUID={FILESYSTEM} /scratch btrfs defaults 0 0", "warn", "nofail"),
        (f"UUID={FILESYSTEM} /scratch btrfs nofail,degraded 0 0", "warn", "degraded"),
        (f"UUID={FILESYSTEM} /scratch btrfs nofail,device=/dev/nvme2n1 0 0", "warn", "device="),
        (f"UUID={OTHER} /scratch btrfs nofail 0 0", "fail", OTHER),
        (f"UUID={FILESYSTEM} /scratch xfs nofail 0 0", "fail", "xfs"),
    ],
)
def test_lines_of_fstab(table: str, verdict: str, named: str) -> None:
    """A line that does not work at boot is reported with the one that does."""
    [line] = fstab_lines(parse(table), "/scratch", mounted=FILESYSTEM, has_mount_unit=False)
    assert (line.name, line.verdict) == ("fstab", verdict)
    assert named in line.sentence
    assert (GOOD in line.hint) == (verdict != "ok")


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.EXT4])
def test_one_device(kind: FilesystemKind) -> None:
    """Its line in fstab has its kind; that growth.method: add cannot grow it is told before."""
    reading = reading_of(
        100,
        50,
        kind=kind,
        metadata_headroom_bytes=None,
        metadata_profile="",
        inodes=Inodes(total=100, available=30) if kind is FilesystemKind.EXT4 else None,
    )
    good = line_for(FILESYSTEM, "/scratch", kind=kind)
    seen = replace(seen_of(reading), kind=kind, fstab=parse(good))
    found = list(lines(seen))
    assert [(line.name, line.verdict) for line in found] == [
        ("mount", "ok"),
        ("members", "ok"),
        ("fstab", "ok"),
    ]
    assert found[0].sentence.startswith(f"{kind} {FILESYSTEM}")
    assert ("30 of 100 inodes" in found[0].sentence) == (kind is FilesystemKind.EXT4)
    [wrong] = [line for line in lines(replace(seen, fstab=parse(GOOD))) if line.verdict == "fail"]
    assert good in wrong.hint
    for method, count in ((GrowthMethod.AUTO, 0), (GrowthMethod.ADD, 1)):
        policy = GrowthPolicy(sizing=Sizing(method=method))
        settings = Settings(mountpoint="/scratch", policy=policy)
        failed = list(policy_lines(seen, settings))
        assert [(line.name, line.verdict) for line in failed] == [("method", "fail")] * count
        assert all("growth.method to auto" in line.hint for line in failed)


def test_the_root_filesystem_needs_no_nofail() -> None:
    """The boot cannot go on without it."""
    root = parse(f"UUID={FILESYSTEM} / xfs defaults 0 0")
    [line] = fstab_lines(
        root, "/", mounted=FILESYSTEM, has_mount_unit=False, kind=FilesystemKind.XFS
    )
    assert line.verdict == "ok"


def test_the_root_filesystem_needs_no_line() -> None:
    """`init` adds none for it, so check must not advise to run that."""
    [line] = fstab_lines((), "/", mounted="", has_mount_unit=False, kind=FilesystemKind.XFS)
    assert line.verdict == "ok"


def test_the_kind_before_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fstab says it, else it is to be BTRFS."""
    monkeypatch.setattr(filesystem, "FSTAB", tmp_path / "fstab")
    (tmp_path / "fstab").write_text(line_for(FILESYSTEM, "/nonexistent", kind="xfs"), "utf-8")
    assert expected("/nonexistent").kind is FilesystemKind.XFS
    assert expected("/elsewhere").kind is FilesystemKind.BTRFS


def test_everything_wrong_with_a_line() -> None:
    """Each fault of one line is reported."""
    table = parse("/dev/sdf /scratch ext4")
    found = fstab_lines(table, "/scratch", mounted=FILESYSTEM, has_mount_unit=False)
    assert [line.verdict for line in found] == ["fail", "warn", "warn"]


def test_a_mount_unit_needs_no_line() -> None:
    """Where a unit of systemd mounts it, fstab needs no line."""
    [line] = fstab_lines((), "/scratch", mounted=FILESYSTEM, has_mount_unit=True)
    assert line.verdict == "ok"


def test_not_mounted() -> None:
    """Without a mount to compare with, no UUID is called wrong."""
    [line] = fstab_lines(parse(GOOD), "/scratch", mounted="", has_mount_unit=False)
    assert line.verdict == "ok"


def test_a_mountpoint_whose_unit_no_file_can_have() -> None:
    """Its name may have more bytes than that of a file; then there is no mount unit."""
    assert not expected(f"/{'x' * 250}/y").has_mount_unit
