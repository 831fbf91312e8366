"""Sizes, percentages, durations and text as people read and write them."""

import json
import re
import textwrap
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

BYTES_OF = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))}
SECONDS_OF = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
}

# The largest EBS volume has 64 TiB and an instance takes at most 128 volumes
# (https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html and
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/volume_limits.html), 8 PiB in all. A size
# beyond eight times that is a typing error.
LARGEST_SIZE_BYTES = 64 * 1024**5
LONGEST_DURATION_SECONDS = 365 * 24 * 3600.0

# From this many units on the next larger unit reads better: 90 s, but 5 min.
_LIMIT_OF = {"ms": 1000.0, "s": 120.0, "min": 60.0, "h": float("inf")}
# Whole GiB, the sizes of EBS volumes, are exact up to here: 1500 GiB, not 1.46 TiB.
_EXACT_BELOW_GIB = 10_000

_QUOTED_MAX = 60
# The longest message of our own has a fifth of this; a path has at most 4096 bytes.
_PRINTED_MAX = 5000

# The space between a number and its unit: no line ends there.
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|[A-Z]|m?s\b|min\b|h\b))")
_AGO = re.compile(
    r"-?([0-9]{1,9}(?:\.[0-9]{1,9})?) ?"
    r"(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)(?: ago)?",
    re.ASCII,
)
_SECONDS_AGO = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([A-Za-z%]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size such as `20GiB` or `1.5TiB`: a positive number with a binary unit.

    Decimal units are refused, since EC2 counts in GiB. Raises ValueError.
    """
    number, unit = _quantity(text, "a size such as 20GiB")
    if unit not in BYTES_OF:
        allowed = f"{', '.join(list(BYTES_OF)[1:-1])} or {list(BYTES_OF)[-1]}"
        meant = f"{text.strip().removesuffix(unit).strip()}{_binary_unit(unit)}"
        raise ValueError(
            f"{quoted(text)} is not a size; the unit must be {allowed}. Did you mean {meant}?"
        )
    size_bytes = int(number * BYTES_OF[unit])
    if size_bytes <= 0:
        raise ValueError(f"{quoted(text)} is too small; a size must be more than zero")
    if size_bytes > LARGEST_SIZE_BYTES:
        largest = format_size(LARGEST_SIZE_BYTES)
        raise ValueError(f"{quoted(text)} is too large; the maximum is {largest}")
    return size_bytes


def parse_percentage(text: str, *, below: float = 100.0) -> float:
    """The percentage in text such as `20%`, above 0 and below the bound. Raises ValueError."""
    number, unit = _quantity(text, "a percentage such as 20%")
    if unit != "%":
        raise ValueError(f"{quoted(text)} is not a percentage such as 20%")
    if not 0 < number < Decimal(below):
        raise ValueError(
            f"{quoted(text)} is out of range; it must be above 0% and below {below:g}%"
        )
    return float(number)


def parse_duration(
    text: str,
    *,
    shortest_seconds: float = 0.0,
    longest_seconds: float = LONGEST_DURATION_SECONDS,
) -> float:
    """Seconds of a duration such as `100ms`, `90s`, `5m` or `0s`. Raises ValueError."""
    number, unit = _quantity(text, "a duration such as 90s")
    if unit not in SECONDS_OF:
        raise ValueError(f"{quoted(text)} is not a duration; the unit must be ms, s, m or h")
    seconds = float(number * SECONDS_OF[unit])
    if not shortest_seconds <= seconds <= longest_seconds:
        bounds = f"{format_duration(shortest_seconds)} to {format_duration(longest_seconds)}"
        raise ValueError(f"{quoted(text)} is out of range; allowed is {bounds}")
    return seconds


def parse_moment(text: str, *, now_seconds: float) -> float:
    """The moment in the past that text such as `2 days ago`, `-2h` or `2026-11-27 10:00` names.

    Both in seconds since the epoch; a time without an offset from UTC is local. Raises ValueError.
    """
    words = " ".join(text.split())
    if match := _AGO.fullmatch(words):
        seconds = now_seconds - float(match[1]) * _SECONDS_AGO[match[2][0]]
    else:
        today = datetime.fromtimestamp(now_seconds, UTC).astimezone().date()
        named = {"today": today, "yesterday": today - timedelta(days=1)}.get(words, words)
        try:
            # The regular expression, since Python takes more forms than are documented.
            moment = datetime.fromisoformat(_MOMENT.fullmatch(str(named))[0])  # type: ignore[index]
            seconds = moment.astimezone().timestamp()
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{quoted(text)} is not a time such as `2 days ago`, `12h`, `90s`, `yesterday`, "
                "`2026-11-27` or `2026-11-27 10:00`"
            ) from error
    if not 0 <= seconds <= now_seconds:
        when = "before 1970" if seconds < 0 else "in the future"
        raise ValueError(f"{quoted(text)} is {when}; it must be in the past")
    return seconds


def format_size(size_bytes: int) -> str:
    """A size in three digits, `312 MiB` or `1.5 TiB`; whole GiB are exact."""
    if size_bytes < 0:
        return f"-{format_size(-size_bytes)}"
    gib, rest = divmod(size_bytes, BYTES_OF["GiB"])
    if not rest and 0 < gib < _EXACT_BELOW_GIB and gib * 10 % 1024:
        return f"{gib} GiB"
    for unit, unit_bytes in BYTES_OF.items():
        number = _three_digits(size_bytes / unit_bytes)
        if number < 1024 or unit == "TiB":
            break
    return f"{number:.10g} {unit}"


def format_duration(seconds: float) -> str:
    """A duration to a tenth of its unit: `100 ms`, `90 s`, `5 min`, `1.5 h`."""
    if not seconds:
        return "0 s"
    for unit, limit in _LIMIT_OF.items():
        number = round(seconds / float(SECONDS_OF[unit]), 1)
        if abs(number) < limit:
            break
    return f"{number:.10g} {unit}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun: `1 device`, `2 devices`; `plural` where an s is not enough."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def quoted(text: str) -> str:
    """A value in quotes for a message, on one line and shortened if long."""
    return repr(text if len(text) <= _QUOTED_MAX else f"{text[:_QUOTED_MAX]}…")


def printable(text: str) -> str:
    """Text of unknown origin on one line, as any terminal, log or JSON parser can take it.

    A tab becomes a space; another control character, or half a surrogate pair, which stands for a
    byte that is no UTF-8, is escaped; what is very long is shortened.
    """
    text = " / ".join(text[: _PRINTED_MAX + 1].splitlines()).replace("\t", " ")
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
            for letter in text
        )
    return text if len(text) <= _PRINTED_MAX else f"{text[:_PRINTED_MAX]}…"


def wrapped(text: str, columns: int | None, *, first: str = "", indent: str = "") -> str:
    """The text in lines of at most so many columns, each of its own lines by itself.

    No word is broken in two, so that a long path or ARN has a longer line, and no number is
    separated from its unit. `None` columns wrap nothing. The first line begins with `first`, all
    others with `indent`.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        begins = indent if lines else first
        lines += textwrap.wrap(
            _BEFORE_UNIT.sub("\xa0", line),
            columns or len(begins) + len(line) + 1,
            initial_indent=begins,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [begins.rstrip()]
    return "\n".join(lines).replace("\xa0", " ")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON in ASCII that every parser takes: half a surrogate pair becomes `?`."""
    text = json.dumps(value, indent=indent)
    if "\\ud" in text:
        whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        text = json.dumps(json.loads(whole), indent=indent)
    return text


def _quantity(text: str, expected: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{quoted(text)} is not {expected}")
    return Decimal(match[1]), match[2]


def _binary_unit(unit: str) -> str:
    letter = unit[:1].upper()
    return f"{letter}iB" if letter in {"K", "M", "T"} else "GiB"


def _three_digits(number: float) -> float:
    return round(number, 2 if number < 10 else 1 if number < 100 else 0)
