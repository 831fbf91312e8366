"""What all tests share: a private world to make devices and mounts in, and no way out to AWS."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from threading import Event

import pytest
from botocore.loaders import JSONFileLoader
from ec2_sandbox.devices.failing import FailingDevice
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.devices.namespace import enter_private_namespace, missing_requirement
from ec2_sandbox.errors import HostUnfit
from hypothesis import settings

from ebs_autoscale.errors import CommandFailed, Unfit
from ebs_autoscale.host.command import run
from ebs_autoscale.host.paths import PARTITION_TABLES, RUNTIME_DIRECTORY
from tests.told import tell

LoopFactory = Callable[[int], LoopDevice]
BtrfsFactory = Callable[..., Path]

# A machine under load may take long for one example. `make test-unit` tries few of them.
settings.register_profile("full", settings(), deadline=None)
settings.register_profile("quick", settings(), deadline=None, max_examples=20, database=None)
settings.load_profile("full")

_REASON = pytest.StashKey[str]()
_MIB = 1024**2
_GIB = 1024**3


def pytest_configure(config: pytest.Config) -> None:
    """Leave the host's mounts, nodes and credentials outside before the first test is collected."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
    config.stash[_REASON] = missing_requirement("btrfs")
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    # The one other thread of a pytest-xdist worker only speaks with the process that started it.
    is_worker = hasattr(config, "workerinput")
    folders = [RUNTIME_DIRECTORY, PARTITION_TABLES]
    try:
        enter_private_namespace(folders=folders, leave_threads=is_worker)
    except HostUnfit as error:
        config.stash[_REASON] = config.stash[_REASON] or str(error)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal out the kernel tests, which wait for seconds, and let each worker begin with its share.

    `--dist worksteal` gives each worker a contiguous part, and others take from its end: one
    worker would run nearly all boxes, and the others end long before it. Each begins at another
    place of its share, since boxes that all boot at the same time are slow.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    kernel = [item for item in items if item.get_closest_marker("kernel")]
    quick = [item for item in items if not item.get_closest_marker("kernel")]
    dealt: list[pytest.Item] = []
    for each in range(workers):
        share = kernel[each::workers]
        first = len(share) * each // workers
        dealt += share[first:] + share[:first]
        dealt += quick[len(quick) * each // workers : len(quick) * (each + 1) // workers]
    items[:] = dealt


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip kernel tests where they cannot run, saying why; in CI that is a failure."""
    reason = item.config.stash[_REASON]
    if not reason or item.get_closest_marker("kernel") is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"kernel tests have to run in CI: {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the kernel tests by themselves: a run that skipped them has proved little."""
    outcomes = {"passed": ("passed",), "failed": ("failed", "error"), "skipped": ("skipped",)}
    counts = [
        f"{sum(_count_kernel(terminalreporter, key) for key in keys)} {outcome}"
        for outcome, keys in outcomes.items()
    ]
    terminalreporter.write_line(f"kernel tests: {', '.join(counts)}")
    tell(terminalreporter)


def _count_kernel(terminalreporter: pytest.TerminalReporter, outcome: str) -> int:
    reports = terminalreporter.stats.get(outcome, [])
    return sum("kernel" in getattr(report, "keywords", {}) for report in reports)


@pytest.fixture(scope="session", autouse=True)
def botocore_reads_once() -> Iterator[None]:
    """Let all sessions share botocore's data; parsing them takes a third of a second each time."""
    load = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


class FakeClock:
    """Time that passes only by waiting; `on_sleep` is what happens meanwhile."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.on_sleep: Callable[[], object] = lambda: None

    def now_seconds(self) -> float:
        """Seconds since nothing in particular."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Pass at once."""
        self.seconds += seconds
        self.on_sleep()


@pytest.fixture
def clock() -> FakeClock:
    """Give a test its own time."""
    return FakeClock()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[LoopFactory]:
    """Make block devices of a given size in bytes; they are gone after the test."""
    made: list[LoopDevice] = []

    def make(size_bytes: int) -> LoopDevice:
        made.append(LoopDevice.create(size_bytes, directory=_fast_folder(tmp_path)))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture
def failing_loop(tmp_path: Path) -> Iterator[Callable[[int], FailingDevice]]:
    """The same, for devices that can be made to fail, see FailingDevice.fail."""
    made: list[FailingDevice] = []

    def make(size_bytes: int) -> FailingDevice:
        made.append(FailingDevice.create(size_bytes, directory=_fast_folder(tmp_path)))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture
def btrfs_at(loop: LoopFactory, tmp_path: Path) -> Iterator[BtrfsFactory]:  # noqa: ARG001 -- outlives us
    """Make a filesystem on devices and mount it, by default on a new folder: its path."""
    mounted: list[Path] = []

    def make(*devices: LoopDevice, mkfs: tuple[str, ...] = (), at: Path | None = None) -> Path:
        point = at or tmp_path / f"scratch{len(mounted)}"
        point.mkdir(exist_ok=True)
        nodes = [device.node for device in devices]
        run(["mkfs.btrfs", "--quiet", *mkfs, *nodes], timeout_seconds=60)
        run(["mount", "-t", "btrfs", nodes[0], str(point)], timeout_seconds=60)
        mounted.append(point)
        return point

    yield make
    for point in reversed(mounted):
        _unmount_all(point)


@pytest.fixture
def foreign_balance() -> Callable[[Path], AbstractContextManager[Callable[[], None]]]:
    """Let somebody else balance a filesystem for a second or more; gives the way to cancel it."""
    return partial(
        _foreign, start=("balance", "start", "-d"), end=("balance", "cancel"), operation="balance"
    )


@pytest.fixture
def foreign_removal() -> Callable[[Path], AbstractContextManager[Callable[[], None]]]:
    """Let somebody else remove the first of two devices; gives the way to cancel it."""
    return partial(
        _foreign,
        start=("device", "remove", "1"),
        end=("device", "remove", "cancel"),
        operation="device remove",
    )


@contextmanager
def _foreign(
    path: Path, *, start: tuple[str, ...], end: tuple[str, ...], operation: str
) -> Iterator[Callable[[], None]]:
    def cancel() -> None:
        with suppress(CommandFailed):
            run(["btrfs", *end, str(path)], timeout_seconds=60)

    (path / "content").write_bytes(os.urandom(_MIB) * 600)
    run(["btrfs", "filesystem", "sync", str(path)], timeout_seconds=60)
    uuid = run(["findmnt", "-n", "-o", "UUID", str(path)], timeout_seconds=60).strip()
    published = Path(f"/sys/fs/btrfs/{uuid}/exclusive_operation")
    with ThreadPoolExecutor() as pool:
        work = pool.submit(run, ["btrfs", *start, str(path)], timeout_seconds=60)
        while published.read_text("ascii").strip() != operation and not work.done():
            Event().wait(0.001)
        try:
            yield cancel
        finally:
            cancel()
            work.exception()


def _unmount_all(point: Path) -> None:
    with suppress(CommandFailed, Unfit):
        while True:
            run(["umount", "--lazy", str(point)], timeout_seconds=60)


def _fast_folder(fallback: Path) -> Path:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return fallback
    room = os.statvfs(shm)
    return shm if room.f_bavail * room.f_frsize > 4 * _GIB else fallback
