"""Files are replaced atomically, and keep mode and owner."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host import files


def test_replace_keeps_mode_and_follows_a_link(tmp_path: Path) -> None:
    """The target of a symlink is replaced, its mode is kept, and no other file is left."""
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
def test_replace_refuses_what_is_no_file(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """A target that is not a regular file is refused and not changed."""
    real, link = tmp_path / "real", tmp_path / "link"
    kind(real)
    link.symlink_to(real)
    before = real.stat()
    with pytest.raises(Unfit) as caught:
        files.replace(link, "new")
    assert caught.value.cause is Cause.FILE
    assert str(real) in caught.value.what
    assert real.stat() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["loop", "x" * 300])
def test_replace_refuses_what_cannot_be_a_file(tmp_path: Path, name: str) -> None:
    """A link to itself and a name that is too long are refused, and nothing is written."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Unfit):
        files.replace(tmp_path / name, "new")
    assert [path.name for path in tmp_path.iterdir() if path.is_symlink()] == ["loop"]
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_a_killed_writer_are_overwritten(tmp_path: Path) -> None:
    """The temporary file of a killed process is overwritten."""
    (tmp_path / ".fstab.ebs-autoscale").write_text("half", "utf-8")
    files.replace(tmp_path / "fstab", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["fstab"]


def test_create_never_overwrites(tmp_path: Path) -> None:
    """An existing file is not changed."""
    path = tmp_path / "new" / "config.yaml"
    files.create(path, "first")
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(Unfit):
        files.create(path, "second")
    assert files.read_text(path) == "first"
    assert [each.name for each in path.parent.iterdir()] == ["config.yaml"]


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    """A file that does not exist is empty."""
    assert files.read_text(tmp_path / "fstab") == ""
