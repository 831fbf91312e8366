"""`history`: growths, refusals and alarms of the past, from the journal and the log."""

import gzip
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.cli.history_plot import svg_of
from ebs_autoscale.cli.terminal import columns
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, CommandFailed, ConfigInvalid, EbsAutoscaleError, Exit, Unfit
from ebs_autoscale.host import files, paths
from ebs_autoscale.host.command import run
from ebs_autoscale.telemetry.entries import JOURNAL_FIELDS, Entry, of_journal, of_log
from ebs_autoscale.telemetry.history import (
    KINDS,
    Alarm,
    AlarmState,
    History,
    PastGrowth,
    as_dict,
    history_of,
)
from ebs_autoscale.telemetry.logs import message_id
from ebs_autoscale.units import (
    counted,
    format_duration,
    format_size,
    json_text,
    parse_moment,
    wrapped,
)

# 10,000 of them are 7 MiB of JSON. A growth has a dozen, so that is a thousand growths.
ENTRIES_MAX = 10_000
# A sentence and a hint have 5,000 characters each at the most; what is longer is read in pieces.
_LINE_MAX = 64 * 1024
_TIMEOUT_SECONDS = 60.0

_STEPS = {
    "CreateVolume": "create",
    "AttachVolume": "attach",
    "AddDevice": "add",
    "BalanceMetadata": "balance",
}


@dataclass(slots=True)
class _Found:
    """What was read of one source: the newest entries, and what is missing from them."""

    name: str
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=ENTRIES_MAX))
    problems: list[EbsAutoscaleError] = field(default_factory=list)
    unreadable_lines: int = 0
    is_cut: bool = False

    def notes(self) -> Iterator[str]:
        yield from map(str, self.problems)
        if self.unreadable_lines:
            lines = counted(self.unreadable_lines, "line is", "lines are")
            yield f"{lines} left out: not understood in {self.name}"
        if self.is_cut:
            yield (
                f"only the newest {ENTRIES_MAX} entries of {self.name} were read; choose a later "
                "--since to see all of that time"
            )

    def read(self, lines: Iterable[str], parse: Callable[[str], Entry | None]) -> None:
        for line in lines:
            try:
                entry = parse(line)
            except ValueError:
                self.unreadable_lines += 1
                continue
            if entry and entry.kind in KINDS:
                self.is_cut |= len(self.entries) == ENTRIES_MAX
                self.entries.append(entry)


def show(config_path: Path, since: str, *, as_json: bool, plot: Path | None) -> int:
    """Print the history of the configured mountpoint, or of all without a configuration."""
    try:
        since_seconds = parse_moment(since, now_seconds=SystemClock().wall_seconds())
    except ValueError as error:
        raise ConfigInvalid(f"--since {error}", cause=Cause.USAGE) from error
    mountpoint = config.load(config_path).mountpoint if config.exists(config_path) else ""
    history = _look(mountpoint, since_seconds)
    if plot:
        files.replace(plot, svg_of(history))
    print(json_text(as_dict(history), indent=1) if as_json else as_text(history))
    return Exit.SUCCESS


def _look(mountpoint: str, since_seconds: float) -> History:
    """What journal and log have; raises Unfit if nothing can be read of them."""
    found = [_journal(since_seconds), *_log(since_seconds)]
    problems = [problem for source in found for problem in source.problems]
    if problems and not any(source.entries for source in found):
        raise problems[0]
    return history_of(
        [entry for source in found for entry in source.entries],
        History(
            mountpoint=mountpoint,
            since_seconds=since_seconds,
            until_seconds=SystemClock().wall_seconds(),
            sources=tuple(source.name for source in found),
            unreadable_lines=sum(source.unreadable_lines for source in found),
            notes=tuple(note for source in found for note in source.notes()),
        ),
    )


def _journal(since_seconds: float) -> _Found:
    """The entries of root's daemons in the journal: another user could log such entries too."""
    found = _Found("the journal")
    argv = [
        *("journalctl", "--output=json", "--all", "--no-pager", "--quiet"),
        f"--since=@{since_seconds:.0f}",
        # One more, to tell that there are more.
        f"--lines={ENTRIES_MAX + 1}",
        f"--output-fields={','.join(JOURNAL_FIELDS)}",
        "_UID=0",
        *(f"MESSAGE_ID={message_id(kind)}" for kind in KINDS),
    ]
    try:
        output = run(argv, timeout_seconds=_TIMEOUT_SECONDS)
    except CommandFailed as error:
        why = error.stderr.strip().splitlines()[-1:] or ["it did not answer in time"]
        hint = "use sudo, or look whether systemd-journald is running"
        unreadable = f"cannot read the journal: {why[0].rstrip('.')}"
        found.problems.append(Unfit(unreadable, hint=hint, cause=Cause.FILE))
        return found
    except EbsAutoscaleError as error:
        found.problems.append(error)
        return found
    # Only a newline ends an entry: there may be other separators of lines in its texts.
    found.read((line for line in output.split("\n") if line), of_journal)
    if not found.entries and os.geteuid() != 0:
        what = "this user can read no entry of ebs-autoscale in the journal"
        hint = "use sudo, or join the group systemd-journal"
        found.problems.append(Unfit(what, hint=hint, cause=Cause.NOT_ROOT))
    return found


def _log(since_seconds: float) -> list[_Found]:
    """The log of detached daemons, with what was rotated away since; nothing where there is none.

    What was read of a file before it turns out to be damaged counts.
    """
    log = paths.LOG_FILE
    found = _Found(str(log))
    written: dict[Path, float] = {}
    for path in log.parent.glob(f"{log.name}*"):
        with suppress(OSError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and status.st_mtime >= since_seconds:
                written[path] = status.st_mtime
    for path in sorted(written, key=lambda each: written[each]):
        try:
            found.read(_lines_of(path), _LogParser(since_seconds))
        except (OSError, EOFError, zlib.error) as error:
            what = f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
            hint = "use sudo, or remove the file if it is damaged"
            found.problems.append(Unfit(what, hint=hint, cause=Cause.FILE))
    return [found] if written else []


def _lines_of(path: Path) -> Iterator[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
        while line := file.readline(_LINE_MAX):
            yield line


class _LogParser:
    """The entries of a log; a traceback, which follows the line of a bug, is none."""

    def __init__(self, since_seconds: float) -> None:
        self._since_seconds = since_seconds
        self._in_traceback = False

    def __call__(self, line: str) -> Entry | None:
        try:
            entry = of_log(line)
        except ValueError:
            if self._in_traceback:
                return None
            raise
        self._in_traceback = entry.kind == "bug"
        return entry if entry.at_seconds >= self._since_seconds else None


def as_text(history: History) -> str:
    """The history for people: a line for each growth, refusal and alarm, and a summary."""
    told = [(growth.at_seconds, _growth(growth)) for growth in history.growths]
    told += [(alarm.began_seconds, _alarm(alarm)) for alarm in (*history.refusals, *history.alarms)]
    lines = [f"{_local(seconds)}  {text}" for seconds, text in sorted(told)]
    lines += [_summary(history), *(f"note: {note}" for note in history.notes)]
    return "\n".join(wrapped(line, columns(), indent="    ") for line in lines)


def _growth(growth: PastGrowth) -> str:
    size = "a volume" if growth.size_bytes is None else format_size(growth.size_bytes)
    text = f"growth {growth.growth}: {size}"
    if growth.volume:
        text += f" in {growth.volume}"
    if growth.seconds is not None:
        text += f" after {growth.seconds:.1f} s"
    if growth.steps:
        steps = (f"{_STEPS.get(step, step)} {took:.1f} s" for step, took in growth.steps.items())
        text += f" ({', '.join(steps)})"
    if growth.added_usd_per_month is not None:
        text += f", {growth.added_usd_per_month:+.2f} USD a month"
    reason = growth.reason.removeprefix("grow: ")
    return f"{text}; {reason}" if reason else text


def _alarm(alarm: Alarm) -> str:
    text = f"{'refused' if alarm.is_refusal else 'alarm'} ({alarm.cause})"
    # Earlier versions have not told how long it had lasted.
    ended = alarm.ended_seconds or 0.0
    if ended > alarm.began_seconds:
        text += f" for {format_duration(round(ended - alarm.began_seconds))}"
    match alarm.state:
        case AlarmState.LASTING:
            text += ", not resolved"
        case AlarmState.INTERRUPTED:
            text += ", until the daemon ended"
    return f"{text}: {alarm.sentence}"


def _summary(history: History) -> str:
    since = f"since {_local(history.since_seconds)}"
    where = f" for {history.mountpoint}" if history.mountpoint else ""
    if not history.entries:
        sources = " and ".join(history.sources)
        return f"nothing was logged{where} {since} ({sources})"
    text = counted(len(history.growths), "growth")
    if history.growths:
        usd = history.added_usd_per_month
        cost = "at unknown cost" if usd is None else f"{usd:+.2f} USD a month"
        if usd is not None and any(each.added_usd_per_month is None for each in history.growths):
            cost += " or more"
        text += f", {format_size(history.added_bytes)} added, {cost}"
    refusals = counted(len(history.refusals), "refusal")
    alarms = counted(len(history.alarms), "alarm")
    return f"{text}; {refusals}, {alarms}{where} {since}"


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
