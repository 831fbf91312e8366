"""The keys in ebs-autoscale.yaml(5), from the comments of the shipped config.yaml.

`python -m tests.manual --write` writes them into the page.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.shipped_config import SHIPPED_TEXT

PAGE = Path(__file__).parents[1] / "docs/ebs-autoscale.yaml.5"

_COMMENT = re.compile(r"(?:# |  # )(?! )(.*)")
_SECTION = re.compile(r"#?([a-z_]+):")
_KEY = re.compile(r"#?( {2})?([a-z_]+): (.+)")
_EXAMPLE = re.compile(r"##( .*)")
_KEYS_IN_PAGE = re.compile(r"(?<=^\.SH KEYS\n).*?(?=^\.SH )", re.DOTALL | re.MULTILINE)


@dataclass
class Key:
    """One key, with its default and the comments before it; `example` has lines of YAML."""

    name: str
    default: str
    text: list[str]
    example: list[str] = field(default_factory=list)


def documented() -> Iterator[Key]:
    """The keys of the shipped file, in its order."""
    section, text, found = "", list[str](), list[Key]()
    for line in SHIPPED_TEXT.splitlines():
        if match := _EXAMPLE.fullmatch(line):
            found[-1].text += text
            found[-1].example.append(match[1])
            text = []
        elif match := _COMMENT.fullmatch(line):
            text.append(match[1])
        elif match := _SECTION.fullmatch(line):
            section = f"{match[1]}."
        elif match := _KEY.fullmatch(line):
            name = f"{section if match[1] else ''}{match[2]}"
            found.append(Key(name, match[3], text))
            text = []
        else:
            text = []
    yield from found


def _roff(text: str) -> str:
    """Text with `code` in bold, whatever it begins with."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)


def _entry(key: Key) -> Iterator[str]:
    yield ".TP"
    default = "required" if key.name == "mountpoint" else f"default: {key.default}"
    yield f'.BR {key.name} " ({_roff(default)})"'
    yield _roff(" ".join(key.text))
    if key.example:
        yield from (".RS", ".nf", *map(_roff, key.example), ".fi", ".RE")


def page() -> str:
    """The page as it has to be."""
    entries = "".join(f"{line}\n" for key in documented() for line in _entry(key))
    return _KEYS_IN_PAGE.sub(lambda _: entries, PAGE.read_text("utf-8"), count=1)


if __name__ == "__main__":
    text = page()
    if "--write" in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
