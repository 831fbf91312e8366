"""Laws of the house: what every file keeps to, checked on the files themselves."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "ebs_autoscale").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_FILE = 300
LONGEST_FUNCTION = 50


def named(path: Path) -> str:
    """How a file is called in a test's id."""
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


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=named)
def test_a_file_says_what_it_is(path: Path) -> None:
    """Every file opens with a docstring."""
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=named)
def test_files_and_functions_are_short(path: Path) -> None:
    """No file of the program has more than 300 lines, no function anywhere more than 50."""
    if path in MODULES:
        assert len(path.read_text("utf-8").splitlines()) <= LONGEST_FILE
    for function in functions(path):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= LONGEST_FUNCTION, f"{function.name} has {lines} lines"


@pytest.mark.parametrize(
    "path", [path for path in TESTS if path.name.startswith("test_")], ids=named
)
def test_a_test_states_its_law(path: Path) -> None:
    """Every test has a docstring of one sentence."""
    for function in functions(path):
        if function.name.startswith("test_"):
            law = ast.get_docstring(function) or ""
            assert law.endswith("."), f"{function.name}: {law!r}"


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_nothing_of_ours_is_mocked(path: Path) -> None:
    """No test uses mocks, and none sleeps to synchronise."""
    tree = tree_of(path)
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            *(alias.name for alias in node.names),
            (node.module or "") if isinstance(node, ast.ImportFrom) else "",
        )
    }
    assert not {"mock", "unittest", "unittest.mock"} & imported
    sleeps = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    ]
    assert not sleeps


DEAR = [
    "boto3",
    "botocore",
    "psutil",
    "daemon",
    "rich",
    "http.client",
    "ec2_sandbox",
    "ebs_autoscale.volumes",
]


@pytest.mark.parametrize("module", ["ebs_autoscale.cli.parser", "ebs_autoscale.monitor"])
def test_the_daemon_stays_small(module: str) -> None:
    """What only a growth, a status or the demo needs is not loaded with the program."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    argv = [sys.executable, "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert not set(DEAR) & set(json.loads(done.stdout))


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


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_btrfs_is_never_forced(path: Path) -> None:
    """No command line of btrfs or mkfs.btrfs has -f, on its own or among other letters."""
    for words in argv_lists(path):
        if words[0] in {"btrfs", "mkfs.btrfs"}:
            options = [word for word in words if word.startswith("-")]
            assert "--force" not in options
            assert not [o for o in options if not o.startswith("--") and "f" in o.split("=")[0]]


def test_btrfs_is_called_at_all() -> None:
    """The law about btrfs has something to look at: the add is found."""
    calls = [words for path in MODULES for words in argv_lists(path) if words[0] == "btrfs"]
    assert any(words[:3] == ["btrfs", "device", "add"] for words in calls)
