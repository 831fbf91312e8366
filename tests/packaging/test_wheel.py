"""What the wheels of the two distributions contain."""

import os
import subprocess
import sys
import sysconfig
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.boxes.tree import build_wheel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that goes to production hosts."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sandbox."""
    return build_wheel(ROOT / "sandbox", tmp_path_factory.mktemp("sandbox"))


def packages(wheel: Path) -> set[str]:
    """The packages that are importable after an installation."""
    with ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
    return {folder for folder in folders if not folder.endswith((".dist-info", ".data"))}


def metadata(wheel: Path) -> Message:
    """The METADATA file of a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_product_contains_nothing_of_the_sandbox(product: Path) -> None:
    """The product's wheel has one package, no extras, and does not name the sandbox."""
    assert packages(product) == {"ebs_autoscale"}
    found = metadata(product)
    assert not found.get_all("Provides-Extra")
    assert not [each for each in found.get_all("Requires-Dist", []) if "sandbox" in each]
    with ZipFile(product) as archive:
        assert not [name for name in archive.namelist() if "sandbox" in name]


def test_without_the_sandbox_the_demo_says_what_to_install(product: Path, tmp_path: Path) -> None:
    """With only the product's wheel, `demo` exits 5 and says what to install in one sentence."""
    with ZipFile(product) as archive:
        archive.extractall(tmp_path)
    # Without the module `site`, the dependencies are there and editable installations are not.
    path = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [sys.executable, "-S", "-m", "ebs_autoscale", "demo"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, "")
    (sentence,) = done.stderr.splitlines()
    assert "./sandbox[demo]" in sentence


def test_the_sandbox_is_a_distribution_of_its_own(sandbox: Path) -> None:
    """The sandbox's wheel is typed, has a command and a README, and does not need the product."""
    assert packages(sandbox) == {"ec2_sandbox", "ebs_autoscale_demo"}
    found = metadata(sandbox)
    assert found["Name"] == "ebs-autoscale-sandbox"
    assert "venv/bin/ec2-sandbox" in str(found.get_payload())
    required = [each.split(";")[0].strip() for each in found.get_all("Requires-Dist", [])]
    assert not [each for each in required if each.startswith("ebs")]
    with ZipFile(sandbox) as archive:
        names = archive.namelist()
        (points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "ec2-sandbox = ec2_sandbox.cli:main" in archive.read(points).decode()
    assert {"ec2_sandbox/py.typed", "ebs_autoscale_demo/py.typed"} <= set(names)
