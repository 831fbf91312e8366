"""The whole product on this machine: a sandbox for EC2, real BTRFS, the real daemon."""

import json
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ec2_sandbox.client import Sandbox, SandboxState
from ec2_sandbox.devices.namespace import missing_requirement
from rich.console import Console

from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Exit, Stopped, Transient, Unfit
from ebs_autoscale.host.command import run as run_tool
from ebs_autoscale.units import format_size
from ebs_autoscale_demo.daemon import PROGRAM, Daemon, running_daemon
from ebs_autoscale_demo.filesystem import Scrubbed, scrub
from ebs_autoscale_demo.isolation import isolate
from ebs_autoscale_demo.preparation import (
    MOUNTPOINT,
    buy_first_volume,
    mounted_filesystem,
    simulated_ec2,
)
from ebs_autoscale_demo.progress import Scene
from ebs_autoscale_demo.screen import view_for_stdout
from ebs_autoscale_demo.verdict import Verdict
from ebs_autoscale_demo.watch import Watcher
from ebs_autoscale_demo.workload import Script, roomy_directory, write_script
from ebs_autoscale_demo.writer import Writer

# Its first look at EC2 takes the daemon 2 s, a growth under way at the end of the writing 8 s.
_IDLE_PATIENCE_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.1
_STATUS_TIMEOUT_SECONDS = 30.0
# The owner tag alone makes a volume the daemon's (design: tags).
_OWNER_TAG = "ebs-autoscale:owner"


def run(*, rate_bytes_per_second: int | None) -> int:
    """Play the demo and print what it proved; fails unless every promise was kept.

    Nothing of it is left afterwards, whatever ends it. Raises Unfit where it cannot run.
    """
    if reason := missing_requirement("btrfs"):
        raise Unfit(f"no demo here: {reason}", cause="demo")
    directory = roomy_directory()
    if (code := isolate()) is not None:
        return code
    clock = SystemClock()
    clock.stop_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    scene = Scene(clock)
    try:
        with Watcher(scene, view_for_stdout()):
            verdict = _play(scene, directory, rate_bytes_per_second, clock)
    except Stopped:
        return Exit.FAILED
    verdict.print_to(Console(file=sys.stdout))
    return Exit.FAILED if any(verdict.failures()) else Exit.FINE


def _play(scene: Scene, directory: Path, rate: int | None, clock: SystemClock) -> Verdict:
    scene.act = "measuring the disk"
    script = scene.script = write_script(directory, rate, clock)
    scene.act = "starting a sandbox that simulates EC2"
    with simulated_ec2(directory) as sandbox:
        scene.act = f"buying the first volume, {script.first_gib} GiB"
        node = buy_first_volume(sandbox, script, clock)
        bought_calls = len(sandbox.journal())
        scene.act = f"making a BTRFS filesystem on /dev/{node}"
        with mounted_filesystem(node, script, clock):
            scene.filesystem = BtrfsFilesystem(str(MOUNTPOINT), clock=clock)
            facts = _with_daemon(scene, script, sandbox, clock)
            scene.leave_filesystem()
        scene.act = "done"
        calls = [call for call in sandbox.journal()[bought_calls:] if call.action != "IMDS"]
        return _verdict(scene, facts, Counter(call.action for call in calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    writer: Writer
    wrong_files: list[Path]
    scrubbed: Scrubbed
    status: dict[str, Any]
    leaked: tuple[str, ...]
    problems: tuple[str, ...]
    daemon_status: int


def _with_daemon(scene: Scene, script: Script, sandbox: Sandbox, clock: SystemClock) -> _Facts:
    with running_daemon() as daemon:
        scene.act = f"starting the daemon: {' '.join(PROGRAM)} run"
        scene.daemon = daemon
        _wait_idle(scene, daemon, clock)
        writer = scene.writer = Writer(MOUNTPOINT, clock=clock)
        scene.act = (
            f"writing {format_size(script.data_bytes)} of checksummed data, "
            f"{format_size(int(script.rate_bytes_per_second))} each second"
        )
        writer.fill(
            script.data_bytes,
            rate_bytes_per_second=script.rate_bytes_per_second,
            between=daemon.require_alive,
        )
        scene.act = "reading everything back, comparing checksums"
        wrong_files = writer.verify()
        _wait_idle(scene, daemon, clock)
        scene.act = "scrubbing: BTRFS compares its own checksums"
        status = _status(clock)
        scrubbed = scrub(MOUNTPOINT, [member["devid"] for member in status["members"]])
        state = sandbox.state()
        scene.act = "stopping the daemon"
        return _Facts(
            writer=writer,
            wrong_files=wrong_files,
            scrubbed=scrubbed,
            status=status,
            leaked=_leaked(state, status),
            problems=state.problems,
            daemon_status=daemon.stop(),
        )


def _leaked(state: SandboxState, status: dict[str, Any]) -> tuple[str, ...]:
    names = {member["name"] for member in status["members"]}
    ours = (volume for volume in state.volumes if _OWNER_TAG in volume.tags)
    return tuple(volume.id for volume in ours if volume.node not in names)


def _wait_idle(scene: Scene, daemon: Daemon, clock: SystemClock) -> None:
    deadline = clock.now_seconds() + _IDLE_PATIENCE_SECONDS
    while not scene.daemon_is_idle:
        daemon.require_alive()
        if clock.now_seconds() > deadline:
            raise Transient(
                f"the daemon is still at work after {_IDLE_PATIENCE_SECONDS:.0f} s: {scene.doing}",
                cause="daemon",
            )
        clock.sleep(_LOOK_EVERY_SECONDS)


def _status(clock: SystemClock) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(
        run_tool(
            [*PROGRAM, "status", "--json"],
            timeout_seconds=_STATUS_TIMEOUT_SECONDS,
            stopping=lambda: clock.stopping,
        )
    )
    return status


def _verdict(scene: Scene, facts: _Facts, calls: Counter[str]) -> Verdict:
    return Verdict(
        growth_seconds=tuple(scene.stopwatch.growth_seconds),
        size_bytes=facts.status["size_bytes"],
        members=len(facts.status["members"]),
        written_bytes=facts.writer.written_bytes,
        files=facts.writer.file_count,
        wrong_files=tuple(facts.wrong_files),
        enospc=facts.writer.enospc,
        scrubbed=facts.scrubbed,
        ec2_calls=calls,
        leaked=facts.leaked,
        problems=facts.problems,
        daemon_status=facts.daemon_status,
        seconds=scene.elapsed_seconds,
    )
