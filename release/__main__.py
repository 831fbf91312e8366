"""Build everything that a release consists of: `make dist`."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from release.archives import read_tar_gz, tar_gz
from release.packages import DEBIAN_NAMES, debian, rpm
from release.sbom import sbom
from release.trees import tree
from release.wheels import locked, read

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
TOOLS = ROOT / "release/requirements.lock"

_BUILD = "import sys, setuptools.build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"


def main() -> None:
    """Build, and put everything with its hashes into a folder that has nothing else afterwards."""
    parser = argparse.ArgumentParser(prog="make dist", description=main.__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="the folder [dist]")
    folder = parser.parse_args().into
    # The modes of what setuptools writes.
    os.umask(0o022)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    with tempfile.TemporaryDirectory(prefix="ebs-autoscale-dist-") as scratch:
        try:
            _require_locked_tools()
            built = dict(_build(Path(scratch), epoch))
        except (ValueError, subprocess.CalledProcessError) as error:
            sys.exit(f"cannot build the release: {error}")
    sums = [f"{sha256(built[name]).hexdigest()}  {name}\n" for name in sorted(built)]
    built["SHA256SUMS"] = "".join(sums).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*ebs?autoscale*"):
        old.unlink()
    for name, content in built.items():
        (folder / name).write_bytes(content)
    for name in sorted(built):
        print(f"{len(built[name]):>10,} {folder / name}")


def _build(scratch: Path, epoch: int) -> Iterator[tuple[str, bytes]]:
    """The files of the release, each with its name."""
    source = scratch / "source"
    _copy_tracked(source)
    out = scratch / "out"
    out.mkdir()
    for what in ("sdist", "wheel"):
        _run([sys.executable, "-W", "ignore", "-c", _BUILD, what, str(out)], cwd=source)
    (wheel,) = out.glob("*.whl")
    yield wheel.name, wheel.read_bytes()
    (sdist,) = out.glob("*.tar.gz")
    yield sdist.name, tar_gz(read_tar_gz(sdist.read_bytes()), epoch=epoch)
    product = read(wheel)
    for architecture in DEBIAN_NAMES:
        dependencies = locked(LOCK, architecture, ROOT / "build/wheels")
        bom = sbom(product, dependencies, epoch=epoch)
        files = tree(source, product, dependencies, bom)
        name = f"ebs-autoscale-{product.metadata['Version']}-linux-{architecture}"
        inside = {f"ebs-autoscale/{path}": entry for path, entry in files.items()}
        yield f"{name}.tar.gz", tar_gz(inside, epoch=epoch)
        yield f"{name}.cdx.json", bom
        yield debian(files, product, architecture, epoch=epoch)
        yield rpm(files, product, architecture, epoch=epoch)


def _require_locked_tools() -> None:
    """Raise ValueError unless the tools are those that everybody builds this release with."""
    for name, locked_version in re.findall(r"^([\w-]+)==(\S+)", TOOLS.read_text(), re.MULTILINE):
        if version(name) != locked_version:
            raise ValueError(
                f"{name} {version(name)} is installed, {locked_version} is locked: "
                "run `rm .venv/.dev-ready`, then `make dist`"
            )


def _copy_tracked(folder: Path) -> None:
    """What git tracks, without what else lies in the checkout, and with the same modes for all."""
    for name in _git("ls-files", "-z").split("\0"):
        path = ROOT / name
        if name and path.is_file():
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _git(*arguments: str) -> str:
    # Also in a clone of another user, as after `sudo make`.
    return _run(["git", "-c", "safe.directory=*", *arguments], cwd=ROOT)


def _run(argv: list[str], *, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"`{' '.join(argv)}` failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
