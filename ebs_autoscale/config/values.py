"""Parsers of the configuration's values; each says what it accepts."""

import difflib
import re
import shlex
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import yaml

from ebs_autoscale.config.yaml_source import Entry, Mistake, MistakesFound, Parser, parse_mapping
from ebs_autoscale.ec2.requests import RESERVED_TAG_PREFIXES, TAG_VALUE_MAX_LENGTH
from ebs_autoscale.model import MIB
from ebs_autoscale.policy import LadderStep
from ebs_autoscale.units import parse_duration, parse_percentage, parse_size, quoted

# A volume has up to 50 tags (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html);
# five are ours, and five are left for what cost allocation or a backup service adds.
TAGS_MAX = 40
_TAG_KEY_MAX_LENGTH = 128

# A writer of 1 GB/s fills less than this before one device is added.
RESERVE_MIN_BYTES = 64 * MIB
_PAGE_BYTES = 4096

_LISTEN = re.compile(
    r"(?:(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]*|localhost)):)?(?P<port>[1-9][0-9]{0,4})"
)
_PORT_MAX = 65535

# Growing by ten times the present size at once is a typing error.
_GROWTH_PERCENT_BELOW = 1000.0
_LEAD_TIME_MAX_SECONDS = 24 * 3600.0


def scalar(parse: Callable[[str], Any]) -> Parser:
    """The parser of an entry whose text this function parses; refuses lists and mappings."""
    return lambda entry: parse(entry.text())


def or_null(parse: Parser, null: Any = None) -> Parser:
    """The same parser, with a value for `null`."""
    return lambda entry: null if entry.is_null else parse(entry)


def one_of(*choices: str, kind: Callable[[str], Any] = str) -> Parser:
    """One of these words, converted by `kind`."""

    def parse(text: str) -> Any:
        if text in choices:
            return kind(text)
        near = difflib.get_close_matches(text.lower(), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{quoted(text)} is not one of {', '.join(choices)}{hint}")

    return scalar(parse)


def whole_number(minimum: int, maximum: int, *, auto: bool = False) -> Parser:
    """A whole number within bounds; with `auto` also that word, which is None."""

    def parse(text: str) -> int | None:
        if auto and text == "auto":
            return None
        if re.fullmatch(r"0|[1-9][0-9]{0,9}", text) and minimum <= int(text) <= maximum:
            return int(text)
        allowed = f"a whole number from {minimum} to {maximum}"
        raise ValueError(
            f"{quoted(text)} is {f'neither auto nor {allowed}' if auto else f'not {allowed}'}"
        )

    return scalar(parse)


def number(above: float, maximum: float) -> Parser:
    """A number within bounds, written with digits and at most one point."""

    def parse(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text) and above < float(text) <= maximum:
            return float(text)
        raise ValueError(f"{quoted(text)} is not a number above {above:g} and up to {maximum:.10g}")

    return scalar(parse)


def duration(shortest_seconds: float, longest_seconds: float) -> Parser:
    """A duration within bounds, in seconds."""
    return scalar(
        partial(parse_duration, shortest_seconds=shortest_seconds, longest_seconds=longest_seconds)
    )


def mountpoint(text: str) -> str:
    """An absolute path without `.` and `..`, as in the kernel's mount table. Raises ValueError."""
    parts = [part for part in text.split("/") if part]
    if not text.startswith("/") or {".", ".."} & set(parts):
        raise ValueError(f"{quoted(text)} is not an absolute path such as /scratch")
    return "/" + "/".join(parts)


def growth_size(text: str) -> dict[str, float]:
    """The field of Sizing that a percentage or a size sets. Raises ValueError."""
    if not re.match(r"[0-9.]+ ?[A-Za-z%]", text):
        raise ValueError(f"{quoted(text)} is neither a size (100GiB) nor a percentage (50%)")
    if text.strip().endswith("%"):
        return {"percent": parse_percentage(text, below=_GROWTH_PERCENT_BELOW)}
    return {"fixed_bytes": parse_size(text)}


def lead_time(text: str) -> float | None:
    """Seconds; None is auto, 0 is off. Raises ValueError."""
    named: dict[str, float | None] = {"auto": None, "off": 0.0}
    if text in named:
        return named[text]
    if not text[:1].isdigit():
        raise ValueError(f"{quoted(text)} is not auto, off or a duration (90s)")
    return parse_duration(text, longest_seconds=_LEAD_TIME_MAX_SECONDS)


def available_min(text: str) -> int | None:
    """Bytes; None is auto. Raises ValueError."""
    if text == "auto":
        return None
    if not text[:1].isdigit():
        raise ValueError(f"{quoted(text)} is neither auto nor a size (10GiB)")
    return parse_size(text)


def reserve(text: str) -> int | None:
    """Bytes in whole pages; None is auto, 0 is off. Raises ValueError."""
    named: dict[str, int | None] = {"auto": None, "off": 0}
    if text in named:
        return named[text]
    if not text[:1].isdigit():
        raise ValueError(f"{quoted(text)} is not auto, off or a size (256MiB)")
    size_bytes = parse_size(text)
    if size_bytes < RESERVE_MIN_BYTES:
        raise ValueError(f"{quoted(text)} is too small; the minimum is 64MiB, or write off")
    return size_bytes // _PAGE_BYTES * _PAGE_BYTES


def boolean(text: str) -> bool:
    """True or false in any of YAML 1.1's spellings, in quotes or not. Raises ValueError."""
    truths = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if text.lower() in truths:
        return truths[text.lower()]
    raise ValueError(f"{quoted(text)} is neither true nor false")


def kms_key_id(text: str) -> str:
    """A key id, `alias/NAME` or an ARN; it may not exist. Raises ValueError."""
    if re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", text):
        return text
    raise ValueError(f"{quoted(text)} is not a KMS key id, alias/NAME or ARN")


def textfile(text: str) -> Path:
    """A file for node_exporter, which reads only those that end in .prom. Raises ValueError."""
    path = Path(text)
    if not path.is_absolute() or path.suffix != ".prom" or ".." in path.parts:
        example = "/var/lib/node_exporter/ebs-autoscale.prom"
        raise ValueError(f"{quoted(text)} is not an absolute path such as {example}")
    return path


def listen_address(text: str) -> tuple[str, int]:
    """A numeric address and a port; a port alone is one of the loopback address."""
    found = _LISTEN.fullmatch(text)
    host = (found["v6"] or found["v4"] or "localhost") if found else ""
    host = "127.0.0.1" if host == "localhost" else host
    if found is None or not _is_address(host) or int(found["port"]) > _PORT_MAX:
        example = "127.0.0.1:9798 or [::1]:9798"
        raise ValueError(f"{quoted(text)} is not an address and a port such as {example}")
    return host, int(found["port"])


def _is_address(text: str) -> bool:
    # The standard library's ipaddress would cost an idle daemon half a megabyte.
    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError:
        return False
    return True


def command(entry: Entry) -> tuple[str, ...]:
    """A command line, split as a shell does it but run without one, or its words as a list."""
    if isinstance(entry.node, yaml.SequenceNode):
        words = [item.text() for item in entry.items()]
    else:
        try:
            words = shlex.split(entry.text())
        except ValueError as error:
            raise ValueError(f"{entry.written} is not a command line: {error}") from error
    if not words or not words[0]:
        raise ValueError("empty; remove the key, or name a command")
    return tuple(words)


def tags(entry: Entry) -> dict[str, str]:
    """Tags within EC2's limits, none of them reserved. Raises MistakesFound with all mistakes."""
    values: dict[str, str] = {}
    mistakes = []
    for each in entry.entries():
        try:
            name = _tag_text(
                Entry(each.path, each.line, each.key or each.node), _TAG_KEY_MAX_LENGTH
            )
            _refuse_reserved(name, values)
            values[name] = _tag_text(each, TAG_VALUE_MAX_LENGTH)
        except ValueError as error:
            mistakes.append(Mistake(each.line, each.path, str(error)))
    if len(values) > TAGS_MAX:
        mistakes.append(
            Mistake(
                entry.line, entry.path, f"too many tags: {len(values)}; the maximum is {TAGS_MAX}"
            )
        )
    if mistakes:
        raise MistakesFound(*mistakes)
    return values


def ladder(entry: Entry) -> tuple[LadderStep, ...]:
    """The steps, ascending by devices. Raises MistakesFound with all mistakes, or ValueError."""
    steps: list[LadderStep] = []
    mistakes: list[Mistake] = []
    for item in entry.items():
        try:
            steps.append(_ladder_step(item))
        except MistakesFound as found:
            mistakes.extend(found.mistakes)
            continue
        if len(steps) > 1 and steps[-1].devices <= steps[-2].devices:
            sentence = f"must be greater than in the previous step ({steps[-2].devices})"
            mistakes.append(Mistake(item.line, f"{item.path}.members", sentence))
    if mistakes:
        raise MistakesFound(*mistakes)
    if not steps:
        raise ValueError("empty list; remove the key, or add a step")
    return tuple(steps)


def _ladder_step(item: Entry) -> LadderStep:
    fields = {
        "members": ("devices", whole_number(1, 1000)),
        "available": ("available_percent", scalar(parse_percentage)),
        "size": ("size_bytes", scalar(parse_size)),
    }
    parsed = parse_mapping(
        item, {f"{item.path}.{key}": parse for key, (_, parse) in fields.items()}
    )
    missing = [key for key in fields if f"{item.path}.{key}" not in parsed.lines]
    if missing and not parsed.mistakes:
        parsed.mistakes.append(Mistake(item.line, item.path, f"missing {', '.join(missing)}"))
    if parsed.mistakes:
        raise MistakesFound(*parsed.mistakes)
    return LadderStep(
        **{field: parsed.values[f"{item.path}.{key}"] for key, (field, _) in fields.items()}
    )


def _tag_text(entry: Entry, max_length: int) -> str:
    if not entry.is_string:
        raise ValueError(f"{entry.written} is not text; put it in quotes")
    text = entry.text()
    if len(text) > max_length:
        raise ValueError(
            f"{quoted(text)} is too long: {len(text)}; the maximum in EC2 is {max_length}"
        )
    # XML, in which EC2 answers, has none of them.
    if any(unicodedata.category(char) == "Cc" or char in "\ufffe\uffff" for char in text):
        raise ValueError(f"{quoted(text)} contains control characters, which tags cannot have")
    return text


def _refuse_reserved(name: str, known: dict[str, str]) -> None:
    if not name:
        raise ValueError("a tag key must not be empty")
    if name in known:
        raise ValueError("duplicate key")
    if prefix := next((p for p in RESERVED_TAG_PREFIXES if name.lower().startswith(p)), ""):
        raise ValueError(f"names that begin with {prefix} are reserved")
