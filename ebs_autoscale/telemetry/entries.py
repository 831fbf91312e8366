"""Events read back from the journal or from a log: what `history` is made of."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from ebs_autoscale.telemetry.logs import JOURNAL_NAMES
from ebs_autoscale.units import LARGEST_SIZE_BYTES, printable, quoted

# Beyond that a line is damaged: the year 5138.
_LATEST_SECONDS = 1e11
_MOST_USD = 1e9

_FIELD = r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)'
_KIND_AND_FIELDS = re.compile(rf"([a-z_]+)((?:{_FIELD})*)")
_TEXT_FIELD = re.compile(_FIELD)
# How often ` event=` may be in the values of a line, in quotes, behind the real one.
_FALSE_STARTS = 20

_NOT_OURS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event as it was logged at a time, in seconds since the epoch.

    The fields are those of Event, empty or None where they do not apply; those that are names may
    be of another version of the program.
    """

    at_seconds: float
    kind: str
    sentence: str
    hint: str = ""
    mountpoint: str = ""
    stage: str = ""
    growth: str = ""
    step: str = ""
    volume: str = ""
    cause: str = ""
    seconds: float | None = None
    size_bytes: int | None = None
    added_usd_per_month: float | None = None


_WORDS = ("hint", "mountpoint", "stage", "growth", "step", "volume", "cause")
_NUMBERS = {
    "seconds": _LATEST_SECONDS,
    "size_bytes": float(LARGEST_SIZE_BYTES),
    "added_usd_per_month": _MOST_USD,
}

JOURNAL_FIELDS = (
    *("MESSAGE", "EBS_AUTOSCALE_EVENT"),
    *(JOURNAL_NAMES.get(name, name.upper()) for name in (*_WORDS, *_NUMBERS)),
)
"""What `of_journal` reads, beside the time."""


def of_journal(line: str) -> Entry:
    """The entry in a line of `journalctl --output=json`; raises ValueError for anything else."""
    try:
        fields = json.loads(line)
        at_seconds = int(fields["__REALTIME_TIMESTAMP"]) / 1e6
        names = {name: JOURNAL_NAMES.get(name, name.upper()) for name in (*_WORDS, *_NUMBERS)}
        found = {name: _of_journal(fields[key]) for name, key in names.items() if key in fields}
        sentence, kind = (_of_journal(fields[key]) for key in ("MESSAGE", "EBS_AUTOSCALE_EVENT"))
        return _entry(at_seconds, kind, sentence, found)
    except _NOT_OURS as error:
        raise ValueError(f"not an entry of the journal: {quoted(line)}") from error


def _of_journal(value: Any) -> str:
    """A field as text: an array where it is no UTF-8 or comes more than once, null if too long.

    Source: https://systemd.io/JOURNAL_EXPORT_FORMATS, "Journal JSON Format".
    """
    if isinstance(value, list):
        if all(isinstance(each, int) for each in value):
            return bytes(value).decode("utf-8", "replace")
        return _of_journal(value[0])
    return "" if value is None else str(value)


def of_log(line: str) -> Entry:
    """The entry in a line of a daemon's log, text or JSON; raises ValueError for anything else."""
    try:
        if line.startswith("{"):
            fields = json.loads(line)
            return _entry(_seconds(fields["time"]), fields["event"], fields["message"], fields)
        time, _, rest = line.rstrip("\n").partition(" ")
        return _of_text(_seconds(time), rest)
    except _NOT_OURS as error:
        raise ValueError(f"not a line of the log: {quoted(line)}") from error


def _of_text(at_seconds: float, line: str) -> Entry:
    """The last ` event=` that only fields follow is ours: a sentence may have any words."""
    sentence, fields = line, ""
    for _ in range(_FALSE_STARTS):
        sentence, found, tail = sentence.rpartition(" event=")
        fields = tail + fields
        if match := found and _KIND_AND_FIELDS.fullmatch(fields):
            values = {
                name: json.loads(value) if value.startswith('"') else value
                for name, value in _TEXT_FIELD.findall(match[2])
            }
            return _entry(at_seconds, match[1], sentence, values)
        fields = found + fields
    raise ValueError("no event in it")


def _seconds(time: str) -> float:
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()


def _entry(at_seconds: float, kind: str, sentence: str, fields: Mapping[str, Any]) -> Entry:
    words: dict[str, Any] = {
        name: printable(str(fields[name])) for name in _WORDS if name in fields
    }
    numbers: dict[str, Any] = {name: float(fields[name]) for name in _NUMBERS if name in fields}
    for name, number in [*numbers.items(), ("time", at_seconds)]:
        if not (isfinite(number) and 0 <= number <= _NUMBERS.get(name, _LATEST_SECONDS)):
            raise ValueError(f"{name}: {number}")
    if "size_bytes" in numbers:
        numbers["size_bytes"] = int(numbers["size_bytes"])
    text = printable(str(sentence))
    return Entry(at_seconds=at_seconds, kind=str(kind), sentence=text, **words, **numbers)
