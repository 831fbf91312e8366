"""What `check` makes of fstab."""

import pytest

from ebs_autoscale.checks.filesystem import fstab_lines
from ebs_autoscale.host.fstab import line_for, parse

UUID = "6a92f8de-0000-4000-8000-000000000001"
OTHER = "11111111-2222-4333-8444-555555555555"
GOOD = line_for(UUID, "/scratch")


@pytest.mark.parametrize(
    ("table", "verdict", "words"),
    [
        (GOOD, "ok", f"UUID={UUID}"),
        (f"/dev/disk/by-uuid/{UUID} /scratch btrfs noauto 0 0", "ok", "by-uuid"),
        ("LABEL=scratch /scratch auto nofail 0 0", "ok", "LABEL=scratch"),
        ("", "warn", "it is not mounted at boot"),
        (f"{GOOD}\n{GOOD}", "warn", "2 lines"),
        ("/dev/nvme1n1 /scratch btrfs nofail 0 0", "warn", "/dev/nvme1n1 may be another device"),
        (f"UUID={UUID} /scratch btrfs defaults 0 0", "warn", "emergency mode"),
        (f"UUID={UUID} /scratch btrfs nofail,degraded 0 0", "warn", "degraded"),
        (f"UUID={UUID} /scratch btrfs nofail,device=/dev/nvme2n1 0 0", "warn", "device="),
        (f"UUID={OTHER} /scratch btrfs nofail 0 0", "fail", f"{OTHER}; mounted is {UUID}"),
        (f"UUID={UUID} /scratch xfs nofail 0 0", "fail", "mounts xfs"),
    ],
)
def test_lines_of_fstab(table: str, verdict: str, words: str) -> None:
    """A line that does not bring the filesystem back is told with the one that does."""
    [line] = fstab_lines(parse(table), "/scratch", UUID, by_unit=False)
    assert (line.name, line.verdict) == ("fstab", verdict)
    assert words in line.sentence
    assert (GOOD in line.hint) == (verdict != "ok")


def test_everything_wrong_with_a_line() -> None:
    """Each fault of one line is told."""
    lines = list(fstab_lines(parse("/dev/sdf /scratch ext4"), "/scratch", UUID, by_unit=False))
    assert [line.verdict for line in lines] == ["fail", "warn", "warn"]


def test_a_mount_unit_needs_no_line() -> None:
    """Where systemd mounts it by a unit of its own, fstab owes nothing."""
    [line] = fstab_lines((), "/scratch", UUID, by_unit=True)
    assert line.verdict == "ok"


def test_not_mounted() -> None:
    """Without a mount to compare with, no UUID is called wrong."""
    [line] = fstab_lines(parse(GOOD), "/scratch", "", by_unit=False)
    assert line.verdict == "ok"
