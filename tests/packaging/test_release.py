"""What `make dist` builds: the same for everybody, and running without an installation."""

import json
import os
import re
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest

from ebs_autoscale import __version__
from release.trees import PROGRAMS
from release.wheels import locked
from tests.release import ENVIRONMENT, HOST_PYTHON, ROOT, build, built, unpack

ARCHITECTURES = ("x86_64", "aarch64")
# e_machine of an ELF file, see elf(5).
MACHINE = {"x86_64": 62, "aarch64": 183}
SIZE_MAX = 3 * 1024**2


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all files."""
    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def tree(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in a folder whose name a careless shell would spoil."""
    return unpack(release, tmp_path_factory.mktemp("tree") / "an odd fold'er $HOME")


def packed(release: Path, architecture: str) -> tarfile.TarFile:
    """The archive with a tree."""
    (path,) = release.glob(f"*-linux-{architecture}.tar.gz")
    return tarfile.open(path)


def run(*argv: str | Path, path: str = ENVIRONMENT["PATH"]) -> "subprocess.CompletedProcess[str]":
    """Run a command without what this process has in its environment."""
    env = {**ENVIRONMENT, "PATH": path}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_two_builds_are_identical(release: Path, tmp_path: Path) -> None:
    """Whatever the time zone, the language, the order of hashes, and what is in the folder."""
    again = tmp_path / "again"
    again.mkdir()
    (again / "ebs_autoscale-0.0.1.tar.gz").write_text("of an older release")
    build(again, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7", PIP_NO_INDEX="1")
    assert {path.name: path.read_bytes() for path in release.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }
    argv = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(argv, cwd=release, check=True)
    listed = (release / "SHA256SUMS").read_text().split()[1::2]
    assert {*listed, "SHA256SUMS"} == {path.name for path in release.iterdir()}
    assert len(listed) == 10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tree_has_what_a_host_needs(release: Path, architecture: str) -> None:
    """Nothing for another machine or version of Python, nothing writable, at most 3 MiB."""
    with packed(release, architecture) as archive:
        members = archive.getmembers()
        names = [member.name.removeprefix("ebs-autoscale/") for member in members]
        assert [member.name for member in members] == sorted(member.name for member in members)
        assert {(each.uid, each.gid, each.uname) for each in members} == {(0, 0, "root")}
        assert {each.mode for each in members if each.isfile()} == {0o644, 0o755}
        assert [each.name for each in members if each.isfile() and each.mode == 0o755] == [
            f"ebs-autoscale/{name}" for name in PROGRAMS
        ]
        binary = archive.extractfile("ebs-autoscale/lib/psutil/_psutil_linux.abi3.so")
        assert binary is not None
        assert binary.read()[18] == MACHINE[architecture]
        assert Path(str(archive.name)).stat().st_size < SIZE_MAX
    assert [name for name in names if ".so" in name] == ["lib/psutil/_psutil_linux.abi3.so"]
    assert not [name for name in names if "__pycache__" in name]
    services = {name.split("/")[3] for name in names if re.match("lib/botocore/data/[^/]+/", name)}
    assert services == {"ec2", "sts"}
    assert {
        "LICENSE",
        "share/bash-completion/completions/ebs-autoscale",
        "share/ebs-autoscale/logrotate/ebs-autoscale",
        "share/ebs-autoscale/systemd/ebs-autoscale.catalog",
        "share/ebs-autoscale/systemd/ebs-autoscale.service",
        "share/ebs-autoscale/systemd/ebs-autoscale@.service",
        "share/man/man5/ebs-autoscale.yaml.5",
        "share/man/man8/ebs-autoscale.8",
    } <= set(names)


def test_a_dependency_with_another_hash_is_refused(tmp_path: Path) -> None:
    """Also when it is among the wheels of an earlier build."""
    lock = ROOT / "requirements.lock"
    folder = tmp_path / f"{sha256(lock.read_bytes()).hexdigest()[:16]}-x86_64"
    folder.mkdir()
    with ZipFile(folder / "psutil-9.whl", "w") as wheel:
        wheel.writestr("psutil-9.dist-info/METADATA", "Name: psutil\nVersion: 9\n")
    with pytest.raises(ValueError, match=r"psutil in .* has a hash"):
        locked(lock, "x86_64", tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_bill_of_materials_is_the_lock_file(release: Path, architecture: str) -> None:
    """Every locked package is named with its version and a locked hash, and is in the tree."""
    (path,) = release.glob(f"*-{architecture}.cdx.json")
    with packed(release, architecture) as archive:
        shipped = archive.extractfile("ebs-autoscale/share/ebs-autoscale/sbom.cdx.json")
        assert shipped is not None
        assert shipped.read() == path.read_bytes()
        names = archive.getnames()
    lock = (ROOT / "requirements.lock").read_text()
    components = json.loads(path.read_text())["components"]
    found = {f"{each['name'].lower()}=={each['version']}" for each in components}
    assert found == set(re.findall(r"^[a-z0-9-]+==[^ ]+", lock, re.MULTILINE))
    for each in components:
        assert f"sha256:{each['hashes'][0]['content']}" in lock
        folder = f"{each['name'].lower().replace('-', '_')}-{each['version']}.dist-info"
        assert f"ebs-autoscale/lib/{folder}/METADATA" in names


def test_it_runs_where_it_is_unpacked(tree: Path, tmp_path: Path) -> None:
    """Started by its path, by links to it, and through PATH; with packages of its own only."""
    program = tree / "bin/ebs-autoscale"
    link = tmp_path / "linked"
    link.symlink_to(os.path.relpath(program, tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ebs-autoscale").symlink_to(link)
    starts: list[tuple[str | Path, ...]] = [
        (program,),
        (link,),
        ("sh", "-c", "cd /; exec ebs-autoscale --version"),
        ("sh", "-c", f"cd '{tmp_path}'; exec ./linked --version"),
        ("sh", "-c", 'cd "$0"; export CDPATH=/usr; bin/ebs-autoscale --version', tree),
    ]
    for start in starts:
        options = () if start[0] == "sh" else ("--version",)
        done = run(*start, *options, path=f"{tmp_path}/bin:{ENVIRONMENT['PATH']}")
        assert (done.stdout, done.stderr) == (f"ebs-autoscale {__version__}\n", "")
    looks = (
        "import sys, boto3, daemon, psutil, yaml; print(sys.path); boto3.client('ec2', 'eu-west-1')"
    )
    argv = [HOST_PYTHON, "-I", "-S", str(tree / "lib"), "timeit", "-n1", "-r1", looks]
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    assert "-packages" not in done.stdout


def test_check_runs_from_a_tree(tree: Path) -> None:
    """It reports on this host, and nothing is missing from the installation."""
    done = run(tree / "bin/ebs-autoscale", "check", "/tmp", "--json")
    assert done.stderr == ""
    lines = json.loads(done.stdout)
    assert "installation" not in done.stdout
    assert lines


def test_its_units_start_the_program_in_the_tree(tree: Path) -> None:
    """What `init` installs as a unit is that of the tree, with its path."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from ebs_autoscale.host.systemd import _for_this_program, shipped;"
        "print(_for_this_program(shipped('systemd/ebs-autoscale.service')))"
    )
    done = run(HOST_PYTHON, "-I", "-S", "-c", code, tree / "lib")
    assert f"\nExecStart={tree}/bin/ebs-autoscale run --wait\n" in done.stdout


@pytest.mark.parametrize("old", ["exit 1", 'echo "no module" >&2; exit 1'])
def test_it_finds_a_python_that_is_new_enough(tree: Path, tmp_path: Path, old: str) -> None:
    """Beside an older python3, as on Amazon Linux 2023; without one it says what to install."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "readlink"):
        (folder / tool).symlink_to(f"/bin/{tool}")
    (folder / "python3").write_text(f"#!/bin/sh\n{old}\n")
    (folder / "python3").chmod(0o755)
    done = run(tree / "bin/ebs-autoscale", "--version", path=str(folder))
    assert (done.returncode, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert "3.11" in line
    (folder / "python3.11").symlink_to(HOST_PYTHON)
    done = run(tree / "bin/ebs-autoscale", "--version", path=str(folder))
    assert (done.stdout, done.stderr) == (f"ebs-autoscale {__version__}\n", "")
