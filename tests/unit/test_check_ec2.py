"""What `check` says of this host's clock and of the volumes that EC2 shows."""

from collections.abc import Sequence
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from ebs_autoscale.checks.ec2 import clock_lines, orphan_lines, quota_line
from ebs_autoscale.checks.filesystem import FilesystemSeen
from ebs_autoscale.checks.line import Line
from ebs_autoscale.checks.permissions import ENLARGE, OPTIONAL, actions_on_volumes
from ebs_autoscale.model import GIB, FilesystemKind, GrowthId, Reading, Volume, VolumeSpec
from ebs_autoscale.policy import GrowthPolicy
from tests.unit.samples import FILESYSTEM, INSTANCE, reading_of, volume_of

NOW = 1_764_000_000.0
LOST = "11111111-2222-4333-8444-555555555555"
MOUNTED = "99999999-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("skew", "verdict", "seconds"),
    [
        (0, "ok", "60 s"),
        (-60, "ok", "60 s"),
        (61, "warn", "61 s ahead"),
        (-300, "warn", "300 s behind"),
        (301, "fail", "301 s ahead"),
        (-86400, "fail", "86400 s behind"),
    ],
)
def test_clocks(skew: float, verdict: str, seconds: str) -> None:
    """A clock that is a minute off is a warning; at five minutes EC2 refuses every call."""
    [line] = clock_lines(formatdate(NOW, usegmt=True), NOW + skew)
    assert line.verdict == verdict
    assert seconds in line.sentence
    assert bool(line.hint) == (verdict != "ok")


@pytest.mark.parametrize(
    "date", ["", "now", "Wed, 99 Foo 2026", "Sat, 28 Nov 99999999999 03:38:08 GMT"]
)
def test_no_date(date: str) -> None:
    """Without a date there is no line."""
    assert list(clock_lines(date, NOW)) == []


def detached(ordinal: int, **changes: Any) -> Volume:
    """A managed volume that is attached to no instance."""
    nowhere = {"attached_to": "", "device_name": "", "attachment_state": ""}
    return volume_of(ordinal, **{"state": "available", **nowhere, **changes})


def lines_of(owned: Sequence[Volume], reading: Reading | None, *, shown: bool = True) -> list[Line]:
    """The lines about these volumes; `shown` is whether attached ones have their block device."""
    seen = FilesystemSeen(mountpoint="/scratch", uuid=FILESYSTEM, reading=reading)
    here = [volume for volume in owned if volume.attached_to == INSTANCE]
    nodes = {volume.id: f"nvme{volume.growth.ordinal}n1" if shown else "" for volume in here}
    mounted, policy = {FILESYSTEM, MOUNTED}, GrowthPolicy()
    return list(orphan_lines(owned, nodes, seen, INSTANCE, mounted=mounted, policy=policy))


@pytest.mark.parametrize(
    "volume", [volume_of(1), volume_of(3, growth=GrowthId(MOUNTED, 1))], ids=["device", "other"]
)
def test_a_device_is_no_orphan(volume: Volume) -> None:
    """A device of this or of another mounted filesystem has no line."""
    assert lines_of([volume], reading_of(100, 50, devices=2)) == []


@pytest.mark.parametrize(
    ("volume", "named"),
    [
        (detached(1), ["vol-0001"]),
        (detached(1, state="error"), ["vol-0001"]),
        (volume_of(1, attached_to="i-1"), ["vol-0001", "i-1"]),
        (volume_of(2), ["vol-0002", "/dev/xvdbc"]),
        (detached(1, growth=GrowthId(LOST, 1)), ["vol-0001", LOST]),
    ],
)
def test_orphaned_volumes(volume: Volume, named: list[str]) -> None:
    """A volume that is in no mounted filesystem is a warning with what to do."""
    [line] = lines_of([volume], reading_of(100, 50, devices=2))
    assert (line.name, line.verdict) == ("leftovers", "warn")
    assert all(each in line.sentence for each in named)
    assert line.hint


def test_an_attached_volume_without_a_block_device() -> None:
    """It is reported like one that is not in the filesystem."""
    [line] = lines_of([volume_of(1)], reading_of(100, 50, devices=2), shown=False)
    assert "vol-0001" in line.sentence


@pytest.mark.parametrize("reading", [None, reading_of(100, 50)])
def test_a_detached_volume_may_be_the_missing_device(reading: Reading | None) -> None:
    """While a device is missing, or that is not known, no detached volume is called unused."""
    if reading is not None:
        [device] = reading.devices
        reading = replace(reading, devices=(replace(device, missing=True),))
    [line] = lines_of([detached(1)], reading)
    [unused] = lines_of([detached(1)], reading_of(100, 50))
    assert line.hint != unused.hint
    assert "vol-0001" in line.sentence


def test_what_counts_against_the_quota() -> None:
    """The line has the total of all volumes of this instance."""
    line = quota_line([volume_of(1), detached(2)], "gp3")
    assert line.verdict == "ok"
    assert all(each in line.sentence for each in ("40 GiB", "2 volumes", "gp3"))


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.EXT4])
def test_the_only_volume_must_be_ours(kind: FilesystemKind) -> None:
    """Without our tags it cannot be enlarged, and `init` sets them; a loose one is reported."""
    reading = reading_of(100, 50, kind=kind)
    [line] = lines_of([], reading)
    assert (line.name, line.verdict) == ("volume", "fail")
    assert "nvme0n1" in line.sentence
    assert "`ebs-autoscale init /scratch`" in line.hint
    largest = {"largest_bytes": 16384 * GIB}
    restored = volume_of(0, foreign="restored from snap-1", **largest)
    assert lines_of([restored], reading) == []
    [loose] = lines_of([restored, detached(1)], reading)
    assert (loose.name, "vol-0001" in loose.sentence) == ("leftovers", True)
    assert "the next growth adds it" not in loose.hint
    [full] = lines_of([volume_of(0, size_bytes=1024 * GIB, **largest)], reading)
    assert (full.name, full.verdict, full.hint) == ("volume", "warn", "raise growth.max")
    [old] = lines_of([volume_of(0)], reading)
    assert (old.name, old.verdict) == ("volume", "fail")


def test_calls_of_a_filesystem_that_is_only_enlarged() -> None:
    """Nothing is created, attached, protected or deleted: nothing is said of these permissions."""
    spec = VolumeSpec()
    assert actions_on_volumes(spec, enlarges=True, adds=False) == [ENLARGE]
    assert set(actions_on_volumes(spec, enlarges=True)) > {OPTIONAL, ENLARGE}
