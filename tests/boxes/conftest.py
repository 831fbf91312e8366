"""Boxes for the tests that need a whole machine: the tree once, a box for each test."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.sandbox.settings import SandboxSettings
from tests.boxes.box import Box
from tests.boxes.tree import Tree, build_wheel, cached_tree, why_no_tree

_PROJECT = Path(__file__).parents[2]

MakeBox = Callable[..., Box]


@pytest.fixture(scope="session")
def tree() -> Tree:
    """The Debian tree; where it cannot be had, the test is skipped, but in CI it fails."""
    reason = why_no_tree()
    if not reason:
        try:
            return cached_tree(_PROJECT)
        except (RuntimeError, EbsAutoscaleError, subprocess.TimeoutExpired) as error:
            reason = f"no tree for boxes: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"boxes have to boot in CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def wheels(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `--find-links`: the wheels of this checkout and of all that it needs."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheel(_PROJECT, folder)
    shutil.copytree(tree.wheels, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def make_box(tree: Tree) -> Iterator[MakeBox]:
    """Boot a box with this user data and these settings of its sandbox; gone after the test."""
    with ExitStack() as boxes:

        def make(*, user_data: str = "", **settings: Any) -> Box:
            chosen = SandboxSettings(**{"block_devices": "nitro", **settings})
            return boxes.enter_context(Box(tree, user_data=user_data, settings=chosen))

        yield make


@pytest.fixture
def box(make_box: MakeBox) -> Box:
    """A box without user data, whose EC2 answers at once."""
    return make_box()
