"""The imports between the top-level units of the program: how many, which upward, which cycles.

A unit is a package or a module directly below `ebs_autoscale`. Imports inside functions count,
those under `if TYPE_CHECKING` do not. The layers are those of the import-linter contract in
pyproject.toml, and so are the exceptions to them.
"""

import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import grimp

from ebs_autoscale.units import counted

PACKAGE = "ebs_autoscale"
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

Arrow = tuple[str, str]
"""The unit that imports and the unit that is imported."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The layers that the project agreed on."""

    rank: dict[str, int]
    """Position of each unit, 0 for the highest layer."""
    exceptions: tuple[str, ...]
    """Imports between modules that are allowed although they point upward."""

    def is_upward(self, importer: str, imported: str) -> bool:
        """Whether the import of one unit by another points to a higher layer."""
        return self.rank.get(importer, 0) > self.rank.get(imported, len(self.rank))

    def allows(self, importer: str, imported: str) -> bool:
        """Whether the import of one module by another is listed as an exception."""
        line = f"{importer} -> {imported}"
        return any(fnmatchcase(line, exception) for exception in self.exceptions)


def read_contract() -> Contract:
    """The first contract of type `layers`."""
    settings = tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["importlinter"]
    layers = next(each for each in settings["contracts"] if each["type"] == "layers")
    return Contract(
        rank={
            unit.strip("() "): rank
            for rank, layer in enumerate(layers["layers"])
            for unit in layer.replace(":", "|").split("|")
        },
        exceptions=tuple(layers.get("ignore_imports", ())),
    )


def read_imports() -> dict[Arrow, list[Arrow]]:
    """Each arrow between two units, with the imports between their modules it consists of."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    found: dict[Arrow, list[Arrow]] = {}
    for importer in sorted(graph.modules - {PACKAGE}):
        for imported in sorted(graph.find_modules_directly_imported_by(importer) - {PACKAGE}):
            arrow = _unit(importer), _unit(imported)
            if arrow[0] != arrow[1]:
                found.setdefault(arrow, []).append((importer, imported))
    return found


def find_cycles(arrows: Iterable[Arrow]) -> list[list[str]]:
    """The groups of units that import each other, directly or through others."""
    direct: dict[str, set[str]] = {}
    for importer, imported in arrows:
        direct.setdefault(importer, set()).add(imported)
    reached = {unit: _reachable(unit, direct) for unit in direct}
    groups = {
        frozenset(other for other in reached[unit] if unit in reached.get(other, ()))
        for unit in direct
    }
    return sorted(sorted(group) for group in groups if group)


def report(imports: dict[Arrow, list[Arrow]], contract: Contract) -> tuple[str, bool]:
    """The counts with each violation, and whether all is as agreed."""
    units = {unit for arrow in imports for unit in arrow}
    unlisted = sorted(units - contract.rank.keys())
    upward = [pair for arrow in imports if contract.is_upward(*arrow) for pair in imports[arrow]]
    agreed = [pair for pair in upward if contract.allows(*pair)]
    cycles = find_cycles(arrow for arrow, pairs in imports.items() if not set(pairs) <= set(agreed))
    counts = [
        f"{counted(len(imports), 'import')} between {counted(len(units), 'unit')}",
        f"{len(upward)} upward",
        counted(len(cycles), "cycle"),
    ]
    lines = [
        ", ".join(counts),
        *(f"unit without a layer: {unit}" for unit in unlisted),
        *(
            f"upward{', but allowed' if pair in agreed else ''}: {pair[0]} imports {pair[1]}"
            for pair in upward
        ),
        *(f"cycle: {', '.join(cycle)} import each other" for cycle in cycles),
    ]
    return "\n".join(lines), not (unlisted or cycles) and upward == agreed


def _unit(module: str) -> str:
    return module.split(".")[1]


def _reachable(start: str, direct: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = set(direct.get(start, ()))
    while ahead:
        reached |= ahead
        ahead = {unit for each in ahead for unit in direct.get(each, ())} - reached
    return reached


def main() -> int:
    """Print the report; returns 1 where an import is upward or part of a cycle."""
    text, is_sound = report(read_imports(), read_contract())
    sys.stdout.write(f"{text}\n")
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
