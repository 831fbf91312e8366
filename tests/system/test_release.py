"""The unpacked release does what the installed program does."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.release import ENVIRONMENT, built, unpack
from tests.system.bench import Host, until

pytestmark = pytest.mark.kernel


class UnpackedHost(Host):
    """A host on which nothing is installed, with a release in a folder."""

    tree: Path

    @property
    def argv(self) -> list[str]:
        """The command line up to the verb."""
        return [str(self.tree / "bin/ebs-autoscale"), "--config", str(self.config)]


@pytest.fixture
def host(
    make_host: Callable[..., Host], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> UnpackedHost:
    """Such a host, whose EC2 answers at once."""
    made = make_host()
    host = UnpackedHost(made.sandbox, mountpoint=made.mountpoint, folder=made.folder)
    host.environment = {**ENVIRONMENT, **made.sandbox.environment}
    host.tree = unpack(built(tmp_path_factory), tmp_path / "un packed")
    return host


def test_a_growth_from_an_unpacked_release(host: UnpackedHost) -> None:
    """Its daemon grows the filesystem, in processes that all run from the tree."""
    tested = host.run("run", "--test")
    assert tested.returncode == 0, tested.stderr
    started: set[tuple[str, ...]] = set()
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        host.fill(25)

        def grown() -> bool:
            for child in daemon.children():
                try:
                    started.add(tuple(child.cmdline()[1:5]))
                except psutil.NoSuchProcess:
                    continue
            return '"growth_done"' in daemon.log

        until(grown, "the growth")
        assert daemon.stop() == 0
    assert ("-I", "-S", str(host.tree / "lib"), "ebs_autoscale") in started
    assert host.devices == 2
    assert host.run("status").returncode == 0
