"""The .deb and the .rpm: the files of the tree, and the same scripts."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ebs_autoscale import __version__
from release import __main__ as dist
from release.trees import PROGRAMS
from tests.release import ROOT, built, unpack, unpack_rpm

# e_machine of an ELF file, see elf(5).
MACHINE = {"x86_64": 62, "aarch64": 183}

_NEEDS = pytest.mark.skipif(
    not (shutil.which("dpkg-deb") and shutil.which("rpm") and os.geteuid() == 0),
    reason="needs dpkg-deb, rpm, and root to unpack both",
)
# What Debian and Fedora put in different places.
_PLACES = {
    "zsh/vendor-completions/_ebs-autoscale": "zsh/site-functions/_ebs-autoscale",
    "doc/ebs-autoscale/copyright": "licenses/ebs-autoscale/LICENSE",
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all files."""
    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def deb(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked Debian package, with its control files in DEBIAN."""
    (package,) = release.glob("*_amd64.deb")
    root = tmp_path_factory.mktemp("deb") / "root"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(root)], check=True)
    return root


def query(package: Path, *options: str) -> str:
    """What rpm says about a package."""
    argv = ["rpm", "--query", "--package", *options, str(package)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@_NEEDS
def test_the_debian_package_is_the_tree(release: Path, deb: Path, tmp_path: Path) -> None:
    """In /opt, with units, man pages and completion where they are sought, and a link in PATH."""
    tree = unpack(release, tmp_path / "tree")
    app = deb / "opt/ebs-autoscale"
    argv = ["diff", "--recursive", str(tree), str(app)]
    assert subprocess.run(argv, check=False, capture_output=True).stdout == b""
    assert str((deb / "usr/bin/ebs-autoscale").readlink()) == "/opt/ebs-autoscale/bin/ebs-autoscale"
    for name in (
        "usr/lib/systemd/system/ebs-autoscale.service",
        "usr/lib/systemd/system/ebs-autoscale@.service",
        "usr/lib/systemd/catalog/ebs-autoscale.catalog",
        "usr/share/man/man8/ebs-autoscale.8",
        "usr/share/man/man5/ebs-autoscale.yaml.5",
        "etc/logrotate.d/ebs-autoscale",
        *(f"usr/share/{name}" for name in _PLACES),
    ):
        assert (deb / name).is_file(), name
    control = (deb / "DEBIAN/control").read_text()
    assert f"Version: {__version__}\nArchitecture: amd64\n" in control
    assert "\nMaintainer: The ebs-autoscale authors\n" in control
    assert (deb / "DEBIAN/conffiles").read_text() == "/etc/logrotate.d/ebs-autoscale\n"


@_NEEDS
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_rpm_is_the_debian_package(
    release: Path, deb: Path, tmp_path: Path, architecture: str
) -> None:
    """As rpm itself installs it: the same files with the same modes, in Fedora's places."""
    unpack_rpm(release, tmp_path, architecture=architecture)
    expected = {
        str(path.relative_to(deb)): path
        for path in deb.rglob("*")
        if not path.is_dir() and path.relative_to(deb).parts[0] != "DEBIAN"
    }
    for debian, fedora in _PLACES.items():
        expected[f"usr/share/{fedora}"] = expected.pop(f"usr/share/{debian}")
    found = {
        str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if not path.is_dir()
    }
    assert found.keys() == expected.keys()
    for name, path in found.items():
        if name.endswith(".so"):
            assert path.read_bytes()[18] == MACHINE[architecture], name
        if name.endswith(("sbom.cdx.json", ".so")) and architecture != "x86_64":
            continue
        assert path.lstat().st_mode == expected[name].lstat().st_mode, name
        if path.is_symlink():
            assert path.readlink() == expected[name].readlink()
        else:
            assert path.read_bytes() == expected[name].read_bytes(), name


@_NEEDS
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_an_rpm_says_what_it_needs(release: Path, architecture: str) -> None:
    """A Python of any name, btrfs-progs where there is one; and nothing of the build host."""
    (package,) = release.glob(f"*.{architecture}.rpm")
    needed = query(package, "--requires").splitlines()
    assert {each for each in needed if not each.startswith("rpmlib(")} == {
        "/bin/sh",
        f"config(ebs-autoscale) = {__version__}-1",
        "python(abi) >= 3.11",
        "util-linux",
    }
    # Features that every rpm since 4.6 has; an unknown one is an error.
    rpmlib = {each.split("(")[1].split(")")[0] for each in needed if each.startswith("rpmlib(")}
    assert rpmlib <= {"CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix"}
    assert query(package, "--recommends") == "btrfs-progs\n"
    told = query(package, "--queryformat", "%{ARCH} %{BUILDHOST} %{PAYLOADCOMPRESSOR} %{OS}")
    assert told == f"{architecture} localhost gzip linux"
    assert query(package, "--configfiles") == "/etc/logrotate.d/ebs-autoscale\n"
    argv = ["rpm", "--checksig", "--verbose", str(package)]
    subprocess.run(argv, check=True, capture_output=True)


@_NEEDS
def test_both_run_the_same_scripts(release: Path, deb: Path, tmp_path: Path) -> None:
    """But for the line that tells an upgrade from a removal; and shellcheck finds no fault."""
    (package,) = release.glob("*.x86_64.rpm")
    pairs = {"preinst": "PREIN", "postinst": "POSTIN", "prerm": "PREUN", "postrm": "POSTUN"}
    scripts = []
    for debian, fedora in pairs.items():
        ours = (deb / "DEBIAN" / debian).read_text()
        theirs = "#!/bin/sh\n" + query(package, "--queryformat", f"%{{{fedora}}}")
        assert theirs.splitlines()[3:] == ours.splitlines()[3:]
        assert len(ours.splitlines()) > 6
        scripts += [deb / "DEBIAN" / debian, tmp_path / fedora]
        (tmp_path / fedora).write_text(theirs)
    linter = Path(sys.executable).parent / "shellcheck"
    programs = [deb / "opt/ebs-autoscale" / name for name in PROGRAMS]
    argv = [str(linter), "--shell=sh", *map(str, [*programs, *scripts])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_locks_are_within_the_ranges() -> None:
    """`make lock` was run after the last change of a range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ranges = {
        "requirements.lock": project["project"]["dependencies"],
        "release/requirements.lock": project["dependency-groups"]["release"],
    }
    for lock, wanted in ranges.items():
        locked = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for each in map(Requirement, wanted):
            assert locked[each.name.lower()] in each.specifier, each
            assert any(bound.operator == "<" for bound in each.specifier), each


def test_other_tools_than_the_locked_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and nothing is built: the hashes would be other ones."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("setuptools==1.2.3 \\\n    --hash=sha256:0\n")
    monkeypatch.setattr(dist, "TOOLS", lock)
    monkeypatch.setattr(sys, "argv", ["make dist", "--into", str(tmp_path / "into")])
    with pytest.raises(SystemExit, match=f"setuptools {version('setuptools')} is installed, 1.2.3"):
        dist.main()
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "into").exists()
