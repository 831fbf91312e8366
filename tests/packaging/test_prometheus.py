"""Alert rules and dashboard against promtool, the failure guide and the metrics that exist."""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ebs_autoscale.errors import Cause, Exit
from tests.unit.test_readme import anchors_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/prometheus"
TEXT = (FOLDER / "alerts.yml").read_text("utf-8")
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]
}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
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


def test_grafana_knows_every_key_of_the_dashboard() -> None:
    """Read and written again by Grafana's own schema, nothing is lost."""
    register_default_plugins()
    written = json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder)
    assert list(lost(DASHBOARD, json.loads(written))) == []
    wrong = json.dumps(Dashboard.from_json({**DASHBOARD, "unknown": ""}), cls=JSONEncoder)
    assert list(lost({"unknown": ""}, json.loads(wrong))) == [".unknown"]


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Where something of `before` is missing in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")
    elif before != after:
        yield path


def test_the_panels_stand_side_by_side() -> None:
    """Each is on the grid of 24 columns, none covers another, and ids are unique."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert max(place["x"] + place["w"] for place in places) == 24
    assert not [
        (one, other)
        for one, other in combinations(places, 2)
        if one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    ]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_each_panel_asks_the_chosen_data_source_for_the_chosen_hosts() -> None:
    """None is bound to one Prometheus; each metric is filtered by both variables."""
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "instance", "mountpoint"}
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    chosen = '{instance=~"$instance", mountpoint=~"$mountpoint"'
    for query in queries():
        assert query.count("ebs_autoscale_") == query.count(chosen), query


def queries() -> list[str]:
    """Every expression of the dashboard."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_promtool_accepts_the_queries(tmp_path: Path) -> None:
    """As the expressions of rules, with values for Grafana's variables."""
    rules = [
        {"record": f"query{number}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", query)}
        for number, query in enumerate(queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))
