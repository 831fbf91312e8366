"""The daemon's report: written by the daemon, read by others while it lives."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale.cli.look import Status
from ebs_autoscale.cli.screen import page
from ebs_autoscale.cli.status_json import as_dict
from ebs_autoscale.cli.terminal import Look
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import Cause
from ebs_autoscale.model import StepKind
from ebs_autoscale.policy import GrowthPolicy, Limits
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.telemetry import ManagedVolumes, RecentGrowth
from ebs_autoscale.telemetry.status_file import StatusFile, running_daemon
from ebs_autoscale.telemetry.view import SCHEMA, State, View

WATCHING = View(state=State.WATCHING)
GROWING = View(
    state=State.GROWING,
    activity="attaching",
    step=StepKind.ATTACH_VOLUME,
    shortage="5 % available",
    conditions={"quota": "the quota is reached"},
    growths_since_start=3,
    forecast=Forecast(
        fill_bytes_per_second=2.0**30, sustained_bytes_per_second=2.0**29, growth_seconds=7.5
    ),
    dropped_log_lines=5,
    dropped_notifications=6,
)


def test_the_status_file_is_replaced_whole(tmp_path: Path) -> None:
    """Whoever reads sees an old report or a new one: a new file takes the old one's place."""
    path = tmp_path / "run" / "scratch.json"
    status = StatusFile(path)
    status.write(WATCHING)
    with path.open() as reader:
        status.write(GROWING)
        assert json.load(reader)["state"] == "watching"
    assert json.loads(path.read_text())["state"] == "growing"
    assert [entry.name for entry in path.parent.iterdir()] == ["scratch.json"]


def test_everybody_may_read_the_status(tmp_path: Path) -> None:
    """Under the umask of the unit, too, the report is there for whoever runs `status`."""
    before = os.umask(0o077)
    try:
        StatusFile(tmp_path / "scratch.json").write(WATCHING)
    finally:
        os.umask(before)
    assert (tmp_path / "scratch.json").stat().st_mode & 0o777 == 0o644


def test_an_unchanged_report_is_not_written(tmp_path: Path) -> None:
    """The same report again costs no write."""
    path = tmp_path / "scratch.json"
    status = StatusFile(path)
    status.write(WATCHING)
    before = path.stat()
    status.write(WATCHING)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_place_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """Where no report can be written there is none; as soon as it can, there is."""
    (tmp_path / "run").write_text("in the way")
    status = StatusFile(tmp_path / "run" / "scratch.json")
    problem = status.write(WATCHING)
    assert problem
    assert problem.cause is Cause.STATUS_FILE
    status.remove()
    (tmp_path / "run").unlink()
    assert status.write(WATCHING) is None
    assert (tmp_path / "run" / "scratch.json").exists()


def make_a_pipe(part: Path) -> None:
    """Put a pipe there that nobody reads."""
    os.mkfifo(part)


def make_a_folder(part: Path) -> None:
    """Put a folder there."""
    part.mkdir()


@pytest.mark.parametrize("occupy", [make_a_pipe, make_a_folder])
def test_nothing_in_the_way_holds_the_daemon_up(
    tmp_path: Path, occupy: Callable[[Path], None]
) -> None:
    """Whatever has the name that the report has while it is written, nobody waits for it."""
    occupy(tmp_path / "scratch.json.part")
    status = StatusFile(tmp_path / "scratch.json")
    assert (status.write(WATCHING) is None) == (occupy is make_a_pipe)


@pytest.mark.parametrize("text", ["\udcff", "\ud800 half", "nul \0", "two\nlines", r"plain \udcff"])
def test_any_bytes_are_json(tmp_path: Path, text: str) -> None:
    """Every parser reads the report, whatever bytes a problem quotes."""
    view = View(state=State.WAITING, activity=text, conditions={"quota": text}, shortage="ü")
    StatusFile(tmp_path / "scratch.json").write(view)
    report = json.loads((tmp_path / "scratch.json").read_text("ascii"))
    told = report["conditions"]["quota"]
    assert told.encode()
    assert told == text or not text.isprintable()
    assert report["low"] == "ü"


def test_the_report_ends_with_the_daemon(tmp_path: Path) -> None:
    """At the end the report is gone; to remove it twice is fine."""
    status = StatusFile(tmp_path / "scratch.json")
    status.write(WATCHING)
    status.remove()
    status.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("view", [WATCHING, GROWING])
def test_a_view_survives_the_report(view: View) -> None:
    """What a daemon reports is what others read, but for what changes at each reading."""
    assert View.from_report(json.loads(json.dumps(view.report()))) == view


def test_a_report_says_who_wrote_it(tmp_path: Path) -> None:
    """The report has the version of its schema and the process that wrote it."""
    StatusFile(tmp_path / "scratch.json").write(GROWING)
    report = json.loads((tmp_path / "scratch.json").read_text())
    assert (report["schema"], report["pid"]) == (SCHEMA, os.getpid())


def test_a_comfortable_daemon_does_not_report_its_rate() -> None:
    """Without a shortage the report stays the same while the rate changes: nothing is written."""
    slow, fast = (
        View(state=State.WATCHING, forecast=Forecast(fill_bytes_per_second=rate))
        for rate in (1.0, 1e9)
    )
    assert slow.report() == fast.report()


@pytest.mark.parametrize(
    ("view", "line"),
    [
        (WATCHING, "watching"),
        (GROWING, "the quota is reached"),
        (View(state=State.GROWING, activity="attaching", shortage="5 %"), "attaching"),
        (View(state=State.UNFIT, shortage="not mounted"), "not mounted"),
    ],
)
def test_one_line_for_the_service_manager(view: View, line: str) -> None:
    """What is wrong comes before what is done, before why space is short, before the state."""
    assert view.line == line


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": 1}', '{"pid": 999999999}', "\ud800"])
def test_what_is_no_report_is_no_daemon(tmp_path: Path, text: str) -> None:
    """A report that is cut, foreign or of a process that is gone tells of no daemon."""
    path = tmp_path / "scratch.json"
    path.write_text(text, "utf-8", errors="surrogatepass")
    assert running_daemon(path) is None
    assert running_daemon(tmp_path / "none.json") is None


SETTINGS = Settings(
    mountpoint="/scratch", policy=GrowthPolicy(limits=Limits(volumes=9, monthly_usd=200))
)
ODD: list[Any] = [
    *(None, True, -1, 1.5, 10**400, float("nan"), float("inf"), "", "x", "\x1b[2J\ud800\n"),
    *([], [1], [None], [[]], [{}], {}, {"a": 1}, {"a": None}, {"": {}}),
]
FULL = View(
    state=State.WATCHING,
    conditions={"quota": "the quota is reached"},
    managed=ManagedVolumes(volumes=1, size_bytes=2, orphans=1, slots_free=1, usd_per_month=1.0),
    retry_at=5,
    recent=(RecentGrowth(ended_at=1, growth="a-1", seconds=1.0, volume="vol-1", size_bytes=3),),
)


@pytest.fixture(scope="module")
def daemon_pid() -> Iterator[int]:
    """A process that has the name of a daemon."""
    argv = ["ebs-autoscale-of-a-test", "60"]
    with subprocess.Popen(argv, executable="/bin/sleep") as process:
        yield process.pid
        process.kill()


def is_shown(path: Path, report: dict[str, Any]) -> bool:
    """Whether `status` takes this report for one of a daemon; either way it can show it."""
    path.write_text(json.dumps(report))
    daemon = running_daemon(path)
    status = Status(config=path, at_seconds=10.0, settings=SETTINGS, daemon=daemon)
    assert page([status], Look(columns=40))
    json.dumps(as_dict([status]), allow_nan=False)
    return daemon is not None


@pytest.mark.parametrize("key", [*FULL.report(), "version", "schema", "pid"])
def test_any_value_of_a_report_can_be_shown(tmp_path: Path, daemon_pid: int, key: str) -> None:
    """Whatever a daemon of another version, or anybody, has put there: no key breaks `status`."""
    whole = {"schema": SCHEMA, "version": "1", "pid": daemon_pid, **FULL.report()}
    assert is_shown(tmp_path / "scratch.json", whole)
    for value in ODD:
        is_shown(tmp_path / "scratch.json", {**whole, key: value})


def test_a_report_of_an_older_version_is_shown(tmp_path: Path, daemon_pid: int) -> None:
    """One without what came later is a report all the same."""
    old = {"version": "0", "pid": daemon_pid, **WATCHING.report()}
    for key in ("recent_growths", "retry_at", "managed_volumes", "usd_per_month", "cost"):
        del old[key]
    assert is_shown(tmp_path / "scratch.json", old)
