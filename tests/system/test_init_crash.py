"""`init` after kill -9 at every boundary and at random: run again, it ends in the same state."""

import os
import random
import shutil
from pathlib import Path
from threading import Event
from typing import Literal

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from tests.system.bare import CONFIG, CloudHost, kill
from tests.system.bench import until

pytestmark = pytest.mark.kernel

HELD_SECONDS = 1.0
# A run takes 3 s, most of it a wait for the volume.
LONGEST_LIFE_SECONDS = 3.2

# A tool that stops before or after the real one has done its work.
HELD_TOOL = """#!/bin/sh
{work}
touch "{reached}"
exec sleep 60
"""

# All that mkfs.btrfs writes but the magic of the superblocks, which comes last.
UNFINISHED = """
{} "$@" || exit
for node; do :; done
for place in 65600 67108928; do
    printf '!BHRfS_M' | dd of="$node" bs=1 seek=$place conv=notrunc,fsync status=none || exit
done
"""


def finish(host: CloudHost) -> None:
    """Run it to its end, and see that nothing was done twice."""
    ran = host.init("--size", "1GiB")
    assert ran.returncode == 0, ran.stderr
    host.assert_ready()


def look_and_uninstall(host: CloudHost) -> None:
    """Wherever it died, `uninstall` undoes it, and each verb names what is there.

    A call that was on its way may take effect after the death.
    """
    status, check, uninstall = (host.run(verb) for verb in ("status", "check", "uninstall"))
    if host.mounts:
        assert status.returncode == 0, status.stderr
        assert f"kept {host.mountpoint}" in uninstall.stdout
    else:
        assert status.returncode == 5
        for ran in (status, check):
            assert f"`ebs-autoscale init {host.mountpoint}`" in " ".join(ran.stdout.split())
        for volume in host.volumes():
            assert volume.id in uninstall.stdout
            assert volume.id in check.stdout or volume.state == "available"
    assert uninstall.returncode == 0, uninstall.stderr
    assert not CONFIG.exists()
    assert len(host.volumes()) == 1


@pytest.mark.parametrize(
    ("action", "when"),
    [
        ("CreateVolume", "before"),
        ("CreateVolume", "after"),
        ("AttachVolume", "before"),
        ("AttachVolume", "after"),
        ("ModifyInstanceAttribute", "before"),
    ],
)
def test_kill_around_a_call(
    cloud_host: CloudHost, action: str, when: Literal["before", "after"]
) -> None:
    """Killed before or after a call took effect, the next run ends with one volume."""
    rule = FaultRule(kind=FaultKind.DELAY, action=action, when=when, seconds=HELD_SECONDS, times=1)
    cloud_host.sandbox.add_fault(rule)
    process = cloud_host.start("--size", "1GiB")
    until(lambda: cloud_host.sandbox.calls(action), f"the call of {action}")
    kill(process, with_children=True)
    look_and_uninstall(cloud_host)
    finish(cloud_host)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("tool", ["mkfs.btrfs", "mount"])
def test_kill_around_a_tool(cloud_host: CloudHost, tmp_path: Path, tool: str, when: str) -> None:
    """Killed before or after a tool did its work, the next run continues from there."""
    work = {"before": ":", "after": f'{shutil.which(tool)} "$@" || exit'}[when]
    kill_in_tool(cloud_host, tmp_path, tool, work)
    look_and_uninstall(cloud_host)
    finish(cloud_host)


def test_kill_inside_mkfs(cloud_host: CloudHost, tmp_path: Path) -> None:
    """Killed before mkfs.btrfs has finished, the next run formats again."""
    kill_in_tool(cloud_host, tmp_path, "mkfs.btrfs", UNFINISHED.format(shutil.which("mkfs.btrfs")))
    finish(cloud_host)


def kill_in_tool(host: CloudHost, folder: Path, name: str, work: str, *argv: str) -> None:
    """Run it with a tool that does this work and then stops, and kill both."""
    reached, tool = folder / "reached", folder / "tools" / name
    tool.parent.mkdir()
    tool.write_text(HELD_TOOL.format(work=work, reached=reached), "utf-8")
    tool.chmod(0o755)
    process = host.start(*argv, "--size", "1GiB", PATH=f"{tool.parent}:{os.environ['PATH']}")
    until(reached.exists, name)
    kill(process, with_children=True)


def test_five_times_killed_anywhere(cloud_host: CloudHost) -> None:
    """Killed four times at random, with or without its tools, the fifth run succeeds."""
    dice = random.Random(1)  # noqa: S311 -- repeatable
    pause = Event()
    for _ in range(4):
        process = cloud_host.start("--size", "1GiB")
        pause.wait(dice.uniform(0.1, LONGEST_LIFE_SECONDS))
        kill(process, with_children=dice.random() < 0.5)
    finish(cloud_host)
