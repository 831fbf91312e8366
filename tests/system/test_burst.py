"""A burst into the page cache, on a volume that could not take it so fast."""

import subprocess
from pathlib import Path
from threading import Event

import pytest

from ebs_autoscale.host.paths import CONFIG_DEFAULT
from ebs_autoscale.model import DecisionKind
from ebs_autoscale.telemetry import EventKind
from tests.bench.writer import write
from tests.program import PROGRAM
from tests.system.bare import CloudHost
from tests.system.bench import GIB, Daemon

pytestmark = pytest.mark.kernel


def test_an_unpacked_image_creates_nothing(cloud_host: CloudHost, tmp_path: Path) -> None:
    """1.2 GiB in 2 s fit into 20 GiB, and a gp3 volume takes 125 MiB/s of what would follow.

    Less than the page cache of a host with 6 GiB of memory takes.
    """
    assert cloud_host.init("--size", "20GiB").returncode == 0
    text = CONFIG_DEFAULT.read_text("utf-8")
    CONFIG_DEFAULT.write_text(f"{text}\nlogging: {{format: json}}\npoll: {{max: 500ms}}\n", "utf-8")
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*PROGRAM, "run"],
            env=cloud_host.environment,
            stderr=file,
        ) as process,
    ):
        daemon = Daemon(process, log)
        try:
            daemon.wait_event(EventKind.DECIDED, decision=DecisionKind.HOLD)
            image = cloud_host.mountpoint / "image"
            ended = write(image, rate=0.6 * GIB, most_bytes=int(1.2 * GIB), fsync=False)
            Event().wait(2.0)
        finally:
            daemon.kill()
    assert ended["errno"] == 0
    assert len(cloud_host.volumes()) == 1
