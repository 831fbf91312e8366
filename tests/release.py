"""The release of this checkout, built once for all tests."""

import os
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest

from ebs_autoscale import __version__
from release.archives import read_tar_gz
from release.packages import debian, rpm
from release.wheels import Wheel
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


def unpack_tree(release: Path, folder: Path) -> Path:
    """The tree of the .tar.gz."""
    return unpack(release, folder)


def unpack_deb(release: Path, folder: Path) -> Path:
    """The tree in the .deb."""
    (package,) = release.glob("*_amd64.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    return folder / "opt/ebs-autoscale"


def unpack_rpm(release: Path, folder: Path, *, architecture: str = "x86_64") -> Path:
    """The tree in the .rpm, unpacked by rpm itself; needs root."""
    (package,) = release.glob(f"*.{architecture}.rpm")
    folder.mkdir(exist_ok=True)
    argv = ["rpm", f"--root={folder}", "--dbpath=/rpm", "--force-debian", "--nodeps"]
    argv += ["--noscripts", "--ignorearch", "--install", str(package)]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(folder / "rpm")
    return folder / "opt/ebs-autoscale"


def next_packages(release: Path, folder: Path, version: str) -> tuple[Path, Path]:
    """The .deb and the .rpm of the same tree with another version number, for upgrades."""
    (packed,) = release.glob("*-linux-x86_64.tar.gz")
    entries = read_tar_gz(packed.read_bytes())
    files = {name.removeprefix("ebs-autoscale/"): entry for name, entry in entries.items()}
    name = "lib/ebs_autoscale/__init__.py"
    ours, theirs = __version__.encode(), version.encode()
    files[name] = files[name]._replace(content=files[name].content.replace(ours, theirs))
    (described,) = (name for name in files if re.match("lib/ebs_autoscale-.*/METADATA", name))
    metadata = Parser().parsestr(files[described].content.decode())
    metadata.replace_header("Version", version)
    product = Wheel(metadata, "", {})
    # Another time than that of the files which are the same.
    made = [each(files, product, "x86_64", epoch=2_000_000_000) for each in (debian, rpm)]
    for name, content in made:
        (folder / name).write_bytes(content)
    return folder / made[0][0], folder / made[1][0]
