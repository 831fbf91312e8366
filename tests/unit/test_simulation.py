"""`plan --simulate`: what the policy alone would do, and what that costs."""

import pytest

from ebs_autoscale.ec2.volume_types import usd_per_month
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import GIB, VolumeSpec
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.simulation.steady_writer import (
    Scenario,
    as_json,
    costs,
    empty,
    parse_scenario,
    simulate,
    told,
)
from tests.unit.samples import MIB


def run(words: str, **limits: int) -> tuple[Scenario, list[str]]:
    """Simulate on an empty filesystem; the lines that are printed."""
    scenario = parse_scenario(words.split())
    policy = GrowthPolicy(limits=Limits(**limits))
    course = simulate(scenario, empty(scenario.size_bytes or 0), policy)
    return scenario, list(told(scenario, course, VolumeSpec()))


def test_words_become_a_scenario() -> None:
    """Rates are sizes a second, times hours, and without a size it is the mounted filesystem."""
    assert parse_scenario(["rate=500MiB/s", "hours=2"]) == Scenario(
        rate_bytes_per_second=500 * MIB, seconds=7200
    )
    assert parse_scenario(["size=20GiB", "hours=0.5", "rate=1GiB"]) == Scenario(
        rate_bytes_per_second=GIB, seconds=1800, size_bytes=20 * GIB
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rate=1MiB"], "missing: hours"),
        (["hours=1"], "missing: rate"),
        (["rate=1MiB", "hours=1", "speed=2"], "no such word: speed"),
        (["rate=fast", "hours=1"], "fast"),
        (["rate=1MiB", "hours=many"], "many"),
        (["rate=1MiB", "hours=-1"], "hours=-1"),
        (["rate=1MiB", "hours=nan"], "hours=nan"),
        (["rate=1MiB", "hours=1", "size=20"], "20"),
    ],
)
def test_what_cannot_be_simulated_is_a_usage_error(words: list[str], said: str) -> None:
    """Wrong words are named, with an example of right ones."""
    with pytest.raises(ConfigInvalid, match="--simulate") as caught:
        parse_scenario(words)
    assert said in str(caught.value)
    assert "rate=500MiB/s hours=2" in str(caught.value)


def test_growths_come_in_time_and_are_explained() -> None:
    """Each growth has its moment, size and reason; the last line is the bill."""
    _, lines = run("rate=1MiB/s hours=48 size=100GiB")
    assert lines == [
        (
            "  22:45:21  + 50 GiB to 150 GiB: 20.0 % (20 GiB) available, less than 20 %;"
            " 50 GiB: 50 % of the present size"
        ),
        (
            "  34:08:01  + 75 GiB to 225 GiB: 20.0 % (30 GiB) available, less than 20 %;"
            " 75 GiB: 50 % of the present size"
        ),
        "2 growths, 125 GiB bought: 10.00 USD a month at list price, 0.25 USD of it in 48 h",
    ]


def test_a_limit_ends_in_enospc_and_both_are_told() -> None:
    """When a limit refuses, the refusal and the moment of ENOSPC are shown."""
    scenario, lines = run("rate=100MiB/s hours=2 size=20GiB", total_bytes=50 * GIB)
    assert "refused by limits.total" in lines[-3]
    assert lines[-2].endswith("full: the writer gets ENOSPC")
    course = simulate(scenario, empty(20 * GIB), GrowthPolicy(limits=Limits(total_bytes=50 * GIB)))
    assert sum(each.size_bytes for each in course.bought) == 50 * GIB
    assert course.full_at_seconds == pytest.approx(70 * GIB / (100 * MIB), abs=2)


def test_a_simulation_for_machines() -> None:
    """The JSON has the same growths and the same bill."""
    scenario = Scenario(rate_bytes_per_second=100 * MIB, seconds=3600, size_bytes=100 * GIB)
    course = simulate(scenario, empty(100 * GIB), GrowthPolicy())
    found = as_json(scenario, course, VolumeSpec())
    assert found["usd_per_month"] == round(costs(scenario, course, VolumeSpec())[0], 2)
    assert found["full_at_seconds"] is None
    assert len(course.bought) > 1


@pytest.mark.parametrize(("rate_mib", "hours"), [(1, 30), (100, 3), (500, 1), (2000, 0.5)])
def test_no_steady_writer_gets_enospc_by_default(rate_mib: int, hours: float) -> None:
    """With room in the limits the policy keeps ahead of every writer up to 2 GB/s."""
    scenario = Scenario(rate_bytes_per_second=rate_mib * MIB, seconds=hours * 3600)
    policy = GrowthPolicy(limits=Limits(total_bytes=2**50))
    course = simulate(scenario, empty(100 * GIB), policy)
    assert course.full_at_seconds is None
    assert course.refused is None
    assert course.bought


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
