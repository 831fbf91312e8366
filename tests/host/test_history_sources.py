"""Where `history` reads: a journal and logs that are missing, forbidden, damaged or huge."""

import gzip
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale.cli import history
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.host import paths

NOW_SECONDS = SystemClock().wall_seconds()

FakeJournal = Callable[..., Path]
Look = Callable[..., dict[str, Any]]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJournal:
    """Put a journalctl that prints these lines first in the PATH; returns where its options are."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def prints(*lines: str, messages: str = "", status: int = 0) -> Path:
        program, options = tmp_path / "bin/journalctl", tmp_path / "options"
        program.parent.mkdir()
        (tmp_path / "lines").write_text("".join(f"{line}\n" for line in lines))
        program.write_text(
            f'#!/bin/sh\necho "$@" >{options}\necho "{messages}" >&2\n'
            f"/bin/cat {tmp_path}/lines\nexit {status}\n"
        )
        program.chmod(0o755)
        return options

    return prints


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a detached daemon would log."""
    path = tmp_path / "log/ebs-autoscale.log"
    path.parent.mkdir()
    monkeypatch.setattr(paths, "LOG_FILE", path)
    return path


@pytest.fixture
def look(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> Look:
    """The history of the last hour, as JSON, of a host without a configuration."""
    assert not log.exists()

    def seen(since: str = "1 h", plot: Path | None = None) -> dict[str, Any]:
        assert history.show(tmp_path / "none.yaml", since, as_json=True, plot=plot) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return seen


def in_journal(growth: str, seconds_ago: float = 60.0) -> str:
    """The end of a growth as journalctl prints it."""
    moment = str(int((NOW_SECONDS - seconds_ago) * 1e6))
    told = {"MESSAGE": "done", "EBS_AUTOSCALE_EVENT": "growth_done", "GROWTH": growth}
    return json.dumps({"__REALTIME_TIMESTAMP": moment, **told})


def in_log(growth: str, seconds_ago: float = 60.0) -> bytes:
    """The same in a log of text."""
    moment = datetime.fromtimestamp(NOW_SECONDS - seconds_ago, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S%z} done event=growth_done growth={growth}\n".encode()


def growths(found: dict[str, Any]) -> list[str]:
    """The ids of the growths."""
    return [growth["growth"] for growth in found["growths"]]


def test_journal_and_log_are_joined(journal: FakeJournal, look: Look, log: Path) -> None:
    """Both count; of the journal only what root has logged, of the log only what is recent."""
    options = journal(in_journal("a-2"))
    log.write_bytes(in_log("a-0", 7000) + in_log("a-1", 120) + in_log("a-3", 10))
    found = look()
    assert growths(found) == ["a-1", "a-2", "a-3"]
    assert found["sources"] == ["the journal", str(log)]
    assert "_UID=0" in options.read_text().split()


@pytest.mark.parametrize("status", [None, 1])
def test_without_a_journal(journal: FakeJournal, look: Look, log: Path, status: int | None) -> None:
    """Without journalctl, or without permission, the log is enough; without both it says why."""
    if status:
        journal(messages="No journal files were opened.", status=status)
    with pytest.raises(EbsAutoscaleError) as caught:
        look()
    assert caught.value.cause is (Cause.FILE if status else Cause.MISSING_TOOL)
    assert "No journal files were opened;" in str(caught.value) or not status
    log.write_bytes(in_log("a-1"))
    found = look()
    assert growths(found) == ["a-1"]
    (note,) = found["notes"]
    assert note == str(caught.value)


def test_damaged_lines_cost_themselves(journal: FakeJournal, look: Look, log: Path) -> None:
    """What is damaged is counted and named, and all else is read."""
    journal(in_journal("a-1"), "{", "", in_journal("a-2")[:50], in_journal("a-3"))
    traceback = b"2026-11-28T10:00:00+0000 x event=bug\nTraceback:\n  File\n"
    log.write_bytes(b"\xff\x00 \r junk\n" + traceback + in_log("a-4") + b"cut off here")
    Path(f"{log}.1").write_bytes(b"")
    Path(f"{log}.2.gz").write_bytes(gzip.compress(in_log("a-0", 300)))
    Path(f"{log}.3.gz").write_bytes(gzip.compress(in_log("a-5") * 9999)[:-40])
    Path(f"{log}.4.gz").write_bytes(b"no gzip")
    os.mkfifo(f"{log}.5")
    Path(f"{log}.6").symlink_to("nowhere")
    found = look()
    assert sorted(growths(found)) == ["a-0", "a-1", "a-3", "a-4", "a-5"]
    assert found["unreadable_lines"] == 4
    assert sum(str(log) in note for note in found["notes"]) == 3
    assert sum("the journal" in note for note in found["notes"]) == 1


@pytest.mark.parametrize("uid", [0, 1000])
def test_an_empty_journal(
    journal: FakeJournal, look: Look, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    """Nothing was logged, as far as root can tell; anybody else may only not see it."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    journal()
    if uid:
        with pytest.raises(EbsAutoscaleError) as caught:
            look()
        assert caught.value.cause is Cause.NOT_ROOT
    else:
        assert growths(look()) == []


def test_what_is_too_old_is_not_read(journal: FakeJournal, look: Look, log: Path) -> None:
    """A file that was last written before the time asked for is not opened."""
    journal(in_journal("a-1"))
    log.write_bytes(b"damaged\n")
    os.utime(log, (NOW_SECONDS - 7200, NOW_SECONDS - 7200))
    assert look()["unreadable_lines"] == 0
    assert look("1 day ago")["unreadable_lines"] == 1


def test_a_huge_journal(journal: FakeJournal, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many entries the newest are read, and that others are not is said."""
    monkeypatch.setattr(history, "ENTRIES_MAX", 10)
    options = journal(*(in_journal(f"a-{number}", 100 - number) for number in range(11)))
    found = look()
    assert growths(found) == [f"a-{number}" for number in range(1, 11)]
    (note,) = found["notes"]
    assert "newest 10" in note
    assert "--lines=11" in options.read_text().split()


@pytest.mark.parametrize("kind", ["folder", "fifo", "file", "new"])
def test_a_plot_replaces_only_a_file(
    journal: FakeJournal, look: Look, tmp_path: Path, kind: str
) -> None:
    """A picture is written where there is a file or nothing; anything else stays as it is."""
    journal(in_journal("a-1"))
    plot = tmp_path / "plot.svg"
    if kind == "folder":
        plot.mkdir()
    elif kind == "fifo":
        os.mkfifo(plot)
    elif kind == "file":
        plot.write_text("old")
    if kind in {"folder", "fifo"}:
        with pytest.raises(EbsAutoscaleError, match="not a regular file"):
            look(plot=plot)
    else:
        look(plot=plot)
        assert plot.read_text().startswith("<svg ")
