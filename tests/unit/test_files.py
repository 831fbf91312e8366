"""Files of the system are whole at any moment, and keep what else there is to them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ebs_autoscale.errors import Unfit
from ebs_autoscale.host import files


def test_replace_keeps_mode_and_follows_a_link(tmp_path: Path) -> None:
    """The file behind a symlink gets the content; mode and owner stay, and nothing is left over."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old", "utf-8")
    real.chmod(0o640)
    link.symlink_to("real")
    files.replace(link, "new \udc80")
    assert link.is_symlink()
    assert real.read_bytes() == b"new \x80"
    assert files.read_text(link) == "new \udc80"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]  # noqa: PTH208 -- hidden files too


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir])
def test_replace_leaves_what_is_no_file(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """A device, pipe or folder that a link leads to is refused by name, and stays what it is."""
    real, link = tmp_path / "real", tmp_path / "link"
    kind(real)
    link.symlink_to(real)
    before = real.stat()
    with pytest.raises(Unfit, match=f"cannot write {link}: {real} is not a regular file"):
        files.replace(link, "new")
    assert real.stat() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_leavings_of_a_killed_writer_are_no_matter(tmp_path: Path) -> None:
    """What a killed one left is overwritten, and never piles up."""
    (tmp_path / ".fstab.ebs-autoscale").write_text("half", "utf-8")
    files.replace(tmp_path / "fstab", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["fstab"]


def test_create_never_overwrites(tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    path = tmp_path / "new" / "config.yaml"
    files.create(path, "first")
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(Unfit, match="File exists"):
        files.create(path, "second")
    assert files.read_text(path) == "first"
    assert [each.name for each in path.parent.iterdir()] == ["config.yaml"]


def test_nothing_there_is_empty(tmp_path: Path) -> None:
    """A table that nobody has written has no lines."""
    assert files.read_text(tmp_path / "fstab") == ""
