"""The release of this checkout, built once for all tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.boxes.tree import made_once

ROOT = Path(__file__).parents[1]
# The host's own Python, and none of the venv's packages.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
HOST_PYTHON = "/usr/bin/python3"


def build(into: Path, **environment: str) -> None:
    """Run what `make dist` runs."""
    argv = [sys.executable, "-m", "release", "--into", str(into)]
    env = {**os.environ, **environment}
    subprocess.run(argv, cwd=ROOT, env=env, check=True, capture_output=True, timeout=300)


def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist` fills, shared by the workers of this run."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return made_once(shared / "release", build)


def unpack(release: Path, folder: Path, *, architecture: str = "x86_64") -> Path:
    """The tree of a release, unpacked into a folder."""
    (packed,) = release.glob(f"*-linux-{architecture}.tar.gz")
    folder.mkdir()
    subprocess.run(["tar", "-xzf", str(packed), "-C", str(folder)], check=True)
    return folder / "ebs-autoscale"
