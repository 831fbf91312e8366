"""Shell completion, generated from the parser: `python -m tests.completion` writes the files.

They are kept in the repository, so that an installation needs no tool for it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from ebs_autoscale.cli.parser import build_parser

FOLDER = Path(__file__).parents[1] / "completion"

# As each shell looks for them.
FILES = {
    "bash": FOLDER / "bash/ebs-autoscale",
    "zsh": FOLDER / "zsh/_ebs-autoscale",
    "fish": FOLDER / "fish/ebs-autoscale.fish",
}

_KINDS = {
    "PATH": shtab.FILE,
    "FILE": shtab.FILE,
    "DEV": shtab.FILE,
    "MOUNTPOINT": shtab.DIRECTORY,
}


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    yield from parser._actions  # noqa: SLF001 -- argparse has no other way to list them


def generated(shell: str) -> str:
    """The completion for a shell; what its help text hides is not completed."""
    parser = build_parser()
    for each in (parser, *parser.verbs.values()):
        for action in _actions(each):
            if action.metavar in _KINDS:
                action.complete = _KINDS[action.metavar]  # type: ignore[attr-defined] # shtab's own
    return shtab.complete(parser, shell) + "\n"


if __name__ == "__main__":
    for shell, file in FILES.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(generated(shell), encoding="utf-8")
