"""Ends that are no end, and readers that do not read, under real systemd."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import StepKind
from ebs_autoscale.telemetry import EventKind
from tests.boxes.box import Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import (
    CONFIG_PATH,
    DROP_IN,
    UNIT,
    configure,
    count_events,
    devices,
    fill,
    initialise,
    shown,
    state,
    volumes,
    wait_event,
    wait_growth,
)

pytestmark = pytest.mark.kernel

ONLY_ON_FAILURE = f"/etc/systemd/system/{UNIT}.d/older.conf"
KILLS = 20
APP = "/opt/ebs-autoscale"
VERSION = "99.0"


@pytest.fixture
def box(make_host: MakeBox) -> Box:
    """A machine with a watched filesystem on /scratch, whose systemd restarts soon."""
    box = make_host(create_seconds=(1.0, 1.5))
    box.write(DROP_IN, "[Service]\nRestartSec=100ms\n")
    configure(box)
    initialise(box)
    return box


def wait_restart(box: Box, before: str, *, until: str = "active") -> None:
    """Wait until another process than `before` is the daemon."""
    box.wait_until(
        lambda: shown(box, "MainPID") not in {before, "0"} and state(box) in {"active", until},
        f"another daemon than {before}",
    )


@contextmanager
def systemd_stopped(box: Box) -> Iterator[None]:
    """Have PID 1 stand still meanwhile."""
    pid = box.pid_of_systemd
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def another_version(wheels: Path, folder: Path) -> Path:
    """The wheel of this checkout, but with VERSION."""
    [source] = wheels.glob("ebs_autoscale-*.whl")
    old, new = source.name.split("-")[1], VERSION
    target = folder / source.name.replace(old, new)
    with ZipFile(source) as wheel, ZipFile(target, "w") as copy:
        for name in wheel.namelist():
            copy.writestr(
                name.replace(old, new), wheel.read(name).replace(old.encode(), new.encode())
            )
    return target


def install(box: Box, wheel: str) -> None:
    """Replace the installed program as `make install` does."""
    pip = (f"{APP}/bin/python", "-m", "pip", "-qq", "--disable-pip-version-check")
    options = ("--no-compile", "--no-deps", "--no-index", "--force-reinstall")
    box.exec(*pip, "install", *options, wheel)
    box.exec(f"{APP}/bin/python", "-m", "compileall", "-q", f"{APP}/lib", "-x", "/(boto|pip)")


def test_whatever_ends_it(box: Box, wheels: Path, tmp_path: Path) -> None:
    """No signal to the daemon, its growth or both is the end of it; only `systemctl stop` is."""
    box.exec("kill", "-TERM", before := shown(box, "MainPID"))  # as earlyoom does
    wait_restart(box, before)
    box.exec("systemctl", "kill", UNIT)
    wait_restart(box, shown(box, "MainPID"), until="activating")
    fill(box, left=20)
    for number in range(KILLS):
        before = shown(box, "MainPID")
        box.exec("systemctl", "kill", "--signal=KILL", "--kill-who=all", UNIT)
        wait_restart(box, before, until="active" if number % 3 else "activating")
    wait_growth(box)
    assert (devices(box), len(volumes(box))) == (2, 2)
    box.exec("systemctl", "stop", UNIT)
    assert (state(box), shown(box, "Result")) == ("inactive", "success")
    box.exec("systemctl", "start", UNIT)
    assert_goes_on_without_a_growth(box, shown(box, "MainPID"))
    [old], new = wheels.glob("ebs_autoscale-*.whl"), another_version(wheels, tmp_path)
    for wheel in (old, new):
        box.copy_in(wheel, "/root")
    assert_follows_the_installed_program(box, f"/root/{old.name}", f"/root/{new.name}")


def assert_goes_on_without_a_growth(box: Box, daemon: str) -> None:
    """The kernel kills a growth for its memory before the daemon, which starts another one."""
    assert shown(box, "OOMPolicy") == "continue"
    fill(box, left=20)
    wait_event(box, EventKind.STEP_STARTED, STEP=StepKind.CREATE_VOLUME, _PID=daemon)
    growth = box.exec("pgrep", "--parent", daemon).stdout.strip()
    scores = [int(box.read(f"/proc/{pid}/oom_score_adj")) for pid in (daemon, growth)]
    assert scores[0] < scores[1]
    box.exec("kill", "-KILL", growth)
    wait_event(box, EventKind.CONDITION_BEGAN, CAUSE=Cause.DIED.value)
    wait_growth(box, 2)
    assert shown(box, "MainPID") == daemon


def assert_follows_the_installed_program(box: Box, old: str, new: str) -> None:
    """A daemon whose program is replaced makes room for the new one, if that would be started."""
    daemon = shown(box, "MainPID")
    box.write(ONLY_ON_FAILURE, "[Service]\nRestart=on-failure\n")
    box.exec("systemctl", "daemon-reload")
    install(box, new)
    wait_event(box, EventKind.CONDITION_BEGAN, CAUSE=Cause.REPLACED.value)
    assert (state(box), shown(box, "MainPID")) == ("active", daemon)
    box.exec("rm", ONLY_ON_FAILURE)
    box.exec("systemctl", "daemon-reload")
    box.exec("systemctl", "restart", UNIT)
    daemon = shown(box, "MainPID")
    wait_event(box, EventKind.STARTED, VERSION=VERSION)
    install(box, old)
    wait_restart(box, daemon)
    fill(box, left=20)
    wait_growth(box, 3)
    assert count_events(box, EventKind.STARTED, VERSION=VERSION) == 1


def test_what_is_away_for_a_moment(box: Box) -> None:
    """PID 1 that stands still, a journal made anew, a full /run, no configuration: it watches."""
    with systemd_stopped(box):
        fill(box, left=20)
        box.wait_until(lambda: devices(box) == 2, "a growth", seconds=60)
        pid = box.exec("pgrep", "--oldest", "-f", "ebs-autoscale run").stdout.strip()
        # One that sleeps in a write to systemd hears nothing.
        box.exec("kill", "-TERM", pid)
        ended = ("sh", "-c", f"grep -q Z /proc/{pid}/stat")
        box.wait_until(lambda: box.exec(*ended, check=False).returncode == 0, "its end")
    wait_restart(box, pid)
    box.exec("systemctl", "restart", "systemd-journald.socket", "systemd-journald.service")
    box.exec("rm", "-r", "/run/ebs-autoscale")
    box.exec("mount", "-o", "remount,size=24M", "/run")
    box.exec("dd", "if=/dev/zero", "of=/run/full", "bs=64K", check=False)
    box.exec("kill", "-KILL", before := shown(box, "MainPID"))
    wait_restart(box, before)
    wait_event(box, EventKind.CONDITION_BEGAN, CAUSE=Cause.STATUS_FILE.value)
    fill(box, left=20)
    wait_growth(box, 2)
    box.exec("rm", "/run/full")
    wait_event(box, EventKind.CONDITION_ENDED, CAUSE=Cause.STATUS_FILE.value)
    assert_waits_for_its_configuration(box)


def assert_waits_for_its_configuration(box: Box) -> None:
    """A daemon that died waits until there is a valid one; a start by an operator fails."""
    cause = {"CAUSE": Cause.CONFIGURATION.value}
    box.exec("mv", CONFIG_PATH, "/root/kept")
    box.exec("kill", "-KILL", before := shown(box, "MainPID"))
    wait_event(box, EventKind.CONDITION_BEGAN, **cause)
    assert state(box) == "active"
    box.write(CONFIG_PATH, "mountpoint: /scratch\nthreshhold: {}\n")
    box.exec("systemctl", "kill", "--signal=HUP", UNIT)
    assert not count_events(box, EventKind.CONDITION_ENDED, **cause)
    box.exec("cp", "/root/kept", CONFIG_PATH)
    wait_event(box, EventKind.CONDITION_ENDED, **cause)
    wait_restart(box, before)
    box.write(CONFIG_PATH, "mountpoint: /scratch\nthreshhold: {}\n")
    assert box.exec("systemctl", "restart", UNIT, check=False).returncode != 0
    assert (state(box), shown(box, "NRestarts")) == ("failed", "0")
    assert "line 2" in box.journal("-u", UNIT)
