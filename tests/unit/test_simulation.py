"""`plan --simulate`: what the policy would do, and what that costs."""

import json

import pytest

from ebs_autoscale.ec2.volume_types import usd_per_month
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import GIB, VolumeSpec
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.simulation import (
    Course,
    Scenario,
    as_json,
    as_text,
    empty,
    parse_scenario,
    simulate,
)
from ebs_autoscale.simulation.steady_writer import costs
from tests.unit.samples import MIB


def run(words: str, **limits: int) -> tuple[Scenario, Course]:
    """Simulate a scenario on an empty filesystem."""
    scenario = parse_scenario(words.split())
    policy = GrowthPolicy(limits=Limits(**limits))
    return scenario, simulate(scenario, empty(scenario.size_bytes or 0), policy)


def test_scenarios_are_parsed() -> None:
    """A rate is a size a second; without a size the mounted filesystem is meant."""
    assert parse_scenario(["rate=500MiB/s", "hours=2"]) == Scenario(
        rate_bytes_per_second=500 * MIB, seconds=7200
    )
    assert parse_scenario(["size=20GiB", "hours=0.5", "rate=1GiB"]) == Scenario(
        rate_bytes_per_second=GIB, seconds=1800, size_bytes=20 * GIB
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["rate=1MiB"], "hours"),
        (["hours=1"], "rate"),
        (["rate=1MiB", "hours=1", "speed=2"], "speed"),
        (["rate=fast", "hours=1"], "fast"),
        (["rate=1MiB", "hours=many"], "many"),
        (["rate=1MiB", "hours=-1"], "hours=-1"),
        (["rate=1MiB", "hours=nan"], "hours=nan"),
        (["rate=1MiB", "hours=1", "size=20"], "'20'"),
    ],
)
def test_a_wrong_scenario_is_a_usage_error(words: list[str], named: str) -> None:
    """What is wrong in a scenario is named, with an example of a right one."""
    with pytest.raises(ConfigInvalid, match="--simulate") as caught:
        parse_scenario(words)
    assert caught.value.cause is Cause.USAGE
    assert named in caught.value.what
    assert "--simulate rate=500MiB/s hours=2" in caught.value.hint


def test_growths_of_a_steady_writer() -> None:
    """Each growth has its time and size; the text has a line for each, and one for the costs."""
    scenario, course = run("rate=1MiB/s hours=48 size=100GiB")
    seen = [(int(c.at_seconds), c.size_bytes, c.total_bytes) for c in course.created]
    assert seen == [(81_921, 50 * GIB, 150 * GIB), (122_881, 75 * GIB, 225 * GIB)]
    first, second, last = as_text(scenario, course, VolumeSpec())
    assert first.startswith("  22:45:21  + 50 GiB")
    assert second.startswith("  34:08:01  + 75 GiB")
    assert course.created[0].reason in first
    assert all(figure in last for figure in ("2 growths", "125 GiB", "10.00 USD", "0.25 USD"))


def test_a_limit_ends_in_enospc() -> None:
    """When a limit refuses, the refusal and the time of ENOSPC are shown."""
    scenario, course = run("rate=100MiB/s hours=2 size=20GiB", total_bytes=50 * GIB)
    assert sum(each.size_bytes for each in course.created) == 50 * GIB
    assert course.refused is not None
    assert course.refused.limit is Cause.LIMIT_TOTAL
    assert course.full_at_seconds == pytest.approx(70 * GIB / (100 * MIB), abs=2)
    *_, refused, full, _ = as_text(scenario, course, VolumeSpec())
    assert course.refused.reason in refused
    assert full.startswith("  00:11:57  ")


def test_a_simulation_as_json() -> None:
    """The JSON has the same growths and the same costs."""
    scenario, course = run("rate=100MiB/s hours=1 size=100GiB")
    found = as_json(scenario, course, VolumeSpec())
    assert found["usd_per_month"] == round(costs(scenario, course, VolumeSpec())[0], 2)
    assert found["full_at_seconds"] is None
    assert found["refused_by"] is None
    assert len(course.created) > 1
    assert json.loads(json.dumps(found))["growths"][0]["size_bytes"] == 50 * GIB


@pytest.mark.parametrize(("rate_mib", "hours"), [(1, 30), (100, 3), (500, 1), (2000, 0.5)])
def test_no_steady_writer_gets_enospc_by_default(rate_mib: int, hours: float) -> None:
    """Within the limits the policy keeps ahead of every writer up to 2 GB/s."""
    scenario = Scenario(rate_bytes_per_second=rate_mib * MIB, seconds=hours * 3600)
    policy = GrowthPolicy(limits=Limits(total_bytes=2**50))
    course = simulate(scenario, empty(100 * GIB), policy)
    assert course.full_at_seconds is None
    assert course.refused is None
    assert course.created


@pytest.mark.parametrize(
    ("volume", "usd"),
    [
        (VolumeSpec(), 8.0),
        (VolumeSpec(iops=4000, throughput_mib_per_second=225), 17.0),
        (VolumeSpec(type="io2", iops=1000), 77.5),
        (VolumeSpec(type="sc1"), 1.5),
    ],
)
def test_list_prices(volume: VolumeSpec, usd: float) -> None:
    """100 GiB cost what the price page says, provisioned performance included."""
    assert usd_per_month(volume, 100 * GIB) == pytest.approx(usd)
