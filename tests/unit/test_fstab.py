"""fstab(5) is parsed as mount(8) does."""

import subprocess
from pathlib import Path

import pytest

from ebs_autoscale.host.fstab import FstabLine, line_for, parse

UUID = "6a92f8de-0000-4000-8000-000000000001"

TABLE = """\
# UNCONFIGURED FSTAB FOR BASE SYSTEM
LABEL=cloudimg-rootfs\t/\text4\tdiscard,commit=30,errors=remount-ro\t0 1
  # UUID=none /scratch btrfs defaults

/dev/nvme1n1 /scratch/ btrfs defaults,nofail 0 0
UUID="6A92F8DE-0000-4000-8000-000000000001" /with\\040space btrfs
tmpfs
"""


def test_lines_that_mean_something() -> None:
    """Comments, empty and incomplete lines are skipped; any white space separates fields."""
    assert parse(TABLE) == (
        FstabLine(
            number=1,
            source="LABEL=cloudimg-rootfs",
            mountpoint="/",
            kind="ext4",
            options=("discard", "commit=30", "errors=remount-ro"),
        ),
        FstabLine(
            number=4,
            source="/dev/nvme1n1",
            mountpoint="/scratch",
            kind="btrfs",
            options=("defaults", "nofail"),
        ),
        FstabLine(
            number=5,
            source=f'UUID="{UUID.upper()}"',
            mountpoint="/with space",
            kind="btrfs",
            options=("defaults",),
        ),
    )


@pytest.mark.parametrize(
    ("source", "uuid", "by_device"),
    [
        (f"UUID={UUID}", UUID, False),
        (f'UUID="{UUID.upper()}"', UUID, False),
        (f"/dev/disk/by-uuid/{UUID}", UUID, False),
        ("LABEL=scratch", "", False),
        ("PARTUUID=1234", "", False),
        ("tmpfs", "", False),
        ("/dev/mapper/scratch", "", False),
        ("/dev/nvme1n1", "", True),
        ("/dev/xvdba", "", True),
        ("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol01", "", True),
    ],
)
def test_how_a_filesystem_is_named(source: str, uuid: str, *, by_device: bool) -> None:
    """A source is a UUID in any notation, another persistent name, or a device name."""
    line = FstabLine(number=0, source=source, mountpoint="/scratch", kind="btrfs", options=())
    assert (line.uuid, line.is_by_device) == (uuid, by_device)


@pytest.mark.parametrize("mountpoint", ["/scratch", "/with space", "/back\\slash\ttab"])
def test_a_line_is_read_as_it_is_meant(mountpoint: str, tmp_path: Path) -> None:
    """Our parser and findmnt read the line that we write."""
    text = line_for(UUID, mountpoint)
    [line] = parse(text)
    assert (line.uuid, line.mountpoint, line.kind) == (UUID, mountpoint, "btrfs")
    assert "nofail" in line.options
    assert "degraded" not in line.options
    table = tmp_path / "fstab"
    table.write_text(f"{text}\n", "utf-8")
    argv = ["findmnt", "--tab-file", str(table), "--noheadings", "--raw", "--output", "TARGET"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert shown.encode().decode("unicode_escape") == mountpoint


@pytest.mark.parametrize(
    "name", ["no-break\u00a0space", "a\x1cb", "a\x0bb", "a\x85b", "a\u2028b", "ü"]
)
def test_only_space_and_tab_separate_fields(name: str) -> None:
    """Any other white space belongs to a name, as it does for mount(8)."""
    [line] = parse(f"{line_for(UUID, f'/{name}')}\n")
    assert (line.mountpoint, line.kind, line.uuid) == (f"/{name}", "btrfs", UUID)


def test_escapes_stand_for_bytes() -> None:
    """A letter of several bytes may be escaped byte by byte; what is no byte is no escape."""
    lines = parse("x /z\\303\\274rich btrfs\nx /\\777 btrfs\nx /\\377 btrfs")
    assert [line.mountpoint for line in lines] == ["/zürich", "/\\777", "/\udcff"]
