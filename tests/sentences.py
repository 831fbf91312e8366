"""Every sentence that the program can print, collected from its source into one file.

A sentence is a string that has a space and a lower-case letter, unless it is a docstring, a
regular expression, the format of a struct, a style of the demo's screen or one of EXCLUDED. The
expressions of an f-string are shown in braces as they stand in the source, without their format.

`python -m tests.sentences` shows what the file lacks; with `--write` it brings it up to date.
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("ebs_autoscale", "sandbox/ebs_autoscale_demo")
GOLDEN = ROOT / "tests/unit/sentences.txt"

HEADER = (
    "Every sentence of the program, by module; `python -m tests.sentences --write` wrote this.\n"
)

# Calls whose arguments nobody reads: regular expressions and binary formats.
UNREAD_CALLS = {"re", "struct"}
UNREAD_KEYWORDS = {"style", "border_style"}

# What the program looks for in the words of others, or writes for other programs.
EXCLUDED = {
    "Amazon Elastic Block Store",  # the model of an NVMe device
    "appears to contain",  # btrfs-progs
    "in progress",  # btrfs-progs
    "by user",  # btrfs-progs
    "is already in use",  # EC2
    "ttachment point",  # EC2
    "already deleted",  # EC2
    " run --wait\n",  # a unit of systemd
}


def sentences(source: str) -> list[str]:
    """The sentences in the text of a module, each once, in the order of the alphabet."""
    found = {text for text in _strings(ast.parse(source)) if _is_sentence(text)}
    return sorted(text.replace("\n", "\\n") for text in found - EXCLUDED)


def without_expressions(sentence: str) -> str:
    """The sentence with `…` for each expression in braces."""
    while (shorter := re.sub(r"\{[^{}]*\}", "…", sentence)) != sentence:
        sentence = shorter
    return sentence


def collect() -> str:
    """What the file should contain: a paragraph for each module that has sentences."""
    paragraphs = [HEADER]
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            if found := sentences(path.read_text("utf-8")):
                lines = [f"{path.relative_to(ROOT)}\n", *(f"    {each}\n" for each in found)]
                paragraphs.append("".join(lines))
    return "\n".join(paragraphs)


def differences() -> list[str]:
    """The lines that the file has too many (-) or too few (+)."""
    written = GOLDEN.read_text("utf-8") if GOLDEN.exists() else ""
    lines = difflib.unified_diff(written.splitlines(), collect().splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _strings(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in UNREAD_CALLS:
                pass
            case ast.keyword(arg=name) if name in UNREAD_KEYWORDS:
                pass
            case ast.JoinedStr(values=parts):
                yield "".join(_shown(part) for part in parts)
            case ast.Constant(value=str(text)):
                yield text
            case _:
                yield from _strings(child)


def _shown(part: ast.expr) -> str:
    if isinstance(part, ast.FormattedValue):
        return f"{{{ast.unparse(part.value)}}}"
    assert isinstance(part, ast.Constant)
    return str(part.value)


def _is_sentence(text: str) -> bool:
    words = without_expressions(text).strip()
    return " " in words and re.search("[a-z]", words) is not None


def main(arguments: list[str]) -> int:
    """Show or write; returns 1 where the file was not up to date and is not written."""
    found = differences()
    if arguments == ["--write"]:
        GOLDEN.write_text(collect(), "utf-8")
        return 0
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
