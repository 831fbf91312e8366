"""The locked dependencies of one architecture, and what a host needs of them."""

import re
import subprocess
import sys
import tempfile
from email.message import Message
from email.parser import Parser
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from release.archives import Entry

# EC2, and STS for credentials of an assumed role or a web identity.
_APIS = ("ec2/2016-11-15/", "sts/2011-06-15/")
_DROPPED = re.compile(
    rf"""
    (?!botocore/data/(?:{"|".join(_APIS)}|[^/]+$))botocore/data/   # the APIs of all other services
    | botocore/data/.*/examples-1\.json$
    | boto3/(?:data|examples)/            # boto3's resources, which build upon those
    | _yaml/ | yaml/_yaml\..*\.so$        # for one version of Python only; PyYAML does without
    | .*\.dist-info/(?!METADATA$|licen[cs]e|copying|notice)
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What a wheel installs outside of the library: `NAME.data/data/share/...`
_DATA = re.compile(r"[^/]+\.data/data/(share/.*)")

# Their tags are those of a host with Python 3.11; the one binary that is kept suits all later ones.
_TAGS = ("--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


class Wheel(NamedTuple):
    """A wheel: its metadata, the hash of the file, and the files for a tree."""

    metadata: Message
    sha256: str
    files: dict[str, Entry]


def locked(lock: Path, architecture: str, kept: Path) -> list[Wheel]:
    """The wheels of a lock file, verified by its hashes; downloaded if they are not in `kept` yet.

    Raises CalledProcessError when they cannot be downloaded, and ValueError for a wrong hash.
    """
    text = lock.read_bytes()
    folder = kept / f"{sha256(text).hexdigest()[:16]}-{architecture}"
    if not folder.is_dir():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            unfinished = Path(scratch, "wheels")
            _download(lock, architecture, unfinished)
            unfinished.rename(folder)
    wheels = [read(path) for path in sorted(folder.glob("*.whl"))]
    for wheel in wheels:
        if wheel.sha256 not in text.decode():
            name = wheel.metadata["Name"]
            raise ValueError(f"{name} in {folder} has a hash that is not in {lock.name}")
    return wheels


def _download(lock: Path, architecture: str, folder: Path) -> None:
    platforms = [f"--platform={each}_{architecture}" for each in _PLATFORMS]
    argv = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download"]
    argv += ["--require-hashes", "--no-deps", "--only-binary=:all:", *_TAGS, *platforms]
    subprocess.run([*argv, "--requirement", str(lock), "--dest", str(folder)], check=True)


def read(path: Path) -> Wheel:
    """A wheel, reduced to what a host needs."""
    files = {}
    metadata = Message()
    with ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename
            if name.endswith(".dist-info/METADATA"):
                metadata = Parser().parsestr(archive.read(info).decode())
            if info.is_dir() or _DROPPED.match(name):
                continue
            if data := _DATA.fullmatch(name):
                files[data[1]] = Entry(archive.read(info))
            elif ".data/" not in name:
                files[f"lib/{name}"] = Entry(archive.read(info))
    return Wheel(metadata, sha256(path.read_bytes()).hexdigest(), files)
