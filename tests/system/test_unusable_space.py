"""EC2 is not asked for space that this host could not use, and it is told before it is needed."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from ec2_sandbox.journal import Call

from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.model import FilesystemKind
from tests.system.bench import Host, until
from tests.system.one_volume import one_volume_host

pytestmark = pytest.mark.kernel

# What a container has by default lacks it as well.
WITHOUT_CAPABILITY = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
LVM = "e6d6d379-f507-44c2-a23c-238f2a3df928"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Make a host with a filesystem on one volume; gone after the test."""
    shm = Path("/dev/shm")
    directory = shm if shm.is_dir() else tmp_path
    with ExitStack() as stack:

        def host(kind: FilesystemKind, table: str = "") -> Host:
            made = one_volume_host(
                tmp_path / "host", directory=directory, settings={}, kind=kind, table=table
            )
            return stack.enter_context(made)

        yield host


@contextmanager
def without(tool: str, folder: Path) -> Iterator[None]:
    """The tool is not installed; seen by the test run alone."""
    path, nothing = Path(shutil.which(tool) or "").resolve(), folder / "nothing"
    nothing.touch(mode=0o600)
    subprocess.run(["mount", "--bind", str(nothing), str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def of_type(host: Host, kind: str) -> Iterator[None]:
    """The table says that the partition is something else."""
    (device,) = host.read().devices
    argv = ["sfdisk", "--no-reread", "--no-tell-kernel", "--part-type", f"/dev/{device.name}", "2"]
    subprocess.run([*argv, kind], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*argv, LINUX], check=True, capture_output=True)


def asked(host: Host) -> list[Call]:
    """The requests to enlarge a volume; `check` rehearses one."""
    calls = host.sandbox.calls("ModifyVolume")
    return [call for call in calls if not call.params.get("DryRun")]


def assert_refused(host: Host, word: str, *, before: tuple[str, ...] = ()) -> None:
    """A growth says in a line that more space cannot be used, and EC2 is asked for nothing."""
    ran = host.run("grow", before=before)
    assert ran.returncode == Exit.UNFIT, ran.stderr
    assert word in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not asked(host)


def assert_checked(host: Host, word: str, *, before: tuple[str, ...] = ()) -> None:
    """`check` says so as well."""
    checked = host.run("check", before=before)
    assert checked.returncode == Exit.UNFIT
    assert word in checked.stdout


def test_xfs_on_a_partition(make: Callable[..., Host], tmp_path: Path) -> None:
    """Without a tool, and with a table that nobody may change."""
    host = make(FilesystemKind.XFS, "label: gpt")
    obstacles: dict[str, AbstractContextManager[None]] = {
        "xfs_growfs": without("xfs_growfs", tmp_path),
        "sfdisk": without("sfdisk", tmp_path),
        LVM: of_type(host, LVM),
    }
    for word, obstacle in obstacles.items():
        with obstacle:
            assert_refused(host, word)
    with of_type(host, LVM):
        assert_checked(host, LVM)

    with ExitStack() as missing:
        missing.enter_context(without("xfs_growfs", tmp_path))
        with host.daemon() as daemon:
            # Nothing is short yet.
            daemon.wait_event("condition_began", cause=Cause.MISSING_TOOL.value)
            host.fill(20)
            until(lambda: host.status()["daemon"]["low"], "the shortage")
            assert not asked(host)
            missing.close()
            until(lambda: asked(host), "it goes on")
            daemon.wait_event("condition_ended", cause=Cause.MISSING_TOOL.value)


def test_ext4_without_the_capability(make: Callable[..., Host]) -> None:
    """Not a message of resize2fs after the volume was enlarged."""
    host = make(FilesystemKind.EXT4)
    assert_refused(host, "CAP_SYS_RESOURCE", before=WITHOUT_CAPABILITY)
    assert_checked(host, "CAP_SYS_RESOURCE", before=WITHOUT_CAPABILITY)
