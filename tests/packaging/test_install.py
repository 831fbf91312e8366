"""`make install` and `make uninstall`, into a folder instead of the root."""

import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from stat import S_IMODE

import pytest

ROOT = Path(__file__).parents[2]
APP = "opt/ebs-autoscale"

# Makes a venv whose program prints a version; its pip and compileall do nothing.
FAKE_PYTHON = f"""\
#!/bin/sh
if [ "$1" = -c ]; then
    [ -z "$NO_EXCHANGE" ] || exit 1
    exec {sys.executable} "$@"
fi
[ -n "$VERSION" ] || {{ echo "No module named ensurepip" >&2; exit 1; }}
mkdir -p "$3/bin" "$3/lib"
echo "command = $3" >"$3/pyvenv.cfg"
printf '#!/bin/sh\\n' >"$3/bin/python"
printf '#!/bin/sh\\necho %s\\n' "$VERSION" >"$3/bin/ebs-autoscale"
chmod 755 "$3/bin/python" "$3/bin/ebs-autoscale"
"""
# In front of a tool; kills the whole installation at one of its calls.
KILLER = """\
#!/bin/sh
read -r calls <"$COUNTER"
echo $((calls + 1)) >"$COUNTER"
[ "$calls" != "$KILL_AT" ] || kill -KILL 0
exec "/bin/${0##*/}" "$@"
"""


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
    tree = tmp_path / "tree"
    for folder in ("etc/logrotate.d", "usr/bin", "opt"):
        (tree / folder).mkdir(parents=True)
    (tree / "etc/logrotate.d/apt").write_text("# another package\n")
    return tree


class Installer:
    """What `make` runs, with a stand-in for Python and killers in front of tools."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "killers"
        self._python = folder / "python"
        self._counter = folder / "calls"
        self._bin.mkdir()
        for place in (self._python, *(self._bin / tool for tool in ("mv", "rm"))):
            place.write_text(FAKE_PYTHON if place == self._python else KILLER)
            place.chmod(0o755)

    def run(
        self, verb: str, tree: Path, *, kill_at: int = -1, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, or to the call at which it is killed."""
        self._counter.write_text("0\n")
        places = {"APPDIR": f"/{APP}", "PREFIX": "/usr/local", "UNITDIR": "/etc/systemd/system"}
        places |= {"DESTDIR": str(tree), "CATALOGDIR": "/usr/lib/systemd/catalog"}
        killers = {"COUNTER": str(self._counter), "KILL_AT": str(kill_at)}
        path = f"{self._bin}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "release/install.sh", verb],
            cwd=ROOT,
            env={"PATH": path, "PYTHON": str(self._python), "NO_EXCHANGE": "", "VERSION": ""}
            | places
            | killers
            | environment,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            umask=0o077,
        )


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    """The shell behind `make install`."""
    return Installer(tmp_path)


def installed_version(tree: Path) -> str:
    """What the installed program says, and that all else is there."""
    assert (tree / "usr/local/bin/ebs-autoscale").is_symlink()
    for unit in ("ebs-autoscale.service", "ebs-autoscale@.service"):
        assert "WantedBy=" in (tree / "etc/systemd/system" / unit).read_text()
    program = [str(tree / APP / "bin/ebs-autoscale")]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.strip()


def test_killed_anywhere_the_old_or_the_new_version_is_there(
    tree: Path, tmp_path: Path, installer: Installer
) -> None:
    """And the next attempt completes; so it does where two folders cannot be exchanged."""
    assert installer.run("install", tree, VERSION="old").returncode == 0
    complete = listed(tree)
    before = tmp_path / "before"
    shutil.copytree(tree, before, symlinks=True)
    seen = set()
    for call in count():
        shutil.rmtree(tree)
        shutil.copytree(before, tree, symlinks=True)
        done = installer.run("install", tree, VERSION="new", kill_at=call)
        seen.add(installed_version(tree))
        if done.returncode == 0:
            break
        assert done.returncode < 0
        assert installer.run("install", tree, VERSION="newer", NO_EXCHANGE="1").returncode == 0
        assert installed_version(tree) == "newer"
        assert listed(tree) == complete
    assert call > 10
    assert seen == {"old", "new"}


@pytest.mark.parametrize("before", ["", "old"])
def test_without_ensurepip_nothing_changes(tree: Path, installer: Installer, before: str) -> None:
    """As on a Debian host without python3-venv: the old version stays, and no half of a new one."""
    if before:
        assert installer.run("install", tree, VERSION=before).returncode == 0
    were = listed(tree)
    done = installer.run("install", tree)
    assert done.returncode != 0
    assert "ensurepip" in done.stderr
    assert listed(tree) == were
    assert not before or installed_version(tree) == before


def test_everybody_can_read_it_and_only_root_can_change_it(
    tree: Path, installer: Installer
) -> None:
    """Also for a root with another umask; and a slash behind APPDIR is no other folder."""
    before = listed(tree)
    assert installer.run("install", tree, VERSION="old", APPDIR=f"/{APP}/").returncode == 0
    assert installed_version(tree) == "old"
    assert not (tree / APP / ".new").exists()
    made = [tree / name for name in listed(tree) - before]
    modes = {S_IMODE(path.stat().st_mode) for path in made if path.exists()}
    assert modes <= {0o755, 0o644}
    were = listed(tree)
    assert installer.run("install", tree, VERSION="new", APPDIR=f"/{APP}/").returncode == 0
    assert (installed_version(tree), listed(tree)) == ("new", were)


def test_files_of_a_package_are_left_alone(tree: Path, installer: Installer) -> None:
    """Neither installed over nor removed: dpkg and rpm know their files, and a release is one."""
    (tree / APP / "bin").mkdir(parents=True)
    were = listed(tree)
    for verb in ("install", "uninstall"):
        done = installer.run(verb, tree, VERSION="new")
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert "package" in line
        assert listed(tree) == were


def test_the_shell_is_sound() -> None:
    """Shellcheck finds no fault."""
    linter = Path(sys.executable).parent / "shellcheck"
    argv = [str(linter), "release/install.sh"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_uninstall_leaves_what_was_there(tree: Path, installer: Installer) -> None:
    """After two installs and an uninstall the files are those from before; the program runs."""
    where = ("APPDIR=/opt/elsewhere", "PREFIX=/usr")
    before = listed(tree)
    make("install", tree, *where)
    installed = listed(tree)
    require_final_paths(tree)
    done = installer.run("install", tree, VERSION="new", APPDIR="/opt/elsewhere", PREFIX="/usr")
    assert done.returncode == 0
    assert {each for each in installed if "/elsewhere/" not in each} <= listed(tree)
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
