"""The man page against the program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ebs_autoscale.errors import Exit

PAGE = Path(__file__).parents[2] / "docs/ebs-autoscale.8"


def help_of(*arguments: str) -> str:
    """What the program says of itself."""
    argv = [sys.executable, "-I", "-m", "ebs_autoscale", *arguments, "--help"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def options_in(text: str) -> set[str]:
    """The long options that a help text names."""
    return set(re.findall(r"--[a-z][a-z-]+", text))


VERBS = re.findall(r"^    ([a-z-]+) ", help_of(), re.MULTILINE)


@pytest.fixture(scope="module")
def text() -> str:
    """The page as a terminal shows it, in one line."""
    argv = ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", str(PAGE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return " ".join(re.sub(r"-\n\s*", "", done.stdout).split())


def test_groff_has_no_complaint() -> None:
    """The page is well-formed."""
    argv = ["groff", "-man", "-Tascii", "-ww", "-z", str(PAGE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_explained_with_its_options(verb: str, text: str) -> None:
    """What --help shows the page has, too."""
    assert f" {verb} " in text
    assert {option for option in options_in(help_of(verb)) if option not in text} == set()


def test_each_common_option_and_exit_status(text: str) -> None:
    """Options before the verb, and all exit codes."""
    assert len(VERBS) >= 9
    assert {option for option in options_in(help_of()) if option not in text} == set()
    statuses = text.split("EXIT STATUS")[1].split("SIGNALS", maxsplit=1)[0]
    for code in Exit:
        assert f" {code.value} " in statuses
