"""The daemon's report: written by the daemon, read by others while it lives."""

import json
import os
from pathlib import Path

import pytest

from ebs_autoscale.model import StepKind
from ebs_autoscale.policy.forecast import Forecast
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
    status.write(WATCHING)
    status.remove()
    (tmp_path / "run").unlink()
    status.write(WATCHING)
    assert (tmp_path / "run" / "scratch.json").exists()


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
