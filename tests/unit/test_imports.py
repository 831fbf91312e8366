"""The count of imports between units: what is an error, and that the program has none."""

import pytest

from tests.imports import Arrow, Contract, read_contract, read_imports, report

LAYERS = Contract(rank={"cli": 0, "policy": 1, "host": 2}, exceptions=("p.host.* -> p.policy.old",))


@pytest.mark.parametrize(
    ("imports", "line"),
    [
        ({("host", "policy"): [("p.host.files", "p.policy.new")]}, "upward: p.host.files imports"),
        ({("cli", "extra"): [("p.cli", "p.extra")]}, "unit without a layer: extra"),
        (
            {
                ("cli", "policy"): [("p.cli", "p.policy")],
                ("policy", "host"): [("p.policy", "p.host")],
                ("host", "cli"): [("p.host", "p.cli")],
            },
            "cycle: cli, host, policy import each other",
        ),
    ],
)
def test_what_is_an_error(imports: dict[Arrow, list[Arrow]], line: str) -> None:
    """An upward import, a unit outside the layers and a cycle are errors, each with its line."""
    text, is_sound = report(imports, LAYERS)
    assert line in text
    assert not is_sound


def test_what_is_not_an_error() -> None:
    """Imports downward, and an upward one that the contract lists, are counted only."""
    text, is_sound = report(
        {
            ("cli", "policy"): [("p.cli.verbs", "p.policy"), ("p.cli.status", "p.policy")],
            ("policy", "host"): [("p.policy", "p.host.files")],
            ("host", "policy"): [("p.host.files", "p.policy.old")],
        },
        LAYERS,
    )
    assert text.splitlines()[0] == "3 imports between 3 units, 1 upward, 0 cycles"
    assert is_sound


def test_the_program_is_sound() -> None:
    """The program has no upward import and no cycle between its units."""
    text, is_sound = report(read_imports(), read_contract())
    assert is_sound, text
