"""Names of the program's own files."""

from itertools import combinations

import pytest

from ebs_autoscale.host import paths

MOUNTPOINTS = (
    "/a-b",
    "/a/b",
    "/a_b",
    "/a.b",
    "/.a/b",
    "/a b",
    "/a\\x2db",
    "/a\nb",
    "/\udcff",
    "/" + "-" * 250,
    "/" + "-" * 251,
    "/" + "/".join("long" * 60 for _ in range(16)),
)


@pytest.mark.parametrize(("one", "other"), list(combinations(MOUNTPOINTS, 2)))
def test_each_mountpoint_has_its_own_files(one: str, other: str) -> None:
    """No two mountpoints share a report or a pid file."""
    assert paths.status_file(one) != paths.status_file(other)
    assert paths.pid_file(one) != paths.pid_file(other)


@pytest.mark.parametrize("mountpoint", MOUNTPOINTS)
def test_each_name_is_possible(mountpoint: str) -> None:
    """Every name fits into a folder of Linux."""
    for path in (paths.status_file(mountpoint), paths.pid_file(mountpoint)):
        assert path.parent == paths.RUNTIME_DIRECTORY
        assert len(path.name) < 240


def test_usual_names_are_plain() -> None:
    """The names that operators know."""
    assert paths.status_file("/scratch").name == "scratch.json"
    assert paths.status_file("/var/lib/docker").name == "var-lib-docker.json"
    assert paths.pid_file("/srv/my-own").name == r"srv-my\x2down.pid"
