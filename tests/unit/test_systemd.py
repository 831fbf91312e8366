"""Paths are escaped for unit names as systemd does."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.host.paths import escape_path
from ebs_autoscale.host.systemd import drop_in

KNOWN = {
    "/": "-",
    "/scratch": "scratch",
    "/scratch/two": "scratch-two",
    "/var/lib/docker/": "var-lib-docker",
    "/srv/my-own": r"srv-my\x2down",
    "/.cache/.x": r"\x2ecache-.x",
    "/a b": r"a\x20b",
    "/groß": r"gro\xc3\x9f",
    r"/back\slash": r"back\x5cslash",
}


@pytest.mark.parametrize(("path", "name"), KNOWN.items())
def test_known(path: str, name: str) -> None:
    """Slashes become dashes, and all but letters, digits and :_. is escaped."""
    assert escape_path(path) == name


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="systemd-escape is not installed")
def test_as_systemd_does() -> None:
    """The result is that of systemd-escape, whatever the path."""
    letters = [chr(code) for code in range(1, 256) if chr(code) != "/"]
    paths = [*KNOWN, *(f"/{letter}x/{letter}" for letter in letters if letter != ".")]
    argv = ["systemd-escape", "--path", *paths]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.split() == [escape_path(path) for path in paths]


LETTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])


@given(st.lists(st.text(LETTERS, min_size=1), min_size=1))
def test_no_two_paths_share_a_name(parts: list[str]) -> None:
    """The name can be converted back into the path."""
    path = "/" + "/".join(parts)
    unescaped = escape_path(path).replace("-", "/").encode("latin-1").decode("unicode_escape")
    assert f"/{unescaped}".encode("latin-1").decode("utf-8") == path


@pytest.mark.parametrize(
    ("mountpoint", "kind", "settings"),
    [
        ("/scratch", "btrfs", []),
        ("/", "xfs", []),
        ("/", "ext4", ["CapabilityBoundingSet=CAP_SYS_RESOURCE"]),
        ("/home/data", "xfs", ["ProtectHome=no"]),
        ("/var/tmp/x", "ext4", ["PrivateTmp=no", "CapabilityBoundingSet=CAP_SYS_RESOURCE"]),
    ],
)
def test_a_drop_in(mountpoint: str, kind: str, settings: list[str]) -> None:
    """It orders the unit after the mount, and gives it what this place and this kind need."""
    lines = drop_in(mountpoint, kind=kind).splitlines()
    mount = f"{escape_path(mountpoint)}.mount"
    assert lines[:3] == ["[Unit]", f"After={mount}", f"Wants={mount}"]
    assert [line for line in lines[3:] if line not in {"", "[Service]"}] == settings
