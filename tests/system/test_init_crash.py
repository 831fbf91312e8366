"""kill -9 at every boundary of `init`, and anywhere: run again, it ends in the same state."""

import os
import random
import shutil
from pathlib import Path
from threading import Event
from typing import Literal

import pytest

from ebs_autoscale.sandbox.faults import FaultKind, FaultRule
from tests.system.bare import CloudHost, kill
from tests.system.bench import until

pytestmark = pytest.mark.kernel

HELD_SECONDS = 1.0
# A run takes 3 s, most of it a wait for the volume.
LONGEST_LIFE_SECONDS = 3.2

# A tool that stops before or after the real one has done its work.
HELD_TOOL = """#!/bin/sh
{before}
touch "{reached}"
exec sleep 60
"""


def finish(host: CloudHost) -> None:
    """Run it to its end, and see that nothing was done twice."""
    ran = host.init("--size", "1GiB")
    assert ran.returncode == 0, ran.stderr
    host.assert_ready()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", ["CreateVolume", "AttachVolume"])
def test_kill_around_a_call(
    cloud_host: CloudHost, action: str, when: Literal["before", "after"]
) -> None:
    """Killed before or after a call took effect, the next run ends with one volume."""
    rule = FaultRule(kind=FaultKind.DELAY, action=action, when=when, seconds=HELD_SECONDS, times=1)
    cloud_host.sandbox.add_fault(rule)
    process = cloud_host.start("--size", "1GiB")
    until(lambda: cloud_host.sandbox.calls(action), f"the call of {action}")
    kill(process, with_children=True)
    finish(cloud_host)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("tool", ["mkfs.btrfs", "mount"])
def test_kill_around_a_tool(
    cloud_host: CloudHost, tmp_path: Path, tool: str, *, done: bool
) -> None:
    """Killed before or after a tool did its work, the next run goes on from there."""
    reached, path = held_tool(tmp_path, tool, done=done)
    process = cloud_host.start("--size", "1GiB", PATH=path)
    until(reached.exists, tool)
    kill(process, with_children=True)
    finish(cloud_host)


def held_tool(folder: Path, name: str, *, done: bool) -> tuple[Path, str]:
    """The sign that it has stopped, and a PATH in which it comes first."""
    reached, tool = folder / "reached", folder / "tools" / name
    tool.parent.mkdir()
    before = f'{shutil.which(name)} "$@" || exit' if done else ":"
    tool.write_text(HELD_TOOL.format(before=before, reached=reached), "utf-8")
    tool.chmod(0o755)
    return reached, f"{tool.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("seed", [1, 2])
def test_five_times_killed_anywhere(cloud_host: CloudHost, seed: int) -> None:
    """Killed four times at random, with or without its tools, the fifth run is as the first."""
    dice = random.Random(seed)  # noqa: S311 -- repeatable
    pause = Event()
    for _ in range(4):
        process = cloud_host.start("--size", "1GiB")
        pause.wait(dice.uniform(0.1, LONGEST_LIFE_SECONDS))
        kill(process, with_children=dice.random() < 0.5)
    finish(cloud_host)
