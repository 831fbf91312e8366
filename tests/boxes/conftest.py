"""Boxes for tests that need a whole machine: one tree for all, a box for each test."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale.errors import EbsAutoscaleError
from tests.boxes.box import Box
from tests.boxes.tree import Tree, build_wheel, cached_tree, made_once, why_no_tree
from tests.program import TREE

_PROJECT = Path(__file__).parents[2]

MakeBox = Callable[..., Box]
Made = TypeVar("Made")


@pytest.fixture(scope="session")
def tree() -> Tree:
    """The Debian tree; without it the test is skipped, and fails in CI."""
    return require_tree(lambda: cached_tree(_PROJECT))


def require_tree(make: Callable[[], Made]) -> Made:
    """What this makes; if it cannot be made here the test is skipped, and fails in CI."""
    reason = why_no_tree()
    if not reason:
        try:
            return make()
        except (RuntimeError, EbsAutoscaleError, subprocess.TimeoutExpired) as error:
            reason = f"no tree for boxes: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"boxes have to boot in CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, for what is made once for all its workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def wheels(tree: Tree, shared: Path) -> Path:
    """A folder for `--find-links`: the wheels of this checkout and of its dependencies."""

    def make(folder: Path) -> None:
        shutil.copytree(tree.wheels, folder)
        build_wheel(_PROJECT, folder)

    return made_once(shared / "wheels", make)


@pytest.fixture(scope="session")
def program(tree: Tree, wheels: Path, shared: Path) -> Path:
    """The program as pip installs it in a box, to be copied to /opt/ebs-autoscale."""
    app = "/opt/ebs-autoscale"

    def make(folder: Path) -> None:
        folder.mkdir()
        if TREE:
            shutil.copytree(TREE, folder / "ebs-autoscale")
            return
        with Box(tree) as box:
            box.copy_in(wheels, "/root")
            box.exec("python3", "-m", "venv", app, timeout=120)
            argv = ["install", "--no-index", f"--find-links=/root/{wheels.name}", "ebs-autoscale"]
            box.exec(f"{app}/bin/pip", *argv, timeout=180)
            box.copy_out(app, folder)

    return made_once(shared / "program", make) / "ebs-autoscale"


@pytest.fixture
def make_box(tree: Tree) -> Iterator[MakeBox]:
    """Boot a box with this user data and these settings of its sandbox; gone after the test."""
    with ExitStack() as boxes:

        def make(
            *,
            user_data: str = "",
            folders: Mapping[str, Path] | None = None,
            https_port: int = 0,
            **settings: Any,
        ) -> Box:
            # A filesystem's UUID is derived from the instance, and all boxes have the same kernel,
            # which would take two filesystems with the same UUID for copies.
            instance = {"instance_id": f"i-{uuid4().hex[:17]}"}
            chosen = SandboxSettings(**{"block_devices": "nitro", **instance, **settings})
            box = Box(
                tree,
                user_data=user_data,
                folders=folders or {},
                settings=chosen,
                https_port=https_port,
            )
            return boxes.enter_context(box)

        yield make


@pytest.fixture
def box(make_box: MakeBox) -> Box:
    """A box without user data, with an EC2 that answers at once."""
    return make_box()


@pytest.fixture
def make_host(make_box: MakeBox, program: Path) -> MakeBox:
    """Boot a box in which the program is installed."""

    def make(**settings: Any) -> Box:
        box = make_box(**settings)
        box.copy_in(program, "/opt")
        box.exec("ln", "-s", "/opt/ebs-autoscale/bin/ebs-autoscale", "/usr/local/bin/")
        return box

    return make
