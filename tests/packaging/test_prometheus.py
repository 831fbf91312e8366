"""Alert rules and dashboard against promtool, the failure guide and the metrics that exist."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ebs_autoscale.errors import Cause, Exit
from tests.unit.test_readme import anchors_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/prometheus"
TEXT = (FOLDER / "alerts.yml").read_text("utf-8")
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]
}
ANY_CAUSE = "{{ $labels.cause | reReplaceAll "


def promtool(*arguments: str, stdin: str = "") -> str:
    """What promtool says, for the log of a failed test; its exit status is 0."""
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=FOLDER,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_promtool_accepts_the_rules() -> None:
    """Syntax, expressions, and templates of the annotations."""
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    """The unit tests of the rules."""
    promtool("test", "rules", "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_how_urgent_it_is_and_what_to_do(alert: str) -> None:
    """It has a severity, both sentences, a section of the failure guide, and a unit test."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description"} < rule["annotations"].keys()
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    assert section.startswith(ANY_CAUSE) or section in anchors_of((ROOT / page).read_text("utf-8"))
    assert f'alertname="{alert}"' in (FOLDER / "alerts_test.yml").read_text("utf-8")


@pytest.mark.parametrize("cause", Cause)
def test_each_condition_has_one_alert(cause: Cause) -> None:
    """A limit tells at once, the rest after a while; a cooldown and orphaned volumes do not."""
    firing = {
        alert
        for alert, rule in ALERTS.items()
        for sign, pattern in re.findall(r'_condition{cause(=|!)~"(.+)"}', rule["expr"])
        if bool(re.fullmatch(pattern, cause.value)) is (sign == "=")
    }
    expected = (
        set()
        if cause in {Cause.LIMIT_COOLDOWN, Cause.UNUSED_VOLUMES}
        else {"EbsAutoscaleLimitReached"}
        if cause.exit is Exit.REFUSED
        else {"EbsAutoscaleNeedsOperator"}
    )
    assert firing == expected
