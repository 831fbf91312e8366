"""The kernel's mount table is parsed with all its escapes."""

from ebs_autoscale.host.mountinfo import MountTable, parse

TABLE = rb"""24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334492k
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
40 27 0:45 /sub /mnt/a\040b\012c\134d ro,relatime - btrfs /dev/loop0 rw,subvol=/sub
41 27 0:46 / /none rw - tmpfs  rw
42 27 0:47 / /z\303\274rich rw - tmpfs \040 rw
"""


def test_parses_every_kind_of_line() -> None:
    """Optional fields, escapes, empty sources and UTF-8 are parsed."""
    mounts = {mount.point: mount for mount in parse(TABLE)}
    assert list(mounts) == ["/dev", "/", "/mnt/a b\nc\\d", "/none", "/zürich"]
    assert mounts["/"].device == "254:0"
    assert (mounts["/"].kind, mounts["/"].source, mounts["/"].read_only) == (
        "ext4",
        "/dev/vda",
        False,
    )
    assert mounts["/mnt/a b\nc\\d"].read_only
    assert (mounts["/"].root, mounts["/mnt/a b\nc\\d"].root) == ("/", "/sub")
    assert mounts["/none"].source == ""


def test_finds_the_mount_of_a_path() -> None:
    """A path is in the deepest mount above it."""
    table = MountTable()
    assert table.over("/proc/self").point == "/proc"
    assert table.over("/processes").point == "/"
    assert table.at("/proc") is not None
    assert table.at("/processes") is None


def test_is_parsed_once() -> None:
    """Without a change the table is not parsed again."""
    table = MountTable()
    assert table.mounts() is table.mounts()
