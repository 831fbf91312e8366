"""A program that is replaced while it runs."""

import os
from pathlib import Path

import pytest

from ebs_autoscale.daemon.installation import (
    LOOK_EVERY_SECONDS,
    SETTLED_AFTER_SECONDS,
    Installation,
)
from tests.simulated.clock import SimulatedClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the program."""
    path = tmp_path / "__init__.py"
    path.write_text("old")
    return path


@pytest.fixture
def clock() -> SimulatedClock:
    """Time of its own."""
    return SimulatedClock()


def replace(path: Path) -> None:
    """Install another version, as pip does: a new file takes the old one's name."""
    new = path.with_suffix(".new")
    new.write_text("new")
    os.utime(new, ns=(1, 1))
    new.replace(path)


def look_for(installation: Installation, clock: SimulatedClock, seconds: float) -> bool:
    """Look again and again, for so long; what the last look says."""
    for _ in range(int(seconds / LOOK_EVERY_SECONDS)):
        clock.sleep(LOOK_EVERY_SECONDS)
        installation.is_replaced()
    return installation.is_replaced()


def test_the_same_program_is_not_replaced(path: Path, clock: SimulatedClock) -> None:
    """As long as nobody installs anything nothing happens."""
    assert not look_for(Installation(clock, path=path), clock, 3600)


def test_another_python_counts(path: Path, clock: SimulatedClock, tmp_path: Path) -> None:
    """Behind the same name, or gone: the next start finds what this host has by then."""
    python = tmp_path / "python3"
    python.symlink_to("python3.11")
    for version in ("python3.11", "python3.12"):
        (tmp_path / version).write_text(version)
    installation = Installation(clock, path=path, python=python)
    assert not look_for(installation, clock, 3600)
    python.unlink()
    python.symlink_to("python3.12")
    assert look_for(installation, clock, 2 * SETTLED_AFTER_SECONDS)
    installation = Installation(clock, path=path, python=python)
    (tmp_path / "python3.12").unlink()
    assert look_for(installation, clock, 2 * SETTLED_AFTER_SECONDS)


def test_another_one_counts_when_it_is_complete(path: Path, clock: SimulatedClock) -> None:
    """While files are away or still change, the installation is not over."""
    installation = Installation(clock, path=path)
    path.unlink()
    assert not look_for(installation, clock, 10 * SETTLED_AFTER_SECONDS)
    path.write_text("half")
    assert not look_for(installation, clock, SETTLED_AFTER_SECONDS / 2)
    replace(path)
    assert not look_for(installation, clock, SETTLED_AFTER_SECONDS)
    assert look_for(installation, clock, SETTLED_AFTER_SECONDS)


def test_an_uninstalled_program_is_not_replaced(path: Path, clock: SimulatedClock) -> None:
    """Without a program to start, the old loop is all there is."""
    installation = Installation(clock, path=path)
    path.unlink()
    assert not look_for(installation, clock, 3600)
