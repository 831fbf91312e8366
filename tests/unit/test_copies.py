"""Copies of a device, paths that others can change, and what to know about devices."""

import os
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from ebs_autoscale.errors import Unfit
from ebs_autoscale.filesystems.copies import Claim, copies_among
from ebs_autoscale.host.block_devices import BlockDevices
from ebs_autoscale.host.trusted_path import changeable_part, trusted_path
from ebs_autoscale.model import GIB, Device
from ebs_autoscale.policy import remarks_of
from ebs_autoscale.provision.first_volume import is_made_of, new_uuid
from tests.unit.samples import reading_of

UUID = str(uuid4())
NOBODY = 65534


def on(devid: int, *, of: int = 1) -> Claim:
    """What is on one device of the filesystem."""
    return Claim(filesystem=UUID, devid=devid, device_count=of)


@pytest.mark.parametrize(
    ("found", "mounted", "copies"),
    [
        ({"a": on(1)}, {"a"}, []),
        ({"a": on(1, of=2), "b": on(2, of=2)}, {"a", "b"}, []),
        ({"a": on(1), "b": on(1)}, {"a"}, [("b", "a")]),
        ({"a": on(1), "b": on(1)}, {"b"}, [("a", "b")]),
        ({"a": on(1), "b": on(1)}, set(), [("b", "a")]),
        ({"a": on(1), "b": on(1), "c": on(1)}, {"c"}, [("a", "c"), ("b", "c")]),
        ({"a": on(1, of=2), "b": on(2, of=2), "c": on(2, of=2)}, {"a", "b"}, [("c", "b")]),
        # Torn off, and back under another name.
        ({"a": on(1, of=2), "c": on(2, of=2)}, {"a", "b"}, []),
    ],
)
def test_what_is_a_copy(
    found: dict[str, Claim], mounted: set[str], copies: list[tuple[str, str]]
) -> None:
    """Two devices with one devid are copies; the mounted one is the original."""
    seen = copies_among(found, mounted)
    assert [(copy.name, copy.original) for copy in seen] == copies
    for copy in seen:
        # With several devices, btrfstune beside the original would change both.
        is_told_here = f"btrfstune -m /dev/{copy.name}" in copy.problem.hint
        assert is_told_here == (copy.claim.device_count == 1)


def test_a_uuid_is_recognised_by_what_made_it() -> None:
    """Two are never equal, and only the same parts recognise one."""
    parts = ("machine", "", "/scratch")
    first, second = new_uuid(*parts), new_uuid(*parts)
    assert first != second
    assert is_made_of(first, *parts)
    assert is_made_of(second, *parts)
    assert not is_made_of(first, "machine", "", "/other")
    assert not is_made_of(UUID, *parts)


def test_paths_that_only_root_changes(tmp_path: Path) -> None:
    """Symlinks of root are followed; what does not exist yet is root's to create."""
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("./real/../real")
    assert trusted_path(str(tmp_path / "link" / "new" / "er")) == f"{real}/new/er"
    assert trusted_path("/") == "/"
    if os.geteuid() == 0:
        os.chown(real, NOBODY, NOBODY)
    assert trusted_path(str(real)) == str(real)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
@pytest.mark.parametrize("kind", ["owner", "group", "all", "sticky", "loop", "file"])
def test_paths_that_others_change(tmp_path: Path, kind: str) -> None:
    """Whatever lets others swap a part of the path is refused."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "below" / "scratch"
    match kind:
        case "owner":
            os.chown(folder, NOBODY, 0)
        case "group":
            os.chown(folder, 0, NOBODY)
            folder.chmod(0o2775)
        case "all":
            folder.chmod(0o777)
        case "sticky":
            (folder / "below").mkdir()
            os.chown(folder / "below", NOBODY, 0)
            folder.chmod(0o1777)
        case "loop":
            (folder / "below").symlink_to(folder / "below")
        case "file":
            (folder / "below").touch()
    with pytest.raises(Unfit):
        trusted_path(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_configuration_that_others_change(tmp_path: Path) -> None:
    """What is named is the file, or the folder above it that others can change."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "config.yaml"
    path.touch()
    assert changeable_part(path) == ""
    for part, mode in ((path, 0o666), (folder, 0o775)):
        before = part.stat().st_mode
        part.chmod(mode)
        assert changeable_part(path) == str(part)
        part.chmod(before)
    os.chown(path, NOBODY, 0)
    assert changeable_part(path) == str(path)


def test_what_to_know_about_devices() -> None:
    """Space of an enlarged volume, with the command that uses it; LUKS beside raw volumes."""
    sizes = {"dm-0": 20 * GIB + 4096, "nvme2n1": 22 * GIB, "": 90 * GIB}
    devices = tuple(
        Device(
            devid=devid,
            name=name,
            size_bytes=20 * GIB,
            unallocated_bytes=0,
            missing=not name,
            capacity_bytes=capacity_bytes,
        )
        for devid, (name, capacity_bytes) in zip((1, 3, 4), sizes.items(), strict=True)
    )
    seen = replace(reading_of(60, 30), devices=devices)
    slack, encryption = remarks_of(seen, volumes={"nvme2n1": "vol-1"}, encrypted={"dm-0"})
    assert (slack.name, "vol-1" in slack.sentence, "3:max" in slack.hint) == ("slack", True, True)
    assert (encryption.name, "dm-0" in encryption.sentence) == ("encryption", True)
    alike = replace(seen, devices=devices[:1])
    assert not list(remarks_of(alike, volumes={}, encrypted=()))


@pytest.mark.parametrize(
    ("uuid", "encrypted"),
    [("CRYPT-LUKS2-0123-scratch", True), ("CRYPT-PLAIN-x", True), ("LVM-abc", False), ("", False)],
)
def test_what_this_host_encrypts(tmp_path: Path, uuid: str, *, encrypted: bool) -> None:
    """The UUID that device-mapper gives a device tells what it is."""
    folder = tmp_path / "block" / "dm-0" / "dm"
    folder.mkdir(parents=True)
    (folder / "uuid").write_text(f"{uuid}\n", "ascii")
    assert BlockDevices(sysfs=tmp_path).is_encrypted("dm-0") == encrypted
    assert not BlockDevices(sysfs=tmp_path).is_encrypted("nvme0n1")
