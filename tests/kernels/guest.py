"""Kernel tests on another kernel: user-mode Linux, which runs as an ordinary process."""

import os
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_PROJECT = _HERE.parents[1]
# Only what is used is taken from the host. With 2 GiB, writeback begins at less than tests write.
_MEMORY = "4G"
_DISK_BYTES = 32 * 1024**3  # sparse: 100 MiB are used at the end of all kernel tests
# Each page of a process of the guest may be a mapping of its own on the host, where with the usual
# 65,530 Python ends with "ran out of memory on the host side". Ubuntu 24.04 and Fedora have this
# value from the start, and it stays: it limits, and reserves nothing.
_MAPPINGS = 1_048_576
_OPTIONS = (
    # Two adds at the same moment need two CPUs, and user-mode Linux has one.
    "--deselect=tests/kernel/test_btrfs_balance.py::test_the_phantom_of_two_adds_is_named",
    # System calls take several times as long.
    "--deselect=tests/kernel/test_btrfs_reading.py::test_a_reading_takes_microseconds",
    # That kernel aborts the transaction by itself, before any device is added: docs/metadata.md.
    "--deselect=tests/kernel/test_btrfs_reserve.py::test_writers_that_retry_on_enospc[metadata]",
    # Processes that are left behind by design may end as late as in another test.
    "-Wdefault::pytest.PytestUnraisableExceptionWarning",
)
_MAPPINGS_MAX = Path("/proc/sys/vm/max_map_count")


class GuestFailed(AssertionError):
    """The other kernel did not boot, died or took too long; has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Results:
    """What the tests on a kernel came to, by the names that pytest gives them."""

    release: str
    """The version of the kernel, as `uname -r` prints it."""
    passed: list[str]
    skipped: dict[str, str]
    failed: dict[str, str]
    """Why; also of tests whose fixtures failed."""

    @property
    def summary(self) -> str:
        """The counts, in a line."""
        counts = (
            f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        )
        return f"kernel tests on Linux {self.release}: {counts}"

    @property
    def wrong(self) -> str:
        """What did not pass, and why: a test that is skipped has proved nothing."""
        told = {**self.failed, **self.skipped}
        return "\n".join(f"{name}: {reason}" for name, reason in told.items())


def why_no_guest() -> str:
    """Why no other kernel can be started here; empty when it can."""
    if os.geteuid() != 0:
        return "not root: a read-only view of this host for another kernel needs mounts"
    if not shutil.which("linux.uml"):
        return "no user-mode Linux: install the package user-mode-linux (Debian on x86_64)"
    return ""


def run_tests(*selection: str, folder: Path, seconds: float) -> Results:
    """Boot the other kernel, run these tests of the checkout on it, and power it off.

    All of it takes so many seconds at most. `folder` is empty, and what it writes is there. Raises
    GuestFailed.
    """
    shared = folder / "shared"
    shared.mkdir()
    # Hypothesis would look for its examples in the checkout, which is read-only.
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    argv += [*_OPTIONS, "-v", "--junitxml=/mnt/results.xml", *selection]
    settings = {"CI": "true", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": "/run"}
    lines = [f"export {name}={value}" for name, value in settings.items()]
    lines += [f"cd {shlex.quote(str(_PROJECT))}", shlex.join(argv)]
    (shared / "command").write_text("\n".join(lines) + "\n", "utf-8")
    _make_disk(folder / "disk")
    _allow_mappings()
    console = _boot(folder, seconds=seconds)
    return _results(shared, console)


def _make_disk(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(_DISK_BYTES)
    options = ["-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1"]
    subprocess.run(["mkfs.ext4", "-q", *options, str(place)], check=True)


def _allow_mappings() -> None:
    if int(_MAPPINGS_MAX.read_text("ascii")) < _MAPPINGS:
        _MAPPINGS_MAX.write_text(str(_MAPPINGS), "ascii")


def _boot(folder: Path, *, seconds: float) -> str:
    """Run the kernel until it powers off; returns what it said."""
    places = [_PROJECT, Path(sys.prefix), Path(sys.base_prefix), Path("/usr")]
    filesystems = sorted({"/", *(_mountpoint(place) for place in places)})
    # When this process is killed, so is everything in the pid namespace.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]
    argv += ["--kill-child", "sh", str(_HERE / "start.sh")]
    argv += [str(folder), str(_HERE / "init.sh"), _MEMORY, *filesystems]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = _decoded(error.stdout)
        raise _failed(f"took more than {seconds:.0f} s", folder / "shared", said) from None
    return done.stdout


def _decoded(output: str | bytes | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def _mountpoint(place: Path) -> str:
    return str(next(each for each in (place, *place.parents) if each.is_mount()))


def _results(shared: Path, console: str) -> Results:
    try:
        status = int((shared / "status").read_text("ascii"))
        cases = ET.parse(shared / "results.xml").iter("testcase")  # noqa: S314 -- pytest wrote it
        release = (shared / "release").read_text("ascii").strip()
    except (FileNotFoundError, ValueError, ET.ParseError) as error:
        raise _failed(f"left no results ({error})", shared, console) from None
    results = Results(release, [], {}, {})
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        told = {each.tag: f"{each.get('message')}\n{each.text}" for each in case}
        if failed := told.get("failure") or told.get("error"):
            results.failed[name] = failed
        elif (skipped := told.get("skipped")) is not None:
            results.skipped[name] = skipped
        else:
            results.passed.append(name)
    if status and not results.failed:
        raise _failed(f"ran pytest, which exited with {status}", shared, console)
    return results


def _failed(what: str, shared: Path, console: str) -> GuestFailed:
    output = shared / "output"
    said = output.read_text("utf-8", "replace") if output.exists() else "no test began"
    tail = "\n".join(console.splitlines()[-20:] + said.splitlines()[-30:])
    return GuestFailed(f"user-mode Linux {what}:\n{tail}")
