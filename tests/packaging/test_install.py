"""`make install` and `make uninstall`, into a folder instead of the root."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(goal: str, tree: Path, *variables: str) -> None:
    """Run make in the checkout."""
    argv = ["make", "-C", str(ROOT), goal, f"DESTDIR={tree}", *variables]
    # Without the variables of a `make` that runs these tests.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    subprocess.run(argv, check=True, capture_output=True, timeout=300, env=environment)


def listed(tree: Path) -> set[str]:
    """Every file and folder."""
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some of what a host has before the installation."""
    for folder in ("etc/logrotate.d", "usr/bin", "opt"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/logrotate.d/apt").write_text("# another package\n")
    return tmp_path


def test_uninstall_leaves_what_was_there(tree: Path) -> None:
    """After two installs and an uninstall the files are those from before; the program runs."""
    where = ("APPDIR=/opt/elsewhere", "PREFIX=/usr")
    before = listed(tree)
    make("install", tree, *where)
    installed = listed(tree)
    require_final_paths(tree)
    make("install", tree, *where)
    assert installed == listed(tree)
    make("uninstall", tree, *where)
    assert listed(tree) == before
    make("uninstall", tree, *where)
    assert listed(tree) == before


def require_final_paths(tree: Path) -> None:
    """No installed file names the folder it was staged in, and the program runs."""
    program = tree / "opt/elsewhere/bin/ebs-autoscale"
    assert program.read_text().splitlines()[0] == "#!/opt/elsewhere/bin/python"
    link = tree / "usr/bin/ebs-autoscale"
    assert str(link.readlink()) == "/opt/elsewhere/bin/ebs-autoscale"
    unit = (tree / "etc/systemd/system/ebs-autoscale.service").read_text()
    assert "ExecStart=/opt/elsewhere/bin/ebs-autoscale run --wait" in unit
    assert (tree / "usr/lib/systemd/catalog/ebs-autoscale.catalog").is_file()
    named = subprocess.run(
        ["grep", "-rlIF", str(tree), str(tree)], capture_output=True, text=True, check=False
    )
    assert named.stdout.split() == [str(tree / "opt/elsewhere/made-by-install")]
    python = tree / "opt/elsewhere/bin/python"
    # Without writing bytecode, which `listed` would see.
    argv = [str(python), "-I", "-B", "-m", "ebs_autoscale", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ebs-autoscale ")
