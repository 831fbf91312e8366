"""Completion in bash, zsh and fish."""

import subprocess

import pytest

from ebs_autoscale.cli.parser import build_parser
from tests.completion import FILES, generated

SYNTAX = {"bash": ("bash", "-n"), "zsh": ("zsh", "-n"), "fish": ("fish", "--no-execute")}


@pytest.mark.parametrize("shell", FILES)
def test_the_files_are_those_of_the_parser(shell: str) -> None:
    """`make completion` renews them; the shell can read them."""
    assert FILES[shell].read_text("utf-8") == generated(shell)
    argv = [*SYNTAX[shell], str(FILES[shell])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["st"], ["status"]),
        (["status", "--j"], ["--json"]),
        (["grow", "--re"], []),
        (["--log-level", "w"], ["warning"]),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_what_is_offered(shell: str, words: list[str], offered: list[str]) -> None:
    """Verbs, options and values are, what is between our own processes is not."""
    line = " ".join(["ebs-autoscale", *words])
    if shell == "bash":
        script = (
            f"source {FILES[shell]}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
            "_shtab_ebs_autoscale; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
    else:
        script = f"source {FILES[shell]}; complete --do-complete='{line}'"
    argv = [shell, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert [each.partition("\t")[0] for each in done.stdout.split("\n") if each] == offered


def test_each_verb_is_offered() -> None:
    """Every verb of the parser is in every file."""
    for file in FILES.values():
        text = file.read_text("utf-8")
        assert [verb for verb in build_parser().verbs if verb not in text] == []
