"""The README against the program: what it promises is what there is."""

from pathlib import Path

import pytest

from ebs_autoscale.config.schema import KEYS
from ebs_autoscale.ec2.iam import STATEMENTS, Statement
from ebs_autoscale.errors import Exit

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.sid)
def test_each_statement_of_the_policy_is_explained(statement: Statement) -> None:
    """The table of permissions has each statement with its actions and its reason."""
    actions = ", ".join(f"`{action}`" for action in statement.actions)
    assert f"| `{statement.sid}` | {actions} | {statement.why} |" in README


def test_each_exit_code_is_documented() -> None:
    """The table of exit codes has them all and no other."""
    table = README.split("## Exit codes")[1].split("## ")[0]
    assert [line[2] for line in table.splitlines() if line[:3].strip("| ").isdigit()] == [
        str(code.value) for code in Exit
    ]


VERBS = (
    *("run", "status", "plan", "grow", "check", "iam-policy", "demo"),
    *("init", "uninstall"),
)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_named(verb: str) -> None:
    """An operator finds every verb."""
    assert f"ebs-autoscale {verb}" in README


def test_defaults_are_those_of_the_program() -> None:
    """A key in the README's table stands there with the default it has."""
    defaults = {key.path: key.default for key in KEYS}
    rows = [line for line in README.splitlines() if line.startswith("| `") and line.count("|") == 4]
    told: dict[str, str] = {}
    for row in rows:
        names, values, _ = (cell.strip() for cell in row.strip("|").split("|"))
        told |= dict(zip(names.split(", "), values.split(", "), strict=False))
    found = {name.strip("`"): value.strip("`") for name, value in told.items()}
    assert {key for key in found if key in defaults} >= {
        "threshold.available",
        "growth.min",
        "adopt",
    }
    for key in found.keys() & defaults.keys() - {"growth.steps"}:
        assert found[key] == defaults[key], key
