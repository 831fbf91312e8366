"""How each value of the configuration is read; a wrong one says what is allowed."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from ebs_autoscale.config.yaml_source import Mistake, MistakesFound, Parser, Place, parse_mapping
from ebs_autoscale.policy import LadderStep
from ebs_autoscale.units import parse_duration, parse_share, parse_size, shown

# EC2 allows 50 tags per volume (facts/aws.md section 4); five are ours, five are room for
# what a cost allocation or backup service adds.
MOST_TAGS = 40
# A writer at 1 GB/s is through with it in the time that one add takes.
RESERVE_LEAST_BYTES = 64 * 1024**2
RESERVED_TAG_PREFIXES = ("aws:", "ebs-autoscale:")


def scalar(parse: Callable[[str], Any]) -> Parser:
    """A parser of text as a parser of places; ValueError when there is no single value."""
    return lambda place: parse(place.text())


def or_null(parse: Parser, null: Any = None) -> Parser:
    """The same parser where `null` has a meaning too."""
    return lambda place: null if place.is_null else parse(place)


def not_built_yet(*accepted: str) -> Parser:
    """A key that the contract has and this version does not: only what changes nothing passes."""

    def parse(place: Place) -> None:
        if place.written not in {*accepted, *map(repr, accepted)}:
            passing = " or ".join(accepted)
            raise ValueError(
                f"{place.written} is not supported by this version yet, only {passing}"
            )

    return parse


def one_of(*choices: str, kind: Callable[[str], Any] = str) -> Parser:
    """One of these words, as `kind` makes it."""

    def parse(text: str) -> Any:
        if text in choices:
            return kind(text)
        near = difflib.get_close_matches(text.lower(), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{shown(text)} is not one of {', '.join(choices)}{hint}")

    return scalar(parse)


def whole(least: int, most: int, *, auto: bool = False) -> Parser:
    """A whole number within bounds; with `auto` also that word, which is None."""

    def parse(text: str) -> int | None:
        if auto and text == "auto":
            return None
        if re.fullmatch(r"0|[1-9][0-9]{0,9}", text) and least <= int(text) <= most:
            return int(text)
        allowed = f"a whole number from {least} to {most}"
        raise ValueError(
            f"{shown(text)} is {f'neither auto nor {allowed}' if auto else f'not {allowed}'}"
        )

    return scalar(parse)


def duration(shortest_seconds: float, longest_seconds: float) -> Parser:
    """A duration within bounds, in seconds."""
    return scalar(
        partial(parse_duration, shortest_seconds=shortest_seconds, longest_seconds=longest_seconds)
    )


def mountpoint(text: str) -> str:
    """An absolute path without detours, as the kernel's mount table has it."""
    parts = [part for part in text.split("/") if part]
    if not text.startswith("/") or {".", ".."} & set(parts):
        raise ValueError(f"{shown(text)} is not an absolute path; write for example /scratch")
    return "/" + "/".join(parts)


def growth_size(text: str) -> dict[str, float]:
    """The fields of Sizing that a share or a size sets."""
    if not re.match(r"[0-9.]+ ?[A-Za-z%]", text):
        raise ValueError(f"{shown(text)} is neither a size (100GiB) nor a share (50%)")
    if text.strip().endswith("%"):
        # Ten times the present size in one growth is a slip of the pen.
        return {"percent": parse_share(text, below_percent=1000)}
    return {"fixed_bytes": parse_size(text)}


def lead_time(text: str) -> float | None:
    """Seconds; None is auto, 0 is off, as in Threshold."""
    named: dict[str, float | None] = {"auto": None, "off": 0.0}
    if text in named:
        return named[text]
    if not text[:1].isdigit():
        raise ValueError(f"{shown(text)} is not one of auto, off or a duration (90s)")
    return parse_duration(text, longest_seconds=24 * 3600)


def reserve(text: str) -> int | None:
    """Bytes; None is auto, 0 is off, as in Settings."""
    named: dict[str, int | None] = {"auto": None, "off": 0}
    if text in named:
        return named[text]
    if not text[:1].isdigit():
        raise ValueError(f"{shown(text)} is not one of auto, off or a size (256MiB)")
    size_bytes = parse_size(text)
    if size_bytes < RESERVE_LEAST_BYTES:
        raise ValueError(f"{shown(text)} is gone before a device is added; at least 64MiB, or off")
    return size_bytes // 4096 * 4096


def boolean(text: str) -> bool:
    """True or false in any of YAML 1.1's spellings, quoted or not."""
    truths = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if text.lower() in truths:
        return truths[text.lower()]
    raise ValueError(f"{shown(text)} is neither true nor false")


def kms_key_id(text: str) -> str:
    """A key id, `alias/NAME` or an ARN; which of them exists is for KMS to say."""
    if re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", text):
        return text
    raise ValueError(f"{shown(text)} is not a KMS key id, an alias/NAME or an ARN")


def tags(place: Place) -> dict[str, str]:
    """Tags for EC2: text to text within its limits, and none that we or AWS reserve."""
    values: dict[str, str] = {}
    mistakes = []
    for entry in place.entries():
        try:
            name = _tag_text(Place(entry.path, entry.line, entry.key or entry.node), most=128)
            _refuse_reserved(name, values)
            values[name] = _tag_text(entry, most=256)
        except ValueError as error:
            mistakes.append(Mistake(entry.line, f"{entry.path}: {error}"))
    if len(values) > MOST_TAGS:
        too_many = f"{place.path}: {len(values)} tags, of which {MOST_TAGS} would fit"
        mistakes.append(Mistake(place.line, too_many))
    if mistakes:
        raise MistakesFound(*mistakes)
    return values


def ladder(place: Place) -> tuple[LadderStep, ...]:
    """The rungs, ascending by devices; each names all three of its values."""
    rungs: list[LadderStep] = []
    mistakes: list[Mistake] = []
    for item in place.items():
        try:
            rungs.append(_rung(item))
        except MistakesFound as found:
            mistakes.extend(found.mistakes)
            continue
        if len(rungs) > 1 and rungs[-1].devices <= rungs[-2].devices:
            falls = f"{rungs[-1].devices} is not above {rungs[-2].devices}, the rung before"
            mistakes.append(Mistake(item.line, f"{item.path}.members: {falls}; let them ascend"))
    if mistakes:
        raise MistakesFound(*mistakes)
    if not rungs:
        raise ValueError("a ladder without rungs; leave the key out for none")
    return tuple(rungs)


def _rung(item: Place) -> LadderStep:
    fields = {
        "members": ("devices", whole(1, 1000)),
        "available": ("available_percent", scalar(parse_share)),
        "size": ("size_bytes", scalar(parse_size)),
    }
    parsed = parse_mapping(
        item, {f"{item.path}.{key}": parse for key, (_, parse) in fields.items()}
    )
    missing = [key for key in fields if f"{item.path}.{key}" not in parsed.lines]
    if missing and not parsed.mistakes:
        parsed.mistakes.append(Mistake(item.line, f"{item.path}: lacks {', '.join(missing)}"))
    if parsed.mistakes:
        raise MistakesFound(*parsed.mistakes)
    return LadderStep(
        **{field: parsed.values[f"{item.path}.{key}"] for key, (field, _) in fields.items()}
    )


def _tag_text(place: Place, *, most: int) -> str:
    if not place.is_string:
        raise ValueError(f"{place.written} is not text; put it in quotes")
    text = place.text()
    if len(text) > most:
        raise ValueError(f"{shown(text)} has {len(text)} characters, EC2 allows {most}")
    return text


def _refuse_reserved(name: str, known: dict[str, str]) -> None:
    if not name:
        raise ValueError("a tag needs a name")
    if name in known:
        raise ValueError("written twice")
    if prefix := next((p for p in RESERVED_TAG_PREFIXES if name.lower().startswith(p)), ""):
        raise ValueError(f"names that begin with {prefix} are reserved")
