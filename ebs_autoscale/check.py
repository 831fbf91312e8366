"""`check`: rehearse everything without changing anything; each line says what to do."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ebs_autoscale import config
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.command import run
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError
from ebs_autoscale.exits import Exit
from ebs_autoscale.instance import Imds
from ebs_autoscale.model import Inventory, Volume
from ebs_autoscale.rehearsal import NEED_A_VOLUME, rehearse, rehearse_with
from ebs_autoscale.space import available
from ebs_autoscale.volumes import Ec2Volumes
from ebs_autoscale.wiring import filesystem_of, require_fit_host

# `check` is run by a person who waits; the daemon is more patient.
IMDS_PATIENCE_SECONDS = 5.0

PROTECTION = "ModifyInstanceAttribute"

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    sentence: str
    hint: str = ""


def show(config_path: Path, *, as_json: bool) -> int:
    """Print every line; the exit code says whether the daemon could work."""
    lines = []
    for line in _lines(config_path):
        lines.append(line)
        if not as_json:
            hint = f"\n{'':17}{line.hint}" if line.hint else ""
            print(f"{line.verdict:<5}{line.name:<12}{line.sentence}{hint}", flush=True)
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    if any(line.name == "config" and line.verdict == "fail" for line in lines):
        return Exit.USAGE
    return Exit.UNFIT if any(line.verdict == "fail" for line in lines) else Exit.FINE


def _lines(config_path: Path) -> Iterator[Line]:
    try:
        settings = config.load(config_path)
    except ConfigInvalid as error:
        yield Line("config", "fail", error.what, error.hint)
        return
    yield Line("config", "ok", f"{config_path}: {settings.mountpoint}")
    clock = SystemClock()
    yield _tried("host", _host)
    found: list[BtrfsFilesystem] = []
    yield _tried("mount", lambda: _mount(settings, clock, found))
    yield from _ec2(settings, clock, found[0].uuid if found else None)


def _tried(name: str, look: Callable[[], str]) -> Line:
    try:
        return Line(name, "ok", look())
    except EbsAutoscaleError as error:
        return Line(name, "fail", error.what, error.hint)


def _host() -> str:
    require_fit_host()
    version = run(["btrfs", "--version"], timeout_seconds=10).splitlines()[0]
    return f"Linux {os.uname().release}, {version}"


def _mount(settings: Settings, clock: SystemClock, found: list[BtrfsFilesystem]) -> str:
    filesystem = filesystem_of(settings, clock)
    reading = filesystem.read()
    found.append(filesystem)
    return f"{filesystem.uuid}: {available(reading)}, metadata {reading.metadata_profile}"


def _ec2(settings: Settings, clock: SystemClock, filesystem: str | None) -> Iterator[Line]:
    try:
        identity = Imds(clock).identity(patience_seconds=IMDS_PATIENCE_SECONDS)
        yield Line("instance", "ok", f"{identity.owner} ({identity.instance_type})")
        cloud = Ec2Volumes(identity, settings.volume, mountpoint=settings.mountpoint, clock=clock)
    except EbsAutoscaleError as error:
        yield Line("instance", "fail", error.what, error.hint)
        return
    # Any UUID will do to rehearse with when nothing is mounted yet.
    uuid = filesystem or "00000000-0000-0000-0000-000000000000"
    yield from (_rehearsed(*each) for each in rehearse(cloud, uuid))
    try:
        inventory = cloud.inventory(uuid)
        strangers = cloud.predecessors()
    except EbsAutoscaleError:
        # Told above, as rehearsed calls.
        return
    protects = settings.volume.delete_on_termination
    yield from _on_own_volume(cloud, inventory, protects=protects)
    yield _slots(inventory)
    yield from _leftovers(inventory, strangers, adopt=settings.adopt)


def _rehearsed(action: str, refusal: EbsAutoscaleError | None) -> Line:
    if refusal is None:
        return Line("ec2", "ok", f"{action} allowed")
    # A growth does without DeleteOnTermination, and says so each time.
    verdict: Verdict = "warn" if action == PROTECTION else "fail"
    return Line("ec2", verdict, f"{action}: {refusal.what}", refusal.hint)


def _on_own_volume(cloud: Ec2Volumes, inventory: Inventory, *, protects: bool) -> Iterator[Line]:
    # One that is attached, if there is one: what EC2 says of it says the most.
    volumes = sorted(inventory.volumes, key=lambda v: v.attached_to != inventory.instance_id)
    if volumes:
        for action, refusal in rehearse_with(cloud, volumes[0]):
            if protects or action != PROTECTION:
                yield _rehearsed(action, refusal)
    else:
        actions = ", ".join(NEED_A_VOLUME)
        yield Line("ec2", "ok", f"{actions}: can be rehearsed once there is a volume of ours")


def _slots(inventory: Inventory) -> Line:
    free = inventory.slots_free
    if free is None:
        return Line("slots", "warn", "EC2 does not say how many volumes this type takes")
    if free < 1:
        hint = "use a larger instance type or detach what is not needed"
        return Line("slots", "fail", "no attachment slot is left", hint)
    ours = len(inventory.volumes)
    return Line("slots", "ok", f"{free} attachment slots left, {ours} volumes of ours")


def _leftovers(
    inventory: Inventory, strangers: tuple[Volume, ...], *, adopt: bool
) -> Iterator[Line]:
    """Volumes that cost money without serving the filesystem, or that nobody looks after."""
    loose = [v.id for v in inventory.volumes if v.state in {"available", "error"}]
    if loose:
        hint = "the next growth finishes those that can be; see `ebs-autoscale plan`"
        yield Line("leftovers", "warn", f"in no filesystem: {', '.join(loose)}", hint)
    if strangers and not adopt:
        names = ", ".join(volume.id for volume in strangers)
        hint = "set `adopt: true` to make them ours, or delete what is not needed"
        yield Line("leftovers", "warn", f"of an older autoscaler: {names}", hint)
