"""The kernel's mount table is parsed with all its escapes."""

import os
from time import monotonic

from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.host.mountinfo import MountTable, parse

TABLE = rb"""24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334492k
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
40 27 0:45 /sub /mnt/a\040b\012c\134d ro,relatime - btrfs /dev/loop0 rw,subvol=/sub
41 27 0:46 / /none rw - tmpfs  rw
42 27 0:47 / /z%srich rw - tmpfs \040 rw
""" % "ü".encode()
# As fusermount3 makes them for any user: the kernel escapes none of these bytes.
UNESCAPED = [bytes([byte]) for byte in range(1, 256) if bytes([byte]) not in b" \t\n\\#/"]


def mount_of(point: bytes, source: bytes = b"x") -> bytes:
    """A line as the kernel writes it."""

    def escaped(text: bytes) -> bytes:
        return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in text)

    return b"63 43 0:39 / %s rw - fuse.x %s rw" % (escaped(point), escaped(source))


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
    assert getattr(table.over("/proc/self"), "point", "") == "/proc"
    assert getattr(table.over("/processes"), "point", "/") == "/"
    assert table.at("/proc") is not None
    assert table.at("/processes") is None


def test_is_parsed_once() -> None:
    """Without a change the table is not parsed again."""
    table = MountTable()
    assert table.mounts() is table.mounts()


def test_every_byte_can_be_in_a_name() -> None:
    """Whatever a user calls a folder or a source, it is one mount, and the others are found."""
    for byte in UNESCAPED:
        mounts = parse(b"%s\n%s" % (mount_of(b"/home/a" + byte + b"b", b" - " + byte), TABLE))
        assert os.fsencode(mounts[0].point) == b"/home/a" + byte + b"b"
        assert os.fsencode(mounts[0].source) == b" - " + byte
        assert mounts[1:] == parse(TABLE)


@given(st.binary(), st.binary(min_size=1))
def test_any_line_costs_itself_only(noise: bytes, name: bytes) -> None:
    """No line raises, and none hides another one; every name is read back as it was."""
    point = b"/" + name.replace(b"\0", b"")
    mounts = parse(b"%s\n%s\n%s" % (noise, mount_of(point), TABLE))
    assert os.fsencode(mounts[-6].point) == point
    assert mounts[-5:] == parse(TABLE)


def test_a_thousand_long_names_take_no_time() -> None:
    """As many mounts as fuse allows all users together, each with the longest escaped path."""
    table = b"\n".join([mount_of(b"/" + b"\\" * 4000)] * 1000)
    began = monotonic()
    assert len(parse(table)) == 1000
    assert monotonic() - began < 1.0
