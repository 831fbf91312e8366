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
from prometheus_client.parser import text_string_to_metric_families

from ebs_autoscale.errors import Cause, Exit
from ebs_autoscale.model import StepKind
from ebs_autoscale.policy import Forecast
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.metrics import render
from ebs_autoscale.telemetry.tally import Tally
from ebs_autoscale.telemetry.view import ManagedVolumes, State, View
from tests.unit.samples import reading_of
from tests.unit.test_readme import anchors_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/prometheus"
TEXT = (FOLDER / "alerts.yml").read_text("utf-8")
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]
}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
ALERT_TESTS = (FOLDER / "alerts_test.yml").read_text("utf-8")
ANY_CAUSE = "{{ $labels.cause | reReplaceAll "


def tally_of(*events: Event) -> Tally:
    """What is counted of these events."""
    tally = Tally()
    for event in events:
        tally.add(event, 1.8e9)
    return tally


VIEWS = {
    "before the first reading": View(state=State.WAITING),
    "idle": View(state=State.WATCHING, reading=reading_of(100, 60)),
    "growing": View(
        state=State.GROWING,
        reading=reading_of(100, 19),
        shortage="19 % available",
        forecast=Forecast(fill_bytes_per_second=5e8),
        managed=ManagedVolumes(
            volumes=2, size_bytes=10**11, orphans=0, slots_free=25, usd_per_month=8.5
        ),
        tally=tally_of(
            Event(kind=EventKind.STEP_DONE, sentence="", step=StepKind.CREATE_VOLUME, seconds=1.5),
            Event(kind=EventKind.EC2_CALL, sentence="", action="CreateVolume", result="throttled"),
        ),
    ),
    "refused": View(
        state=State.WATCHING,
        reading=reading_of(100, 5),
        shortage="5 % available",
        conditions={"limits.total": "x", "not blank vol-0123456789abcdef0": "x"},
        tally=tally_of(
            Event(kind=EventKind.GROWTH_REFUSED, sentence="", cause=Cause.LIMIT_TOTAL),
        ),
    ),
}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(view: View) -> Series:
    """What Prometheus' own parser finds: the value of each series."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text_of(view))
        for sample in family.samples
    }


def text_of(view: View) -> str:
    """What is exported of a view."""
    return render(view, mountpoint='/scratch "two"', seen_at_seconds=1.8e9)


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


@pytest.mark.parametrize("view", VIEWS)
def test_promtool_accepts_the_metrics(view: str) -> None:
    """Names, units, types and help follow Prometheus' conventions."""
    assert promtool("check", "metrics", stdin=text_of(VIEWS[view])) == ""


def test_promtool_would_object() -> None:
    """A counter without _total is no metric of ours."""
    with pytest.raises(AssertionError, match="_total"):
        promtool("check", "metrics", stdin="# HELP growths x\n# TYPE growths counter\ngrowths 1\n")


@pytest.mark.parametrize("view", VIEWS)
def test_every_series_exists_from_the_first_scrape(view: str) -> None:
    """A counter that appears with its first event has no increase that an alert could see."""
    first = series_of(VIEWS["before the first reading"])
    assert series_of(VIEWS[view]).keys() == first.keys()
    assert len(first) == text_of(VIEWS[view]).count("{mountpoint=")


@pytest.mark.parametrize("step", StepKind)
def test_each_histogram_is_complete(step: StepKind) -> None:
    """The last bucket has all durations, as the count does."""
    found = {
        (name.removeprefix("ebs_autoscale_step_duration_seconds"), dict(labels).get("le")): value
        for (name, labels), value in series_of(VIEWS["growing"]).items()
        if ("step", step.value) in labels
    }
    expected = 1 if step is StepKind.CREATE_VOLUME else 0
    assert found["_bucket", "+Inf"] == found["_count", None] == expected
    assert found["_sum", None] == 1.5 * expected


def test_values_reach_prometheus() -> None:
    """The parser reads what the view has."""
    found = {
        (name.removeprefix("ebs_autoscale_"), *sorted(v for k, v in labels if k != "mountpoint"))
        for name, labels in {
            key: value for key, value in series_of(VIEWS["refused"]).items() if value == 1
        }
        if not name.endswith("build_info")
    }
    assert found == {
        ("readable",),
        ("short",),
        ("devices",),
        ("growths_total", "limits.total", "refused"),
        ("condition", "limits.total"),
        ("condition", "not blank"),
    }


def test_alerts_and_dashboard_name_metrics_that_exist() -> None:
    """So do the unit tests of the alerts, with labels that exist."""
    existing = series_of(VIEWS["idle"])
    names = {name for name, _ in existing}
    for text in (TEXT, *queries()):
        assert set(re.findall(r"ebs_autoscale_\w+", text)) <= names
    for name, labels in re.findall(r"'(ebs_autoscale_\w+)\{(.+?)\}'", ALERT_TESTS):
        wanted = dict(re.findall(r'(\w+)="(.*?)"', labels))
        own = {(k, v) for k, v in wanted.items() if k not in {"job", "instance", "mountpoint"}}
        assert any(name == each and own <= has for each, has in existing), (name, labels)


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
    assert f'alertname="{alert}"' in ALERT_TESTS


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
