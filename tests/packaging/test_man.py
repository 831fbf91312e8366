"""The man pages against the program, its configuration and the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ebs_autoscale.errors import Exit
from tests import manual
from tests.unit.shipped_config import shipped_defaults

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/ebs-autoscale.8"
README = (ROOT / "README.md").read_text("utf-8")


def help_of(*arguments: str) -> str:
    """What --help prints."""
    argv = [sys.executable, "-I", "-m", "ebs_autoscale", *arguments, "--help"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def options_in(text: str) -> set[str]:
    """The long options that a help text names."""
    return set(re.findall(r"--[a-z][a-z-]+", text))


VERBS = re.findall(r"^    ([a-z-]+) ", help_of(), re.MULTILINE)


@pytest.fixture(scope="module")
def text() -> str:
    """The page as a terminal shows it, on one line."""
    argv = ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", str(PAGE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return " ".join(re.sub(r"-\n\s*", "", done.stdout).split())


@pytest.mark.parametrize("page", [PAGE, manual.PAGE], ids=lambda page: page.name)
def test_groff_has_no_complaint(page: Path) -> None:
    """The page is well-formed."""
    argv = ["groff", "-man", "-Tascii", "-ww", "-z", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_explained_with_its_options(verb: str, text: str) -> None:
    """The page has every verb and option of --help."""
    assert f" {verb} " in text
    assert {option for option in options_in(help_of(verb)) if option not in text} == set()


def test_each_common_option(text: str) -> None:
    """The page has the options that stand before the verb."""
    assert len(VERBS) >= 9
    assert {option for option in options_in(help_of()) if option not in text} == set()


def test_exit_codes_are_explained_alike(text: str) -> None:
    """Help, man page and README give each exit code the same meaning."""
    meanings = dict(re.findall(r"^  (\d)  (.+)$", help_of(), re.MULTILINE))
    assert meanings.keys() == {str(code.value) for code in Exit}
    statuses = text.split("EXIT STATUS")[1].split("SIGNALS", maxsplit=1)[0]
    for code, meaning in meanings.items():
        assert f" {code} {meaning}" in statuses
        assert f"| {code} | {meaning}" in README


def test_the_keys_are_explained_as_in_the_shipped_file() -> None:
    """ebs-autoscale.yaml(5) has each key; `python -m tests.manual --write` renews it."""
    assert {key.name: key.default for key in manual.documented()} == shipped_defaults()
    assert manual.PAGE.read_text("utf-8") == manual.page()
