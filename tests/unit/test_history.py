"""What a history makes of logged events, as data, as text and as a picture."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ebs_autoscale.cli.history import as_text
from ebs_autoscale.cli.history_plot import svg_of
from ebs_autoscale.errors import Cause
from ebs_autoscale.model import GIB
from ebs_autoscale.telemetry.entries import Entry
from ebs_autoscale.telemetry.history import AlarmState, History, as_dict, history_of
from ebs_autoscale.units import parse_moment

NOW = 1795860000.0
WHOLE = History(mountpoint="/scratch", since_seconds=NOW - 1000, until_seconds=NOW)
G1, G2 = "6a92f8de-1", "6a92f8de-2"
LIMIT, DENIED = Cause.LIMIT_TOTAL.value, Cause.DENIED.value


def at(moment: float, kind: str, **fields: Any) -> Entry:
    """An entry so long after the beginning of the history."""
    told = {"sentence": kind, "mountpoint": "/scratch", **fields}
    return Entry(at_seconds=NOW - 1000 + moment, kind=kind, **told)


def step(moment: float, name: str, took: float, growth: str = G1) -> Entry:
    """The end of a step."""
    return at(moment, "step_done", growth=growth, step=name, seconds=took)


def done(moment: float, growth: str = G1, **fields: Any) -> Entry:
    """The end of a growth."""
    told = {"volume": "vol-1", "size_bytes": 50 * GIB, "added_usd_per_month": 4.0, "seconds": 4.5}
    return at(moment, "growth_done", growth=growth, **told, **fields)


GROWTH = [
    at(10, "decided", growth=G1, sentence="grow: 19 % available"),
    step(11, "CreateVolume", 0.4),
    step(15, "AttachVolume", 4.0),
    step(15, "AddDevice", 0.1),
    done(16),
]
BALANCED_LATER = [
    at(600, "decided", growth=G1, stage="added"),
    step(610, "BalanceMetadata", 9.0),
    done(611, stage="added"),
]


def test_a_growth() -> None:
    """It has its reason, each step's duration, size, volume and cost; two add up."""
    history = history_of([*GROWTH, done(900, G2, stage="created")], WHOLE)
    first, second = history.growths
    assert (first.growth, first.volume, first.seconds) == (G1, "vol-1", 4.5)
    assert first.steps == {"CreateVolume": 0.4, "AttachVolume": 4.0, "AddDevice": 0.1}
    assert first.reason == "grow: 19 % available"
    assert (second.growth, second.steps, second.reason) == (G2, {}, "")
    assert (history.added_bytes, history.added_usd_per_month) == (100 * GIB, 8.0)


@pytest.mark.parametrize(
    ("entries", "growths"),
    [
        ([*GROWTH, *BALANCED_LATER], [G1]),
        (BALANCED_LATER, []),  # it was added before
        ([*GROWTH[:1], *BALANCED_LATER], [G1]),  # killed after the add
        ([*GROWTH[3:4], *BALANCED_LATER], [G1]),
        ([replace(entry, mountpoint="/other") for entry in GROWTH], []),
        ([replace(entry, mountpoint="") for entry in GROWTH], [G1]),  # of an earlier version
        ([replace(entry, at_seconds=1.0) for entry in GROWTH], []),
        (GROWTH[:-1], []),
        (GROWTH[::-1], [G1]),
    ],
)
def test_each_growth_counts_once(entries: Sequence[Entry], growths: list[str]) -> None:
    """A growth counts where it was completed in the time and for the mountpoint asked for."""
    assert [growth.growth for growth in history_of(entries, WHOLE).growths] == growths


BEGAN = at(100, "condition_began", cause=DENIED, volume="vol-1", hint="h")
LASTS = at(500, "condition_lasts", cause=DENIED, volume="vol-1", seconds=400.0)
ENDED = at(700, "condition_ended", cause=DENIED, volume="vol-1", seconds=600.0)


@pytest.mark.parametrize(
    ("entries", "alarms"),
    [
        ([BEGAN, LASTS, ENDED], [(100, 700, AlarmState.RESOLVED)]),
        ([BEGAN, LASTS], [(100, None, AlarmState.LASTING)]),
        # It began before the time asked for, or its line was lost.
        ([LASTS], [(100, None, AlarmState.LASTING)]),
        ([ENDED], [(100, 700, AlarmState.RESOLVED)]),
        ([replace(ENDED, seconds=5000.0)], [(-4300, 700, AlarmState.RESOLVED)]),
        ([BEGAN, at(300, "stopping")], [(100, 300, AlarmState.INTERRUPTED)]),
        # Killed, started again, and the same is still wrong.
        (
            [BEGAN, at(300, "started"), replace(BEGAN, at_seconds=NOW - 690), ENDED],
            [(100, 300, AlarmState.INTERRUPTED), (310, 700, AlarmState.RESOLVED)],
        ),
        # Of another volume, another cause.
        (
            [BEGAN, replace(BEGAN, volume="vol-2"), replace(ENDED, volume="vol-2")],
            [(100, 700, AlarmState.RESOLVED), (100, None, AlarmState.LASTING)],
        ),
        ([at(5, "growth_failed", cause=DENIED)], [(5, 5, AlarmState.TOLD)]),
        ([at(5, "a kind of a later version", cause=DENIED)], []),
    ],
)
def test_alarms(entries: Sequence[Entry], alarms: list[tuple[float, float | None, str]]) -> None:
    """An alarm lasts from its first sign to its end, or to that of the daemon."""
    history = history_of(entries, WHOLE)
    start = WHOLE.since_seconds
    assert history.refusals == ()
    assert [
        (a.began_seconds - start, a.ended_seconds and a.ended_seconds - start, a.state)
        for a in history.alarms
    ] == alarms


def test_refusals() -> None:
    """What a limit refuses is no alarm, and lasts in the same way."""
    entries = [replace(BEGAN, cause=LIMIT), replace(ENDED, cause=LIMIT), BEGAN]
    history = history_of([*entries, at(5, "growth_refused", cause=LIMIT)], WHOLE)
    assert [refusal.state for refusal in history.refusals] == ["told", "resolved"]
    assert [alarm.cause for alarm in history.alarms] == [DENIED]


EVERYTHING = history_of(
    [*GROWTH, BEGAN, replace(BEGAN, cause=LIMIT), replace(ENDED, cause=LIMIT, sentence="<&>")],
    replace(WHOLE, sources=("the journal",), unreadable_lines=2, notes=("2 lines",)),
)


def test_as_json() -> None:
    """The document has a version, times in UTC, and the same keys whatever there is to tell."""
    found = as_dict(EVERYTHING)
    json.dumps(found)
    assert (found["schema"], found["mountpoint"]) == (1, "/scratch")
    assert found.keys() == as_dict(WHOLE).keys()
    assert found["total"] == {
        "growths": 1,
        "added_bytes": 50 * GIB,
        "added_usd_per_month": 4.0,
        "refusals": 1,
        "alarms": 1,
    }
    (growth,), (refusal,), (alarm,) = found["growths"], found["refusals"], found["alarms"]
    assert growth["time"].endswith("+00:00")
    assert growth["steps"]["AttachVolume"] == 4.0
    assert (refusal["cause"], refusal["seconds"], refusal["state"]) == (LIMIT, 600.0, "resolved")
    assert (alarm["ended"], alarm["seconds"], alarm["hint"]) == (None, None, "h")


def test_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each growth, refusal and alarm has a line with its values, in the order of time."""
    monkeypatch.delenv("COLUMNS", raising=False)
    growth, alarm, refused, summary, note = as_text(EVERYTHING).splitlines()
    for value in (G1, "50 GiB", "vol-1", "4.5 s", "attach 4.0 s", "+4.00 USD", "19 %"):
        assert value in growth
    assert f"({DENIED})" in alarm
    assert f"({LIMIT}) for 10 min" in refused
    assert "1 growth, 50 GiB added, +4.00 USD a month; 1 refusal, 1 alarm" in summary
    assert note == "note: 2 lines"
    unknown = replace(EVERYTHING.growths[0], added_usd_per_month=None)
    partly = replace(EVERYTHING, growths=(*EVERYTHING.growths, unknown))
    assert "100 GiB added, +4.00 USD a month or more" in as_text(partly)
    assert "at unknown cost" in as_text(replace(EVERYTHING, growths=(unknown,)))
    (nothing,) = as_text(replace(WHOLE, sources=("the journal",))).splitlines()
    assert "nothing was logged for /scratch" in nothing


@pytest.mark.parametrize(
    "history",
    [
        EVERYTHING,
        WHOLE,
        replace(EVERYTHING, mountpoint="/a<&>\x00\ud800\ufffe"),
        replace(EVERYTHING, until_seconds=EVERYTHING.since_seconds),
        replace(EVERYTHING, growths=(replace(EVERYTHING.growths[0], size_bytes=2**56),)),
        replace(EVERYTHING, growths=(replace(EVERYTHING.growths[0], size_bytes=None),)),
    ],
)
def test_as_a_picture(history: History) -> None:
    """It is an SVG with a title, both axes and a mark for each event, all inside its frame."""
    root = ET.fromstring(svg_of(history).encode())  # noqa: S314 -- our own picture
    tags = [each.tag.rpartition("}")[2] for each in root]
    assert tags.count("circle") == len(history.growths)
    assert tags.count("rect") == len(history.refusals) + len(history.alarms)
    assert tags.count("text") >= 1 + 5 + 5
    for each in root.iter():
        for name, end in {"x": 860.0, "cx": 860.0, "y": 360.0, "cy": 360.0}.items():
            assert 0 <= float(each.get(name, 0)) <= end


DAY = 24 * 3600


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("2 days ago", 2 * DAY),
        ("  2  days  ago ", 2 * DAY),
        ("1 week ago", 7 * DAY),
        ("-2h", 7200),
        ("12h", 12 * 3600),
        ("90s", 90),
        ("5 min", 300),
        ("1.5 hours ago", 5400),
        ("0s", 0),
    ],
)
def test_moments_before_now(text: str, ago: float) -> None:
    """A duration is counted back from now."""
    assert parse_moment(text, now_seconds=NOW) == NOW - ago


def test_moments_of_the_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A date is local, and begins at midnight; an offset from UTC may be given."""
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        # NOW is 2026-11-28 10:00 in UTC, and 12:00 there.
        found = {
            text: (NOW - parse_moment(text, now_seconds=NOW)) / 3600
            for text in (
                *("today", "yesterday", "2026-11-27", "2026-11-28 12:00", "2026-11-28T05:00:00Z"),
                "2026-11-28 06:00+01:00",
            )
        }
    finally:
        monkeypatch.undo()
        time.tzset()
    assert list(found.values()) == [12, 36, 36, 0, 5, 5]


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "soon", "tomorrow", "1h30m", "2 months ago", "\uff12h", "2026-13-01"),
        *("2026-11-27 25:00", "0001-01-01", "20261127", "now", "@17", "--2h"),
    ],
)
def test_what_is_no_moment(text: str) -> None:
    """Whatever else there is, is refused with the forms that there are."""
    with pytest.raises(ValueError, match="2 days ago"):
        parse_moment(text, now_seconds=NOW)


@pytest.mark.parametrize("text", ["2027-01-01", "2026-11-28T10:01Z", "99999999 weeks ago"])
def test_moments_that_are_not_in_the_past(text: str) -> None:
    """Neither the future nor a time before all journals is meant."""
    with pytest.raises(ValueError, match="must be in the past"):
        parse_moment(text, now_seconds=NOW)
