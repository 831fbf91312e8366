"""Run the demo: a simulated EC2, real BTRFS, and the real daemon under a steady writer."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ec2_sandbox.client import Sandbox, SandboxState
from ec2_sandbox.devices.namespace import missing_requirement
from ec2_sandbox.errors import HostUnfit, InputInvalid, SandboxError
from rich.console import Console

from ebs_autoscale_demo.clock import Stopped, now_seconds, sleep, stop_on_signals
from ebs_autoscale_demo.daemon import Daemon, running_daemon
from ebs_autoscale_demo.filesystem import Filesystem, Scrubbed, Space, scrub
from ebs_autoscale_demo.isolation import isolate
from ebs_autoscale_demo.preparation import (
    CONFIG,
    MOUNTPOINT,
    create_first_volume,
    mounted_filesystem,
    simulated_ec2,
    write_configuration,
)
from ebs_autoscale_demo.progress import Progress
from ebs_autoscale_demo.screen import Refresher, Screen, screen_for_stdout
from ebs_autoscale_demo.sizes import format_size
from ebs_autoscale_demo.verdict import Verdict
from ebs_autoscale_demo.workload import Workload, choose_workload, storage_directory
from ebs_autoscale_demo.writer import Writer

# The exit codes of `ebs-autoscale`, as its man page lists them.
_EXIT_OK = 0
_EXIT_FAILED = 1
_EXIT_USAGE = 2
_EXIT_UNFIT = 5

# The daemon is idle 2 s after its start, and 8 s after the end of the writing if it grows then.
_IDLE_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.1
# Every volume of the daemon has this tag.
_OWNER_TAG = "ebs-autoscale:owner"


def run(*, rate_bytes_per_second: int | None, screen: Screen | None = None) -> int:
    """Run the demo and print its verdict; returns the exit code of `ebs-autoscale demo`.

    Nothing of the demo is left afterwards, however it ends.
    """
    try:
        return _run_isolated(rate_bytes_per_second, screen)
    except Stopped:
        return _EXIT_FAILED
    except SandboxError as error:
        sys.stderr.write(f"ebs-autoscale: {error}\n")
        match error:
            case InputInvalid():
                return _EXIT_USAGE
            case HostUnfit():
                return _EXIT_UNFIT
            case _:
                return _EXIT_FAILED


def _run_isolated(rate_bytes_per_second: int | None, screen: Screen | None) -> int:
    if reason := missing_requirement("btrfs"):
        raise HostUnfit(f"cannot run the demo: {reason}")
    directory = storage_directory()
    if (code := isolate()) is not None:
        return code
    stop_on_signals()
    progress = Progress()
    with Refresher(progress, screen or screen_for_stdout()):
        verdict = _perform(progress, directory, rate_bytes_per_second)
    verdict.print_to(Console(file=sys.stdout))
    return _EXIT_FAILED if any(verdict.failures()) else _EXIT_OK


def _perform(progress: Progress, directory: Path, rate_bytes_per_second: int | None) -> Verdict:
    progress.phase = "measuring the write speed"
    workload = progress.workload = choose_workload(directory, rate_bytes_per_second)
    progress.phase = "starting the simulated EC2"
    with simulated_ec2(workload) as sandbox:
        progress.phase = f"creating the first volume, {workload.first_gib} GiB"
        node = create_first_volume(sandbox, workload)
        own_calls = len(sandbox.journal())
        progress.phase = f"creating a BTRFS filesystem on /dev/{node}"
        with mounted_filesystem(node):
            filesystem = progress.filesystem = Filesystem(MOUNTPOINT)
            write_configuration(workload)
            results = _with_daemon(progress, workload, filesystem, sandbox)
            progress.release_filesystem()
        progress.phase = "done"
        calls = [call for call in sandbox.journal(own_calls) if call.action != "IMDS"]
        return _verdict(progress, results, Counter(call.action for call in calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    writer: Writer
    wrong_files: list[Path]
    scrubbed: Scrubbed
    space: Space
    leaked: tuple[str, ...]
    problems: tuple[str, ...]
    daemon_status: int


def _with_daemon(
    progress: Progress, workload: Workload, filesystem: Filesystem, sandbox: Sandbox
) -> _Results:
    progress.phase = f"starting the daemon: ebs-autoscale --config {CONFIG} run"
    with running_daemon(CONFIG) as daemon:
        progress.daemon = daemon
        _wait_until_idle(progress, daemon)
        writer = progress.writer = Writer(MOUNTPOINT)
        progress.phase = (
            f"writing {format_size(workload.data_bytes)} with checksums, "
            f"{format_size(workload.rate_bytes_per_second)}/s"
        )
        writer.fill(
            workload.data_bytes,
            rate_bytes_per_second=workload.rate_bytes_per_second,
            between=daemon.require_alive,
        )
        progress.phase = "reading everything back and comparing checksums"
        wrong_files = writer.verify()
        _wait_until_idle(progress, daemon)
        # Before the scrub, which makes one chunk after the other read-only: the daemon would
        # see less available space, rightly, and might grow once more.
        progress.phase = "stopping the daemon"
        daemon_status = daemon.stop()
    progress.phase = "scrubbing: BTRFS verifies its own checksums"
    space = filesystem.measure()
    scrubbed = scrub(MOUNTPOINT, [device.devid for device in space.devices])
    state = sandbox.state()
    return _Results(
        writer=writer,
        wrong_files=wrong_files,
        scrubbed=scrubbed,
        space=space,
        leaked=_leaked(state, space),
        problems=state.problems,
        daemon_status=daemon_status,
    )


def _leaked(state: SandboxState, space: Space) -> tuple[str, ...]:
    names = {device.name for device in space.devices}
    volumes = (volume for volume in state.volumes if _OWNER_TAG in volume.tags)
    return tuple(volume.id for volume in volumes if volume.node not in names)


def _wait_until_idle(progress: Progress, daemon: Daemon) -> None:
    deadline = now_seconds() + _IDLE_TIMEOUT_SECONDS
    while not progress.daemon_is_idle:
        daemon.require_alive()
        if now_seconds() > deadline:
            raise SandboxError(
                f"the daemon is not idle after {_IDLE_TIMEOUT_SECONDS:.0f} s: "
                f"{progress.daemon_activity}"
            )
        sleep(_POLL_SECONDS)


def _verdict(progress: Progress, results: _Results, calls: Counter[str]) -> Verdict:
    return Verdict(
        growth_seconds=tuple(progress.timer.growth_seconds),
        size_bytes=results.space.size_bytes,
        devices=len(results.space.devices),
        written_bytes=results.writer.written_bytes,
        files=results.writer.file_count,
        wrong_files=tuple(results.wrong_files),
        enospc=results.writer.enospc,
        scrubbed=results.scrubbed,
        ec2_calls=calls,
        leaked=results.leaked,
        problems=results.problems,
        daemon_status=results.daemon_status,
        seconds=progress.elapsed_seconds,
    )
