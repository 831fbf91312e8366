"""What `check` makes of EC2's date and of the volumes that EC2 shows."""

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from ebs_autoscale.checks.ec2 import clock_lines, leftover_lines, quota_line
from ebs_autoscale.checks.filesystem import Seen
from ebs_autoscale.model import GrowthId, Reading, Volume
from tests.unit.samples import FILESYSTEM, INSTANCE, reading_of, volume_of

NOW = 1_764_000_000.0
LOST = "11111111-2222-4333-8444-555555555555"
MOUNTED = "99999999-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("skew", "verdict", "words"),
    [
        (0, "ok", "within 60 s"),
        (-60, "ok", "within 60 s"),
        (61, "warn", "61 s ahead of EC2"),
        (-300, "warn", "300 s behind EC2"),
        (301, "fail", "301 s ahead of EC2, which refuses"),
        (-86400, "fail", "86400 s behind EC2, which refuses"),
    ],
)
def test_clocks(skew: float, verdict: str, words: str) -> None:
    """A clock that is a minute off is strange, one that is five minutes off is refused by EC2."""
    [line] = clock_lines(formatdate(NOW, usegmt=True), NOW + skew)
    assert line.verdict == verdict
    assert words in line.sentence
    assert bool(line.hint) == (verdict != "ok")


@pytest.mark.parametrize("date", ["", "now", "Wed, 99 Foo 2026"])
def test_no_date(date: str) -> None:
    """Without a date there is nothing to tell."""
    assert list(clock_lines(date, NOW)) == []


def loose(ordinal: int, **changes: Any) -> Volume:
    """A volume of ours that nobody has."""
    nowhere = {"attached_to": "", "device_name": "", "attachment_state": "", "node": ""}
    return volume_of(ordinal, **{"state": "available", **nowhere, **changes})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (volume_of(1), []),
        (loose(1), ["in no filesystem: vol-0001"]),
        (loose(1, state="error"), ["in no filesystem: vol-0001"]),
        (volume_of(1, attached_to="i-1"), ["attached elsewhere: vol-0001 (i-1)"]),
        (volume_of(2), ["attached, but no device: vol-0002 (/dev/xvdbc)"]),
        (volume_of(1, node=""), ["attached, but no device: vol-0001 (/dev/xvdbb)"]),
        (
            loose(1, growth=GrowthId(LOST, 1)),
            [f"of filesystem {LOST}, which is not mounted here: vol-0001"],
        ),
        (volume_of(3, growth=GrowthId(MOUNTED, 1)), []),
    ],
)
def test_leftovers(found: Volume, words: list[str]) -> None:
    """A volume that serves no filesystem is told with what to do; one of another mount is not."""
    reading = reading_of(100, 50, devices=2)
    seen = Seen(mountpoint="/scratch", filesystem=FILESYSTEM, reading=reading)
    lines = list(leftover_lines([found], seen, INSTANCE, mounted={FILESYSTEM, MOUNTED}))
    assert [line.sentence for line in lines] == words
    assert all(line.verdict == "warn" and line.hint for line in lines)


@pytest.mark.parametrize("reading", [None, reading_of(100, 50, devices=1)])
def test_a_loose_volume_may_be_the_missing_member(reading: Reading | None) -> None:
    """While a device is missing, or nobody knows, no loose volume is called superfluous."""
    if reading is not None:
        [device] = reading.devices
        reading = replace(reading, devices=(replace(device, missing=True),))
    seen = Seen(mountpoint="/scratch", filesystem=FILESYSTEM, reading=reading)
    [line] = leftover_lines([loose(1)], seen, INSTANCE, mounted=())
    assert "perhaps devices that are missed: vol-0001" in line.sentence
    assert "delete none" in line.hint


def test_what_counts_against_the_quota() -> None:
    """The sum of all volumes of this instance is told, with where the quota is."""
    line = quota_line([volume_of(1), loose(2)], "gp3")
    assert line.sentence.startswith("40 GiB in 2 volumes of this instance; the quota of gp3")
    assert line.sentence.endswith("Service Quotas, Amazon EBS")
