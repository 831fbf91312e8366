"""Sizes, shares and durations as people write them, and back."""

import re
from decimal import Decimal

BYTES_OF = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))}
SECONDS_OF = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
}

# The largest EBS volume is 64 TiB (facts/aws.md section 1) and an instance takes 128 of
# them, 8 PiB in all; what is eight times beyond that is a slip of the pen.
LARGEST_SIZE_BYTES = 64 * 1024**5
LONGEST_DURATION_SECONDS = 365 * 24 * 3600.0

# Above this many units the next larger one reads better: 90 s, but 5 min.
_MOST_OF = {"ms": 1000.0, "s": 120.0, "min": 60.0, "h": float("inf")}
# Whole GiB, as EBS sells them, are said exactly up to here: 1500 GiB, not 1.46 TiB.
_EXACT_BELOW_GIB = 10_000

_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([A-Za-z%]*)", re.ASCII)


def parse_size(text: str) -> int:
    """A size is a positive number with a binary unit, `20GiB` or `1.5TiB`; returns bytes.

    Decimal units are refused, not guessed: EC2 counts in GiB. Raises ValueError.
    """
    number, unit = _quantity(text, "a size; write for example 20GiB")
    if unit not in BYTES_OF:
        allowed = f"{', '.join(list(BYTES_OF)[1:-1])} or {list(BYTES_OF)[-1]}"
        meant = f"{text.strip().removesuffix(unit).strip()}{_likely(unit)}"
        raise ValueError(
            f"{shown(text)} is not a size; its unit must be {allowed}, did you mean {meant}?"
        )
    size_bytes = int(number * BYTES_OF[unit])
    if size_bytes <= 0:
        raise ValueError(f"{shown(text)} is not a size; it must be more than zero")
    if size_bytes > LARGEST_SIZE_BYTES:
        most = format_size(LARGEST_SIZE_BYTES)
        raise ValueError(f"{shown(text)} is not a sensible size; it may be {most} at most")
    return size_bytes


def parse_share(text: str, *, below_percent: float = 100.0) -> float:
    """A share is a percentage above 0 % and below the bound, `20%`; returns percent.

    Raises ValueError.
    """
    number, unit = _quantity(text, "a share; write for example 20%")
    if unit != "%":
        raise ValueError(f"{shown(text)} is not a share; write it in percent, for example 20%")
    if not 0 < number < Decimal(below_percent):
        allowed = f"it must be above 0% and below {below_percent:g}%"
        raise ValueError(f"{shown(text)} is not a sensible share; {allowed}")
    return float(number)


def parse_duration(
    text: str,
    *,
    shortest_seconds: float = 0.0,
    longest_seconds: float = LONGEST_DURATION_SECONDS,
) -> float:
    """A duration is a number with a unit, `100ms`, `90s`, `5m` or `1h`; returns seconds.

    Zero is a duration. Raises ValueError.
    """
    number, unit = _quantity(text, "a duration; write for example 90s")
    if unit not in SECONDS_OF:
        raise ValueError(f"{shown(text)} is not a duration; its unit must be ms, s, m or h")
    seconds = float(number * SECONDS_OF[unit])
    if not shortest_seconds <= seconds <= longest_seconds:
        bounds = f"{format_duration(shortest_seconds)} to {format_duration(longest_seconds)}"
        raise ValueError(f"{shown(text)} is not a sensible duration here; allowed is {bounds}")
    return seconds


def format_size(size_bytes: int) -> str:
    """A size for people, three digits of it: `312 MiB`, `1.5 TiB`; whole GiB stay exact."""
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
    """A duration for people, to a tenth of the unit: `100 ms`, `90 s`, `5 min`, `1.5 h`."""
    if not seconds:
        return "0 s"
    for unit, most in _MOST_OF.items():
        number = round(seconds / float(SECONDS_OF[unit]), 1)
        if abs(number) < most:
            break
    return f"{number:.10g} {unit}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 device`, `2 devices`; `plural` where it is not the noun and an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def shown(text: str) -> str:
    """A value quoted for a message, on one line and never long."""
    most = 60
    return repr(text if len(text) <= most else f"{text[:most]}…")


def _quantity(text: str, expected: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{shown(text)} is not {expected}")
    return Decimal(match[1]), match[2]


def _likely(unit: str) -> str:
    letter = unit[:1].upper()
    return f"{letter}iB" if letter in {"K", "M", "T"} else "GiB"


def _three_digits(number: float) -> float:
    return round(number, 2 if number < 10 else 1 if number < 100 else 0)
