"""A YAML mapping read against a table of known keys; every mistake has its line."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ebs_autoscale.units import quoted

_TAG = "tag:yaml.org,2002:"
# What YAML 1.1 makes of unquoted text. Values are read as written, so that `off`, `1_000`
# or `2026-01-01` mean what they look like; any other tag asks for an object, which is refused.
_PLAIN_TAGS = frozenset(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "timestamp"))
_NULL = f"{_TAG}null"


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """Something wrong in the file; line 0 and no path where it is about nothing in particular."""

    line: int
    path: str
    sentence: str

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line else ""
        return ": ".join(filter(None, (line, self.path, self.sentence)))


class MistakesFound(Exception):
    """What was read has these mistakes; the reader goes on and adds them to its own."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*map(str, mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in the file: its key path, the line of its key, and its node.

    `key` is the node of the key where the value is in a mapping.
    """

    path: str
    line: int
    node: yaml.Node
    key: yaml.Node | None = None

    @property
    def is_null(self) -> bool:
        """Whether the value is absent, `null` or `~`."""
        return self.node.tag == _NULL

    @property
    def is_string(self) -> bool:
        """Whether the value is text to YAML, and not a number, boolean, date or null."""
        return self.node.tag == f"{_TAG}str"

    @property
    def written(self) -> str:
        """The value for a message: as in the file, or what kind of value it is."""
        match self.node:
            case _ if self.is_null:
                return "null"
            case yaml.ScalarNode(value=value):
                return quoted(str(value))
            case yaml.SequenceNode(value=items):
                return "a list" if items else "[]"
            case _:
                return "a mapping" if self.node.value else "{}"

    def text(self) -> str:
        """The single value as written, without quotes. Raises ValueError when it is none."""
        if self.is_null:
            raise ValueError("null is not allowed; remove the key to use its default")
        text = str(self._content(yaml.ScalarNode, "a single value"))
        if self.node.tag not in _PLAIN_TAGS:
            raise ValueError(f"{self.written} has the unknown YAML tag {self.node.tag}")
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(f"{self.written} contains invalid characters")
        return text

    def items(self) -> Iterator["Entry"]:
        """The entries of a list. Raises ValueError when it is none."""
        items = self._content(yaml.SequenceNode, "a list")
        for index, item in enumerate(items):
            yield Entry(f"{self.path}[{index}]", item.start_mark.line + 1, item)

    def entries(self) -> Iterator["Entry"]:
        """The entries of a mapping, duplicates included. Raises ValueError when it is none."""
        pairs = self._content(yaml.MappingNode, "a mapping")
        prefix = f"{self.path}." if self.path else ""
        for key, value in pairs:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            clean = name if name and name.isprintable() else quoted(name)
            yield Entry(f"{prefix}{clean}", key.start_mark.line + 1, value, key)

    def _content(self, kind: type[yaml.Node], expected: str) -> Any:
        if isinstance(self.node, kind):
            return self.node.value
        raise ValueError(f"expected {expected}, found {self.written}")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a mapping: values by key path, the line of each key, and the mistakes."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


Parser = Callable[[Entry], Any]
"""Returns the value of an entry; raises ValueError, or MistakesFound for more than one."""


def root_of(text: str) -> Entry:
    """The mapping that is the document. Raises MistakesFound when the text is no YAML mapping."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        column = f" at column {mark.column + 1}" if mark else ""
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise _invalid_yaml(f"{reason}{column}", mark.line + 1 if mark else 0) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(text[error.position]):04X}"
        raise _invalid_yaml(f"character {character} is not allowed", line) from error
    except RecursionError as error:
        raise _invalid_yaml("nested too deeply") from error
    except (ValueError, OverflowError) as error:
        # chr() of an escape such as "\UFFFFFFFF" is none of PyYAML's own errors.
        raise _invalid_yaml("invalid escape sequence") from error
    if node is None or node.tag == _NULL:
        node = yaml.MappingNode(f"{_TAG}map", [])
    root = Entry("", 1, node)
    if not isinstance(node, yaml.MappingNode):
        raise MistakesFound(Mistake(1, "", f"expected a mapping, found {root.written}"))
    return root


def _invalid_yaml(reason: str, line: int = 0) -> MistakesFound:
    return MistakesFound(Mistake(line, "", f"invalid YAML: {reason}"))


def parse_mapping(entry: Entry, parsers: Mapping[str, Parser]) -> Parsed:
    """The values of all known keys below the entry; unknown, duplicate and wrong ones are mistakes.

    The key paths of the parsers are complete, with dots; their sections may be empty or absent.
    """
    parsed = Parsed()
    for leaf in _leaves(entry, parsers.keys(), parsed.mistakes):
        parsed.lines[leaf.path] = leaf.line
        try:
            parsed.values[leaf.path] = parsers[leaf.path](leaf)
        except ValueError as error:
            parsed.mistakes.append(Mistake(leaf.line, leaf.path, str(error)))
        except MistakesFound as found:
            parsed.mistakes.extend(found.mistakes)
    return parsed


def _leaves(entry: Entry, paths: Collection[str], mistakes: list[Mistake]) -> Iterator[Entry]:
    if entry.is_null:
        return
    prefix = f"{entry.path}." if entry.path else ""
    below = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    known = dict.fromkeys(prefix + rest.partition(".")[0] for rest in below)
    for each in _entries(entry, known, mistakes):
        if each.path in paths:
            yield each
        elif each.path in known:
            yield from _leaves(each, paths, mistakes)
        else:
            hint = _nearest(each.path, known, paths)
            mistakes.append(Mistake(each.line, each.path, f"unknown key; {hint}"))


def _entries(entry: Entry, known: Collection[str], mistakes: list[Mistake]) -> Iterator[Entry]:
    seen: dict[str, int] = {}
    try:
        for each in entry.entries():
            if each.path in seen:
                duplicate = f"duplicate key, first on line {seen[each.path]}"
                mistakes.append(Mistake(each.line, each.path, duplicate))
            seen.setdefault(each.path, each.line)
            yield each
    except ValueError as error:
        keys = ", ".join(path.rpartition(".")[2] for path in known)
        mistakes.append(Mistake(entry.line, entry.path, f"{error}; its keys are {keys}"))


def _nearest(path: str, siblings: Collection[str], paths: Collection[str]) -> str:
    name = path.rpartition(".")[2]
    elsewhere = [known for known in paths if known.rpartition(".")[2] == name]
    near = difflib.get_close_matches(path, siblings, n=1) or elsewhere
    if not near:
        near = difflib.get_close_matches(path, paths, n=1)
    return f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(siblings))}"
