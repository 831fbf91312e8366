"""What `plan --simulate` is asked for. Pure."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import FilesystemKind
from ebs_autoscale.units import parse_size, quoted

_HOURS_MAX = 24 * 366
_KEYS = ("rate", "hours", "size", "filesystem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A steady writer; size and kind are of an empty filesystem, None where they were not given."""

    rate_bytes_per_second: float
    seconds: float
    size_bytes: int | None = None
    kind: FilesystemKind | None = None


def parse_scenario(words: Sequence[str]) -> Scenario:
    """Read `rate=500MiB/s hours=2 size=100GiB filesystem=xfs`.

    Raises ConfigInvalid with what is wrong.
    """
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            meant = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(_KEYS)}"
            raise _invalid(f"{quoted(word)} is unknown; {meant}")
        if key in given:
            raise _invalid(f"duplicate key {key}: {quoted(given[key])} and {quoted(value)}")
        given[key] = value
    if missing := [key for key in ("rate", "hours") if key not in given]:
        raise _invalid(f"missing: {', '.join(missing)}")
    return Scenario(
        rate_bytes_per_second=_rate(given["rate"]),
        seconds=_hours(given["hours"]) * 3600,
        size_bytes=_size(given["size"]) if "size" in given else None,
        kind=_kind(given["filesystem"]) if "filesystem" in given else None,
    )


def _rate(text: str) -> int:
    size = text.removesuffix("/s")
    try:
        return parse_size(size)
    except ValueError as error:
        what = f"rate={quoted(text)} is not a rate above zero such as 500MiB/s, 1GiB/s or 20KiB/s"
        if meant := re.fullmatch(r"([1-9][0-9]{0,9})([KMGT]?)B?", size, re.IGNORECASE):
            what += f"; did you mean {meant[1]}{meant[2].upper() or 'M'}iB/s?"
        raise _invalid(what) from error


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise _invalid(f"size: {error}") from error


def _kind(text: str) -> FilesystemKind:
    if text not in set(FilesystemKind):
        raise _invalid(f"filesystem={quoted(text)} is none of {', '.join(FilesystemKind)}")
    return FilesystemKind(text)


def _hours(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII):
        raise _invalid(f"hours={quoted(text)} is not a positive number such as 2 or 0.5")
    hours = float(text)
    if not 0 < hours <= _HOURS_MAX:
        allowed = f"it must be above 0 and at most {_HOURS_MAX}"
        raise _invalid(f"hours={text} is out of range; {allowed}")
    return hours


def _invalid(what: str) -> ConfigInvalid:
    hint = "for example: --simulate rate=500MiB/s hours=2 (and size=100GiB for an empty filesystem)"
    return ConfigInvalid(f"--simulate: {what}", hint=hint, cause=Cause.USAGE)
