"""The table gets one line for our filesystem; all others stay as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.fstab import lines_at, parse, with_line, without

UUID = "6d2f7d5c-1111-5222-8333-444455556666"
OTHER = "0d2f7d5c-1111-5222-8333-444455556667"
LINE = f"UUID={UUID} /scratch btrfs defaults,nofail,x-systemd.device-timeout=120s 0 0"
ROOT = "LABEL=cloudimg-rootfs\t/\t ext4\tdiscard,errors=remount-ro\t0 1\n"


def ours(table: str, mountpoint: str = "/scratch", same: tuple[str, ...] = ()) -> str:
    """The table with our line."""
    return with_line(table, uuid=UUID, mountpoint=mountpoint, is_same=lambda source: source in same)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{LINE}\n"),
        (ROOT, f"{ROOT}{LINE}\n"),
        (ROOT.rstrip(), f"{ROOT.rstrip()}\n{LINE}\n"),
        (f"{ROOT}\n\n", f"{ROOT}\n\n{LINE}\n"),
        (f"#{LINE}\n", f"#{LINE}\n{LINE}\n"),
        ("nonsense\n/dev/sdz\n", f"nonsense\n/dev/sdz\n{LINE}\n"),
    ],
)
def test_a_line_is_added_once(before: str, after: str) -> None:
    """The line is appended, and a second time changes nothing."""
    assert ours(before) == after
    assert ours(after) == after
    assert without(after, lines_at(after, "/scratch")).rstrip("\n") == before.rstrip("\n")


@given(st.text(st.sampled_from("ab /#\t\r\\-\n\udc80\x0b\u2028"), max_size=60))
def test_other_lines_stay_as_they_are(before: str) -> None:
    """All other lines stay as they are, and a second time changes nothing."""
    after = ours(before)
    assert after.replace(f"{LINE}\n", "").rstrip("\n") == before.rstrip("\n")
    assert ours(after) == after
    assert [line.uuid for line in parse(after) if line.mountpoint == "/scratch"] == [UUID]


def test_a_line_with_a_device_name_is_replaced() -> None:
    """A line with a device name is replaced by one with the UUID and its options."""
    before = f"{ROOT}/dev/xvdba\t/scratch\tbtrfs\tnoatime,nofail\t0\t0\n# end\n"
    after = ours(before, same=("/dev/xvdba",))
    line = f"UUID={UUID} /scratch btrfs noatime,nofail,x-systemd.device-timeout=120s 0 0"
    assert after == f"{ROOT}{line}\n# end\n"


@pytest.mark.parametrize(
    "line",
    [
        f"UUID={UUID} /scratch btrfs compress=zstd 0 0",
        f'UUID="{UUID.upper()}" /scratch/ btrfs noatime 0 0',
        "LABEL=scratch /scratch btrfs",
    ],
)
def test_an_operators_own_line_stays(line: str) -> None:
    """A line that finds this filesystem without a device name is kept."""
    assert ours(f"{ROOT}{line}\n", same=("LABEL=scratch",)) == f"{ROOT}{line}\n"
    assert [each.is_by_init for each in parse(line)] == [False]


def test_a_line_of_ours_is_known_again() -> None:
    """A line of ours is recognised by its options, which are told from those of the operator."""
    table = ours("/dev/sdf /scratch btrfs noatime,subvol=a,nofail 0 0\n", same=("/dev/sdf",))
    [line] = parse(table)
    assert line.is_by_init
    assert line.chosen == ("noatime", "subvol=a")
    assert [each.chosen for each in parse(LINE)] == [()]


def test_one_line_only() -> None:
    """Of several lines for this filesystem and mountpoint, one is kept."""
    before = f"/dev/sdf /scratch btrfs\n{LINE}\n{ROOT}{LINE}\n"
    assert ours(before, same=("/dev/sdf",)) == f"{ROOT}{LINE}\n"


@pytest.mark.parametrize(
    "source", [f"UUID={OTHER}", "/dev/sdf", "LABEL=scratch", "tmpfs", "host:/export"]
)
def test_another_filesystem_is_refused(source: str) -> None:
    """A line that mounts something else on this mountpoint is refused."""
    with pytest.raises(Unfit, match=source) as caught:
        ours(f"{ROOT}{source} /scratch auto defaults 0 0\n")
    assert caught.value.cause is Cause.FSTAB


def test_lines_for_other_mountpoints_are_kept() -> None:
    """Lines for other mountpoints are kept, also of this filesystem."""
    before = f"UUID={UUID} /srv btrfs subvol=srv 0 0\n{OTHER} /scratch2 btrfs\n"
    assert ours(before) == f"{before}{LINE}\n"


@pytest.mark.parametrize("mountpoint", ["/a b", r"/a\b", "/groß", "/a#b", "/#"])
def test_escapes(mountpoint: str) -> None:
    """White space and backslashes are escaped for mount(8), and parsed again."""
    after = ours("", mountpoint)
    assert len(after.split(" ")) == 6
    assert ours(after, mountpoint) == after
    assert [line.mountpoint for line in parse(after)] == [mountpoint]
