"""What the command line says about words that it does not know."""

import argparse

import pytest

from ebs_autoscale.cli.parser import build_parser, main
from ebs_autoscale.cli.terminal import columns
from ebs_autoscale.errors import Exit
from ebs_autoscale.host import paths

VERBS = sorted(build_parser().verbs)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["stauts"], "`status`"),  # codespell:ignore stauts
        (["iam-polciy"], "`iam-policy`"),
        (["status", "--jsno"], "`--json`"),
        (["--cofnig", "x", "status"], "`--config`"),
        (["grow", "--siz=5GiB"], "`--size`"),
        (["init", "/scratch", "--devise", "/dev/nvme1n1"], "`--device`"),
        (["--log-level", "dbug", "status"], "`debug`"),
        (["plan", "--simulate", "raet=5MiB/s", "hours=2"], "`rate`"),
        (["zzzzzz"], "status, check"),
        (["status", "--zzzzzz"], "--json, --watch"),
    ],
)
def test_a_wrong_word_gets_the_nearest(
    words: list[str], meant: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A misspelt verb, option or value is a usage error that names what is near, or all."""
    try:
        code = main(words)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert meant in last


@pytest.mark.parametrize(
    "mode", ["rwx", "", "8", "99", "4755", "01777", "u+w", "\u0667\u0667\u0667"]
)
def test_what_is_no_mode(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Only octal digits, and no set-user-ID, which does nothing on a folder."""
    with pytest.raises(SystemExit) as exit_:
        build_parser().parse_args(["init", "/scratch", "--mode", mode])
    assert exit_.value.code == 2
    assert "octal" in capsys.readouterr().err.splitlines()[-1]
    assert build_parser().parse_args(["init", "/scratch", "--mode", "2775"]).mode == 0o2775


@pytest.mark.parametrize("verb", VERBS)
def test_no_text_names_what_is_between_processes(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No help, usage or error names an option without a help text; nothing abbreviates it."""
    hidden = {
        option
        for option, told in build_parser().verbs[verb].options().items()
        if told == argparse.SUPPRESS
    }
    for words in ([verb, "--help"], [verb, "--zzzzzz"], *([verb, each[:-1]] for each in hidden)):
        with pytest.raises(SystemExit):
            main(words)
    said = capsys.readouterr()
    text = (said.out + said.err).replace("\n", " ")
    assert [each for each in hidden if f"{each} " in text or f"{each}," in text] == []


def test_two_verbs_have_hidden_options() -> None:
    """The test above has something to look for."""
    told = [text for verb in build_parser().verbs.values() for text in verb.options().values()]
    assert told.count(argparse.SUPPRESS) >= 2


def test_help_breaks_no_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 80 columns the path of the configuration stays in one piece, to be copied."""
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["--help"], *([verb, "--help"] for verb in VERBS)):
        with pytest.raises(SystemExit):
            main(words)
        assert str(paths.CONFIG_DEFAULT) in capsys.readouterr().out


def test_an_empty_mountpoint_is_not_the_configured_one(capfd: pytest.CaptureFixture[str]) -> None:
    """`check "$FOLDER"` without that variable is a usage error, not another check."""
    assert main(["check", ""]) == Exit.USAGE
    assert "absolute path" in capfd.readouterr().err


@pytest.mark.parametrize(("width", "found"), [("1", 1), ("120", 120), ("9" * 20, 1000)])
def test_the_width_is_that_of_a_screen(
    monkeypatch: pytest.MonkeyPatch, width: str, found: int
) -> None:
    """$COLUMNS may be any number, and the bar has as many characters."""
    monkeypatch.setenv("COLUMNS", width)
    assert columns() == found
