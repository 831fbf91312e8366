"""The Debian trees of the boxes: made once by mmdebstrap, and cached outside the checkout."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.host.command import run

PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "procps"),
    *("btrfs-progs", "e2fsprogs", "xfsprogs", "logrotate", "cloud-init"),
    *("python3", "python3-venv"),
)
CACHE = Path("/var/cache/ebs-autoscale-tests")

# Measured: 26 s of CPU time for a tree, where debootstrap took 67 s. A slow mirror takes longer.
_BUILD_SECONDS = 900.0
_PIP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A root filesystem, and the wheels of the dependencies for its Python."""

    root: Path
    wheels: Path


def why_no_tree() -> str:
    """Why no tree can be made here; empty when it can."""
    if not (shutil.which("mmdebstrap") and shutil.which("apt-get")):
        return "no mmdebstrap: boxes need a Debian or Ubuntu host with it"
    return ""


def cached_tree(project: Path) -> Tree:
    """The tree of this host's release, and the wheels for this project.

    From the cache or made now, see `cached_root`.
    """
    root = cached_root(_suite())
    dependencies = tomllib.loads((project / "pyproject.toml").read_text())["project"][
        "dependencies"
    ]
    python = next((root / "usr/bin").glob("python3.*[0-9]")).name.removeprefix("python")
    wheels = made_once(
        CACHE / f"wheels-{_digest(*dependencies, python)}",
        lambda folder: _download(dependencies, python, folder),
    )
    return Tree(root, wheels)


def cached_root(suite: str) -> Path:
    """The root filesystem of a release of this host's distribution, from the cache or made now.

    Parallel test runs make it once; what a killed run left is made again. Raises RuntimeError when
    the mirror does not answer.
    """
    return made_once(CACHE / f"{suite}-{_digest(*PACKAGES)}", lambda root: _build(suite, root))


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a checkout, from a copy because setuptools writes into its sources."""
    copy = folder / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(project, copy, ignore=ignored)
    argv = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    _pip(*argv)
    shutil.rmtree(copy)
    return next(folder.glob("*.whl"))


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once for all processes that ask for it."""
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(place.with_name(f"{place.name}.lock")):
        if not place.exists():
            unfinished = place.with_name(f"{place.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(place)
    return place


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _build(suite: str, root: Path) -> None:
    mirror, components = _mirror()
    # When the test run is killed, everything that mmdebstrap has started is killed and unmounted,
    # so that it does not write into the folder of the next run.
    argv = ["setpriv", "--pdeathsig", "KILL"]
    argv += ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["mmdebstrap", "--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io"]
    argv += [f"--include={','.join(PACKAGES)}", f"--components={','.join(components)}"]
    _run([*argv, suite, str(root), mirror], seconds=_BUILD_SECONDS, **_proxies())


def _download(dependencies: list[str], python: str, folder: Path) -> None:
    argv = ["download", "--only-binary=:all:", "--python-version", python]
    _pip(*argv, "--dest", str(folder), *dependencies)


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def _suite() -> str:
    lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    named = dict(line.split("=", 1) for line in lines if "=" in line)
    return named["VERSION_CODENAME"].strip('"')


def _mirror() -> tuple[str, list[str]]:
    """The mirror and the components of the suite that apt on this host uses."""
    listing = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"],
        timeout_seconds=60,
    )
    found = [line.split() for line in listing.splitlines()]
    ours = [(uri, component) for uri, release, component in found if release == _suite()]
    uri = ours[0][0]
    return uri, list(dict.fromkeys(component for each, component in ours if each == uri))


def _proxies() -> dict[str, str]:
    shell = ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy"]
    shell += ["https_proxy", "Acquire::https::Proxy"]
    lines = run(shell, timeout_seconds=60).splitlines()
    return {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines)}


def _pip(*arguments: str) -> None:
    argv = [sys.executable, "-I", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*argv, *arguments], seconds=_PIP_SECONDS)


def _run(argv: list[str], *, seconds: float, **environment: str) -> None:
    """Run a tool with the environment of the test run, including proxies."""
    done = subprocess.run(
        argv,
        env={**os.environ, "LC_ALL": "C", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"{argv[0]} failed ({done.returncode}):\n{said}")
