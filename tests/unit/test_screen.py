"""The screen of `status`: its width, its words, and what it says of a mountpoint."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ebs_autoscale.cli.look import FilesystemStatus, Status
from ebs_autoscale.cli.screen import page
from ebs_autoscale.cli.terminal import Look, has_escapes, terminal_look
from ebs_autoscale.cli.throttled import Throttled
from ebs_autoscale.config import Settings
from ebs_autoscale.ec2.ebs_statistics import Exceeded
from ebs_autoscale.errors import Cause, ConfigInvalid, Problem, Unfit
from ebs_autoscale.model import GIB, Device, FilesystemKind, Inodes, Quota
from ebs_autoscale.policy import GrowthPolicy, Limits, Remark, Shortage
from ebs_autoscale.policy.shortage import Resource
from ebs_autoscale.telemetry import ManagedVolumes, RecentGrowth, RunningDaemon, State, View
from tests.unit.samples import reading_of

NOW = 1_800_000_000.0
LONG = (
    "EC2 has refused CreateVolume (UnauthorizedOperation): the role of this instance may not "
    "create volumes of this type; add what `ebs-autoscale iam-policy` prints to the role "
    "arn:aws:iam::123456789012:role/a/rather/long/path/of-a-role-of-a-large-organisation"
)


def seen_of(size_gib: float = 100, available_gib: float = 40, devices: int = 2) -> FilesystemStatus:
    """A healthy filesystem of EBS volumes."""
    reading = reading_of(size_gib, available_gib)
    found = tuple(
        Device(
            devid=number,
            name=f"nvme{number}n1",
            size_bytes=int(size_gib / devices * GIB),
            unallocated_bytes=int(available_gib / devices / 2 * GIB),
        )
        for number in range(1, devices + 1)
    )
    return FilesystemStatus(
        reading=replace(
            reading, devices=found, quota=Quota(qgroup="0/256", limit_bytes=9 * GIB, left_bytes=GIB)
        ),
        reserve_wanted_bytes=GIB,
        shortage=None,
        problems=(),
        operation="balance",
        progress="3 of 12 chunks moved",
        volumes={device.name: f"vol-{device.devid:017x}" for device in found},
        fill_bytes_per_second=0.0,
        usd_per_month=12.0,
        cost="about 12.00 USD a month at the list price of us-east-1",
    )


def daemon_of(**changes: object) -> RunningDaemon:
    """A daemon that watches."""
    view = replace(View(state=State.WATCHING), **changes)  # type: ignore[arg-type]  # any of it
    return RunningDaemon(pid=4711, version="1", resident_bytes=20 * 1024**2, view=view)


def status_of(**changes: object) -> Status:
    """The status of a healthy mountpoint without a daemon."""
    policy = GrowthPolicy(limits=Limits(volumes=9, monthly_usd=200))
    status = Status(
        config=Path("/etc/ebs-autoscale/config.yaml"),
        at_seconds=NOW,
        settings=Settings(mountpoint="/scratch", policy=policy),
        filesystem=seen_of(),
        reload_command="systemctl reload ebs-autoscale",
    )
    return replace(status, **changes)  # type: ignore[arg-type]  # any of it


def text_of(status: Status, **look: object) -> str:
    """All words of the screen, one space between two."""
    lines = page([status], Look(**look))  # type: ignore[arg-type]  # any of it
    return " ".join(" ".join(lines).split())


GROWTHS = tuple(
    RecentGrowth(
        ended_at=int(NOW) - 10**number,
        growth=f"dbace29e-{number}",
        seconds=4.6 * 10**number,
        size_bytes=GIB * 10**number,
        volume=f"vol-{number:017x}",
    )
    for number in range(5)
)
ALL = daemon_of(
    conditions={"denied": LONG, "limits.total": LONG},
    activity=LONG,
    retry_at=NOW + 53,
    recent=GROWTHS,
    managed=ManagedVolumes(
        volumes=3,
        size_bytes=10**18,
        orphans=7,
        slots_free=24,
        usd_per_month=1234567.5,
        cost="about 1234567.50 USD a month",
    ),
)
DAMAGED = (
    Device(devid=1, name="nvme1n1", size_bytes=0, unallocated_bytes=0, missing=True),
    Device(devid=2, name="", size_bytes=GIB, unallocated_bytes=GIB, writable=False),
)
EXTREMES = {
    "no daemon": status_of(),
    "everything": status_of(daemon=ALL),
    "many devices": status_of(filesystem=seen_of(65_536, 1, devices=128)),
    "huge": status_of(filesystem=seen_of(8 * 1024**2, 1024)),
    "empty": status_of(filesystem=seen_of(0, 0)),
    "overfull": status_of(filesystem=seen_of(10, 11)),
    "short": status_of(
        daemon=ALL,
        filesystem=replace(
            seen_of(100, 1),
            shortage=Shortage(Resource.DATA, LONG),
            problems=(Problem(Cause.FULL, LONG, LONG),),
            remarks=(Remark("slack", LONG, LONG),),
            fill_bytes_per_second=1e9,
            throttled=Throttled({"nvme1n1": Exceeded(9, 9, 9, 1e9)}, 10.0),
        ),
    ),
    "in a moment": status_of(
        filesystem=replace(seen_of(100, 1), fill_bytes_per_second=1e10),
        daemon=daemon_of(retry_at=NOW + 0.3),
    ),
    "ext4": status_of(
        filesystem=replace(
            seen_of(),
            reading=reading_of(
                100,
                10,
                kind=FilesystemKind.EXT4,
                metadata_headroom_bytes=None,
                metadata_profile="",
                inodes=Inodes(total=6_553_600, available=65_535),
                statvfs_available_bytes=10 * GIB,
            ),
            volumes={"nvme0n1": "vol-1"},
            shortage=Shortage(Resource.INODES, LONG),
            operation="none",
            progress="",
        )
    ),
    "unfit": status_of(
        filesystem=None,
        unfit=Unfit(LONG, hint=LONG, cause=Cause.READ_ONLY),
        devices=DAMAGED,
        daemon=ALL,
    ),
    "invalid": status_of(
        settings=None, filesystem=None, unfit=ConfigInvalid(LONG, cause=Cause.CONFIGURATION)
    ),
    "odd names": status_of(
        settings=Settings(mountpoint="/a\nb\udcff" + "/long" * 60),
        daemon=daemon_of(activity="waiting for /dev/\x1b[2J\nx"),
    ),
}


@pytest.mark.parametrize("status", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("columns", [40, 80, 81, 200, None])
def test_no_line_is_too_long_and_no_word_broken(status: Status, columns: int | None) -> None:
    """A line is longer than the screen only for a word that is; what is told is there in full."""
    look = Look(columns=columns, used="█", free="▒", unallocated="░")
    lines = page([status, status], look)
    for line in lines:
        assert columns is None or len(line) <= columns or len(line.split()) == 1, line
    words = text_of(status, columns=columns)
    assert " in 0 s" not in words
    for alarm in status.alarms:
        assert " ".join(alarm.split()) in words
    for volume in status.filesystem.volumes.values() if status.filesystem else ():
        assert f" {volume} " in words


@pytest.mark.parametrize("status", EXTREMES.values(), ids=EXTREMES)
def test_colours_change_no_word(status: Status) -> None:
    """With them the screen is the same; without blocks it is ASCII."""
    plain = page([status], Look())
    coloured = page([status], Look(colour=True))
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == plain
    assert any("\x1b" in line for line in coloured)
    assert all(line.isascii() and line.isprintable() for line in plain)


def test_a_pipe_has_each_finding_on_one_line() -> None:
    """With the command that it names, for a program that looks for it."""
    lines = page([EXTREMES["short"]], Look())
    for alarm in EXTREMES["short"].alarms:
        assert any(alarm in line for line in lines)


@example(2, 0.5, 0.5, 7)
@given(
    st.integers(min_value=1, max_value=10**19),
    st.floats(min_value=0, max_value=1.1),
    st.floats(min_value=0, max_value=1.1),
    st.integers(min_value=1, max_value=300),
)
def test_a_bar_is_as_wide_as_the_screen(
    size_bytes: int, available: float, unallocated: float, columns: int
) -> None:
    """Whatever the figures, which are of different moments."""
    reading = reading_of(1, 1)
    [device] = reading.devices
    reading = replace(
        reading,
        size_bytes=size_bytes,
        available_bytes=int(size_bytes * available),
        devices=(replace(device, unallocated_bytes=int(size_bytes * unallocated)),),
    )
    seen = replace(seen_of(), reading=reading)
    bar = page([status_of(filesystem=seen)], Look(columns=columns))
    width = max(1, columns - 4)
    assert any(re.fullmatch(f"  [#=-]{{{width}}}", line) for line in bar)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (600.0, "next retry in 10 min; `systemctl reload ebs-autoscale` retries at once"),
        (53.4, "next retry in 53 s;"),
        (1.0, "next retry in 1 s;"),
        (0.9, "next retry now"),
        (-5.0, "next retry now"),
    ],
)
def test_a_countdown(seconds: float, words: str) -> None:
    """It is right at the moment of the look, and never "in 0 s"."""
    shown = text_of(status_of(daemon=daemon_of(retry_at=NOW + seconds)))
    assert words in shown
    assert "in 0 s" not in shown


def test_no_alarm_twice() -> None:
    """What was seen is fresher than the same of the daemon, which knows why nothing is mounted."""
    error = Unfit("nothing is mounted", hint="mount it", cause=Cause.NOT_MOUNTED)
    told = {"missing device": "vol-1 is missing"}
    for state, alarms in (
        (State.WAITING, ["vol-1 is missing"]),
        (State.UNFIT, ["nothing is mounted; mount it", "vol-1 is missing"]),
    ):
        daemon = daemon_of(conditions=told, state=state)
        assert status_of(unfit=error, filesystem=None, daemon=daemon).alarms == alarms
    full = replace(seen_of(), problems=(Problem(Cause.FULL, "0 B left"),))
    daemon = daemon_of(conditions={"full": "1 B left"})
    assert status_of(filesystem=full, daemon=daemon).alarms == ["0 B left"]


@pytest.mark.parametrize(
    ("encoding", "env", "blocks"),
    [
        ("utf-8", {"LANG": "de_DE.UTF-8"}, True),
        ("utf-8", {"LC_CTYPE": "C.utf8"}, True),
        ("utf-8", {"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, False),
        ("utf-8", {}, False),
        ("utf-8", {"LC_CTYPE": "C.UTF-8"}, False),
        ("iso8859-1", {"LANG": "de_DE.UTF-8"}, False),
    ],
)
def test_blocks_need_utf8(encoding: str, env: dict[str, str], *, blocks: bool) -> None:
    """Of the stream and of the locale: Python sets LC_CTYPE itself where there is no locale."""
    look = terminal_look(80, is_terminal=True, encoding=encoding, env=env)
    assert (look.used == "█") is blocks


@pytest.mark.parametrize(
    ("is_terminal", "env", "colour"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_when_there_are_colours(*, is_terminal: bool, env: dict[str, str], colour: bool) -> None:
    """On a terminal that has them, unless $NO_COLOR is set to anything (no-color.org)."""
    assert terminal_look(80, is_terminal=is_terminal, encoding="utf-8", env=env).colour is colour


@pytest.mark.parametrize(
    ("is_terminal", "term", "has"),
    [(True, "xterm", True), (True, None, True), (True, "dumb", False), (False, "xterm", False)],
)
def test_only_a_terminal_is_redrawn(*, is_terminal: bool, term: str | None, has: bool) -> None:
    """On one that takes no escape sequences, `--watch` prints one look below the other."""
    env = {"TERM": term} if term else {}
    assert has_escapes(is_terminal=is_terminal, env=env) is has


def test_what_only_btrfs_has() -> None:
    """Elsewhere nothing is said of chunks, metadata or a reserve, but of inodes."""
    ext4, btrfs = text_of(EXTREMES["ext4"], columns=120), text_of(status_of(), columns=120)
    for words in ("unallocated", "allocated", "metadata dup", "reserve"):
        assert words not in ext4
    assert "unallocated" in btrfs
    assert "reserve" in btrfs
    assert "enlarge: " in ext4
    assert "inodes 65535 of 6553600 inodes (0.9 %) available" in ext4
    assert "filesystem ext4 6a92f8de-" in ext4
    seen = EXTREMES["ext4"].filesystem
    assert seen
    partition = replace(seen.reading.devices[0], partition="nvme0n1p1")
    reading = replace(seen.reading, devices=(partition,))
    assert "devices nvme0n1p1" in text_of(status_of(filesystem=replace(seen, reading=reading)))
    read_only = Unfit("it is read-only", cause=Cause.READ_ONLY)
    unfit = status_of(filesystem=None, unfit=read_only, devices=(partition,))
    assert partition.unallocated_bytes == 0
    assert "devices nvme0n1p1" in text_of(unfit)
    assert "allocated" not in text_of(unfit)
