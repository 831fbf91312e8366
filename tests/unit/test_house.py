"""Rules that every file keeps, checked on the files themselves."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = sorted((ROOT / "ebs_autoscale").rglob("*.py"))
SANDBOX = sorted((ROOT / "sandbox").rglob("*.py"))
RELEASE = sorted((ROOT / "release").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EVERYTHING = [*PROGRAM, *SANDBOX, *RELEASE, *TESTS]

LONGEST_FILE = 500
LONGEST_FUNCTION = 50
LARGEST_FOLDER = 14


def named(path: Path) -> str:
    """The path as a message shows it."""
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    """The file as Python reads it."""
    return ast.parse(path.read_text("utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_by(path: Path) -> set[str]:
    """The names that a file imports, modules and what it takes from them."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def assigned_by(path: Path) -> set[str]:
    """The names that a file assigns at its top level."""
    return {
        target.id
        for node in tree_of(path).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def sleeps(path: Path) -> bool:
    """Whether a file refers to time.sleep."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        for node in ast.walk(tree_of(path))
    )


def test_every_file_has_a_docstring() -> None:
    """The first line of a file says what is in it."""
    assert [named(path) for path in EVERYTHING if not ast.get_docstring(tree_of(path))] == []


def test_files_are_short() -> None:
    """No file of the program or of the sandbox has more than 500 lines."""
    assert [
        f"{named(path)}: {lines} lines"
        for path in [*PROGRAM, *SANDBOX]
        if (lines := len(path.read_text("utf-8").splitlines())) > LONGEST_FILE
    ] == []


def test_functions_are_short() -> None:
    """No function anywhere has more than 50 lines."""
    assert [
        f"{named(path)}: {function.name} has {lines} lines"
        for path in EVERYTHING
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > LONGEST_FUNCTION
    ] == []


def test_folders_are_small() -> None:
    """No folder of the program has more than 14 modules."""
    folders = {path.parent for path in PROGRAM}
    modules = {named(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert [f"{name}: {count}" for name, count in modules.items() if count > LARGEST_FOLDER] == []


def test_every_package_names_its_interface() -> None:
    """A package says in `__all__` what the other packages may import from it."""
    packages = [path for path in PROGRAM if path.name == "__init__.py"]
    assert [named(path) for path in packages if "__all__" not in assigned_by(path)] == []


def test_a_test_states_what_it_checks() -> None:
    """Every test has a docstring of one sentence."""
    assert [
        f"{named(path)}: {function.name}"
        for path in TESTS
        if path.name.startswith("test_")
        for function in functions(path)
        if function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").endswith(".")
    ] == []


def test_nothing_is_mocked() -> None:
    """No test uses mocks."""
    mocks = {"mock", "unittest", "unittest.mock"}
    assert [named(path) for path in TESTS if mocks & imported_by(path)] == []


def test_nothing_sleeps_to_synchronise() -> None:
    """No test waits by time.sleep."""
    assert [named(path) for path in TESTS if sleeps(path)] == []


LATE = [
    "boto3",
    "botocore",
    "psutil",
    "daemon",
    "rich",
    "http.client",
    "ec2_sandbox",
    "ebs_autoscale_demo",
    "ebs_autoscale.volumes",
]


@pytest.mark.parametrize("module", ["ebs_autoscale.cli.parser", "ebs_autoscale.monitor"])
def test_the_daemon_stays_small(module: str) -> None:
    """What only a growth, a status or the demo needs is not loaded with the program."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    argv = [sys.executable, "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert not set(LATE) & set(json.loads(done.stdout))


def argv_lists(path: Path) -> Iterator[list[str]]:
    """Every list or tuple display that begins with words of a command line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.List | ast.Tuple):
            words = [
                part.value
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if words:
                yield words


def forced(words: list[str]) -> bool:
    """Whether a command line has -f, on its own, among other letters or written out."""
    options = [word for word in words if word.startswith("-")]
    letters = [option.split("=")[0] for option in options if not option.startswith("--")]
    return "--force" in options or any("f" in each for each in letters)


def test_btrfs_is_never_forced() -> None:
    """No command line of btrfs or mkfs.btrfs has -f."""
    assert [
        (named(path), words)
        for path in PROGRAM
        for words in argv_lists(path)
        if words[0] in {"btrfs", "mkfs.btrfs"} and forced(words)
    ] == []


def test_btrfs_is_called_at_all() -> None:
    """The rule about btrfs has something to look at: the add is found."""
    calls = [words for path in PROGRAM for words in argv_lists(path) if words[0] == "btrfs"]
    assert any(words[:3] == ["btrfs", "device", "add"] for words in calls)
