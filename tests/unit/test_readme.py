"""README.md and the pages in docs/ against the program and the repository."""

import re
from pathlib import Path

import pytest

from ebs_autoscale.cli.parser import build_parser
from ebs_autoscale.ec2.iam import STATEMENTS, Statement
from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.telemetry import EventKind
from ebs_autoscale.telemetry.metrics import METRICS, Metric
from tests.unit.shipped_config import shipped_defaults

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PERMISSIONS = (ROOT / "docs/permissions.md").read_text("utf-8")


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.sid)
def test_each_statement_of_the_policy_is_explained(statement: Statement) -> None:
    """The table of permissions has each statement with its actions and its purpose."""
    actions = ", ".join(f"`{action}`" for action in statement.actions)
    assert re.search(
        rf"^\| `{statement.sid}` \| {re.escape(actions)} \| \w.+\. \|$", PERMISSIONS, re.MULTILINE
    )


def test_each_exit_code_is_documented() -> None:
    """The table has all exit codes and no others."""
    table = README.split("## Exit codes")[1].split("## ")[0]
    assert [line[2] for line in table.splitlines() if line[:3].strip("| ").isdigit()] == [
        str(code.value) for code in Exit
    ]


def test_hosts_that_are_tested_name_the_test() -> None:
    """Each row of the table of hosts names a test that exists, or says that there is none."""
    table = README.split("## Hosts")[1].split("## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 7
    for row in rows:
        tests = re.findall(r"`(tests/[^`]+)`", row)
        assert tests or "documented only" in row or "not supported" in row, row
        assert all((ROOT / each).exists() for each in tests), row


@pytest.mark.parametrize("verb", build_parser().verbs)
def test_each_verb_is_named(verb: str) -> None:
    """Every verb is in the README."""
    assert f"ebs-autoscale {verb}" in README


def test_defaults_are_those_of_the_program() -> None:
    """Each key in the table of the configuration has the program's default."""
    defaults = shipped_defaults()
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


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LINKS = [
    (page, *link)
    for page in PAGES
    for link in re.findall(r'(?:\]\(|src="|srcset=")([^)#":]*)#?([^)"]*)', page.read_text("utf-8"))
    if not link[1].startswith(("//", ":"))
]


@pytest.mark.parametrize(("page", "file", "anchor"), LINKS, ids=lambda part: str(part)[-40:])
def test_each_link_leads_somewhere(page: Path, file: str, anchor: str) -> None:
    """Every page, section and picture that a page refers to is in the repository."""
    target = page.parent / file if file else page
    assert target.exists()
    assert not anchor or anchor in anchors_of(target.read_text("utf-8"))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_each_make_target_exists(target: str) -> None:
    """Every `make` command in the README works."""
    assert re.search(rf"^{target}:.* ## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def anchors_of(page: str) -> set[str]:
    """What a link can lead to in a page: explicit ids, and those that GitHub gives headings."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', page))


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_an_entry_in_the_failure_guide(cause: Cause) -> None:
    """Alerts and messages link to it by the name of the cause, with hyphens for spaces."""
    failures = (ROOT / "docs/failures.md").read_text("utf-8")
    assert cause.value.replace(" ", "-") in anchors_of(failures)


@pytest.mark.parametrize("kind", EventKind)
def test_each_kind_of_event_is_documented(kind: EventKind) -> None:
    """docs/operations.md has it in its table of events."""
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    assert re.search(rf"^\| .*`{kind}`.* \| .+ \| .+ \|$", operations, re.MULTILINE)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_documented(metric: Metric) -> None:
    """docs/operations.md has it in its table of metrics, with its type."""
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    row = rf"^\| .*`ebs_autoscale_{metric.name}[`{{].* \| {metric.kind} \| .+ \|$"
    assert re.search(row, operations, re.MULTILINE)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.[58]")), ids=lambda page: page.name)
def test_a_reference_to_a_manual_ends_its_line(page: Path) -> None:
    """What follows in the line of `.BR name (5)` would be printed without spaces."""
    assert not re.findall(r"^\.BR \S+ \(\d\)\S* .*", page.read_text("utf-8"), re.MULTILINE)
