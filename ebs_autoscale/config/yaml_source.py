"""A YAML mapping read against a table of known keys; every mistake with its line."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ebs_autoscale.units import shown

_TAG = "tag:yaml.org,2002:"
# What YAML 1.1 makes of unquoted text. Values are read as written, so that `off`, `1_000`
# or `2026-01-01` mean what they look like; any other tag asks for an object, which we never build.
_PLAIN_TAGS = frozenset(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "timestamp"))
_NULL = f"{_TAG}null"


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing wrong with the file; line 0 when it is about something absent."""

    line: int
    sentence: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.sentence}" if self.line else self.sentence


class MistakesFound(Exception):
    """What was read holds these mistakes; the reader goes on and adds them to its own."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*map(str, mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Place:
    """A value in the file: its key path, the line of its key, and its node, never built.

    `key` is the key's own node where the value stands in a mapping.
    """

    path: str
    line: int
    node: yaml.Node
    key: yaml.Node | None = None

    @property
    def is_null(self) -> bool:
        """Whether nothing, `null` or `~` is written here."""
        return self.node.tag == _NULL

    @property
    def is_string(self) -> bool:
        """Whether YAML sees text here, not a number, a boolean, a date or nothing."""
        return self.node.tag == f"{_TAG}str"

    @property
    def written(self) -> str:
        """The value for a message: as it is in the file, or what kind of thing it is."""
        match self.node:
            case _ if self.is_null:
                return "null"
            case yaml.ScalarNode(value=value):
                return shown(str(value))
            case yaml.SequenceNode(value=items):
                return "a list" if items else "[]"
            case _:
                return "a mapping" if self.node.value else "{}"

    def text(self) -> str:
        """The single value as written, quotes apart. Raises ValueError when there is none."""
        if self.is_null:
            raise ValueError("null is no value here; leave the key out for its default")
        text = str(self._content(yaml.ScalarNode, "a single value"))
        if self.node.tag not in _PLAIN_TAGS:
            raise ValueError(f"{self.written} has a tag without meaning here, {self.node.tag}")
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(f"{self.written} has characters that no path or tag can have")
        return text

    def items(self) -> Iterator["Place"]:
        """The places in a list. Raises ValueError when it is none."""
        items = self._content(yaml.SequenceNode, "a list")
        for index, item in enumerate(items):
            yield Place(f"{self.path}[{index}]", item.start_mark.line + 1, item)

    def entries(self) -> Iterator["Place"]:
        """The places in a mapping, repeated keys included. Raises ValueError when it is none."""
        pairs = self._content(yaml.MappingNode, "a mapping")
        prefix = f"{self.path}." if self.path else ""
        for key, value in pairs:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            clean = name if name and name.isprintable() else shown(name)
            yield Place(f"{prefix}{clean}", key.start_mark.line + 1, value, key)

    def _content(self, kind: type[yaml.Node], expected: str) -> Any:
        if isinstance(self.node, kind):
            return self.node.value
        raise ValueError(f"{self.written} is written where {expected} is expected")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a mapping held: values by key path, the line of each key, and the mistakes."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


Parser = Callable[[Place], Any]


def root_of(text: str) -> Place:
    """The document's mapping. Raises MistakesFound where the text is not YAML, or another thing."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at column {mark.column + 1}" if mark else ""
        because = " ".join(filter(None, (error.context, error.problem)))
        mistake = Mistake(mark.line + 1 if mark else 0, f"not YAML{where}: {because}")
        raise MistakesFound(mistake) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = f"U+{ord(text[error.position]):04X}"
        raise MistakesFound(Mistake(line, f"not YAML: the character {code}")) from error
    except RecursionError as error:
        raise MistakesFound(Mistake(0, "not YAML: nested without end")) from error
    except (ValueError, OverflowError) as error:
        # chr() of an escape such as "\UFFFFFFFF" slips through PyYAML's own errors.
        mistake = Mistake(0, "not YAML: an escape that stands for no character")
        raise MistakesFound(mistake) from error
    if node is None or node.tag == _NULL:
        node = yaml.MappingNode(f"{_TAG}map", [])
    root = Place("", 1, node)
    if not isinstance(node, yaml.MappingNode):
        raise MistakesFound(Mistake(1, f"{root.written} is written where keys are expected"))
    return root


def parse_mapping(place: Place, parsers: Mapping[str, Parser]) -> Parsed:
    """Every known key below the place, parsed; unknown, repeated and wrong ones are mistakes.

    The parsers' key paths are full and dotted; what lies between is sections, which may be empty.
    """
    parsed = Parsed()
    for leaf in _leaves(place, parsers.keys(), parsed.mistakes):
        parsed.lines[leaf.path] = leaf.line
        try:
            parsed.values[leaf.path] = parsers[leaf.path](leaf)
        except ValueError as error:
            parsed.mistakes.append(Mistake(leaf.line, f"{leaf.path}: {error}"))
        except MistakesFound as found:
            parsed.mistakes.extend(found.mistakes)
    return parsed


def _leaves(place: Place, paths: Collection[str], mistakes: list[Mistake]) -> Iterator[Place]:
    if place.is_null:
        return
    prefix = f"{place.path}." if place.path else ""
    below = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    known = dict.fromkeys(prefix + rest.partition(".")[0] for rest in below)
    for entry in _entries(place, known, mistakes):
        if entry.path in paths:
            yield entry
        elif entry.path in known:
            yield from _leaves(entry, paths, mistakes)
        else:
            hint = _nearest(entry.path, known, paths)
            mistakes.append(Mistake(entry.line, f"{entry.path}: unknown key; {hint}"))


def _entries(place: Place, known: Collection[str], mistakes: list[Mistake]) -> Iterator[Place]:
    seen: dict[str, int] = {}
    try:
        for entry in place.entries():
            if entry.path in seen:
                again = f"{entry.path}: written twice, first on line {seen[entry.path]}"
                mistakes.append(Mistake(entry.line, again))
            seen.setdefault(entry.path, entry.line)
            yield entry
    except ValueError as error:
        keys = ", ".join(path.rpartition(".")[2] for path in known)
        mistakes.append(Mistake(place.line, f"{place.path}: {error}, with {keys}"))


def _nearest(path: str, siblings: Collection[str], paths: Collection[str]) -> str:
    name = path.rpartition(".")[2]
    elsewhere = [known for known in paths if known.rpartition(".")[2] == name]
    near = difflib.get_close_matches(path, siblings, n=1) or elsewhere
    if not near:
        near = difflib.get_close_matches(path, paths, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(siblings))}"
