"""`plan --simulate`: what the policy would do, and what that costs."""

import json
import shlex
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.cli.parser import main
from ebs_autoscale.ec2.volume_types import sustained_bytes_per_second, usd_per_month
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import GIB, FilesystemKind, VolumeSpec
from ebs_autoscale.policy.settings import GrowthMethod, GrowthPolicy, Limits, Sizing
from ebs_autoscale.simulation import (
    Course,
    Report,
    Scenario,
    as_json,
    as_text,
    empty,
    parse_scenario,
    report,
    simulate,
)
from ebs_autoscale.simulation.faster import cheapest
from ebs_autoscale.simulation.room import Device, Room
from tests.unit.samples import MIB, reading_of

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
# As long as the path in the README, so that lines break at the same words.
NO_CONFIGURATION = "/etc/no-such-place/config.yaml"

FAST = VolumeSpec(throughput_mib_per_second=2000, iops=8000)


def run(words: str, volume: VolumeSpec = FAST, **limits: Any) -> Course:
    """Simulate a scenario on an empty filesystem of volumes that are fast enough."""
    return reported(words, volume, **limits).course


def reported(words: str, volume: VolumeSpec = FAST, **limits: Any) -> Report:
    """The same with what is told of it."""
    scenario = parse_scenario(words.split())
    policy = GrowthPolicy(limits=Limits(**limits))
    return report(scenario, empty(scenario.size_bytes or 0), policy, volume, ("sample",))


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
        (["rate=1MiB", "hours=1", "filesystem=zfs"], "btrfs, xfs, ext4"),
        (["rate=1MiB"], "hours"),
        (["hours=1"], "rate"),
        (["rate=1MiB", "hours=1", "speed=2"], "speed"),
        (["rate=1MiB", "hours=1", "hours=2"], "duplicate key hours"),
        (["rate=fast", "hours=1"], "fast"),
        (["rate=500", "hours=1"], "did you mean 500MiB/s"),
        (["rate=20gb/s", "hours=1"], "did you mean 20GiB/s"),
        (["rate=0", "hours=1"], "'0'"),
        (["rate=0MiB/s", "hours=1"], "'0MiB/s'"),
        (["rate=-5MiB/s", "hours=1"], "'-5MiB/s'"),
        (["rate=nan", "hours=1"], "'nan'"),
        (["rate=1MiB", "hours=many"], "many"),
        (["rate=1MiB", "hours=-1"], "'-1'"),
        (["rate=1MiB", "hours=0"], "hours=0"),
        (["rate=1MiB", "hours=nan"], "'nan'"),
        (["rate=1MiB", "hours=1e400"], "'1e400'"),
        (["rate=1MiB", "hours=8785"], "8784"),
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


WORD = st.one_of(
    st.text(max_size=8),
    st.builds(
        "{}={}".format,
        st.sampled_from(["rate", "hours", "size", "", "Rate"]),
        st.text(alphabet=f"{string.digits}.-+eE_ \n\0KMGTiB/s%٣", max_size=10),
    ),
)


@given(words=st.lists(WORD, max_size=4))
def test_any_words_are_a_scenario_or_a_usage_error(words: list[str]) -> None:
    """Whatever is typed, it is either refused in one line or within bounds."""
    try:
        scenario = parse_scenario(words)
    except ConfigInvalid as error:
        refusal = error
    else:
        assert scenario.rate_bytes_per_second >= 1
        assert 0 < scenario.seconds <= 366 * 24 * 3600
        return
    assert refusal.cause is Cause.USAGE
    assert len(str(refusal).splitlines()) == 1


def test_growths_of_a_steady_writer() -> None:
    """Each growth has its time and size; the text has a row for each, and a line for the costs."""
    found = reported("rate=1MiB/s hours=48 size=100GiB", VolumeSpec())
    seen = [(int(c.at_seconds), c.size_bytes, c.total_bytes) for c in found.course.created]
    assert seen == [(81_921, 50 * GIB, 150 * GIB), (122_881, 75 * GIB, 225 * GIB)]
    text = as_text(found)
    assert "22:45:21   50 GiB  150 GiB       4.00 " in text
    assert "34:08:01   75 GiB  225 GiB      10.00 " in text
    assert "2 growths, 125 GiB created: 10.00 USD a month at the list price" in text
    assert "0.25 USD within 48 h" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("words", ["rate=1GiB/s hours=99 size=20GiB", "rate=1B hours=1 size=1GiB"])
def test_no_line_is_wider_than_a_terminal(words: str) -> None:
    """Neither for much nor for nothing."""
    assert max(map(len, as_text(reported(words, VolumeSpec())).splitlines())) <= 80


def test_a_limit_ends_in_enospc() -> None:
    """When a limit refuses, the refusal and the time of ENOSPC are shown.

    The first volume counts, as it does for the daemon.
    """
    found = reported("rate=100MiB/s hours=2 size=20GiB", total_bytes=50 * GIB)
    course = found.course
    assert sum(each.size_bytes for each in course.created) == 30 * GIB
    assert course.refused is not None
    assert course.refused.limit is Cause.LIMIT_TOTAL
    assert course.full_at_seconds == pytest.approx(50 * GIB / (100 * MIB))
    assert "  00:08:32 " in as_text(found)
    assert "refused by limits.total" in as_text(found)
    assert as_json(found)["refused_by"] == "limits.total"


def test_a_limit_of_the_costs() -> None:
    """What all volumes cost stays within `limits.monthly`, the first one included."""
    found = reported("rate=100MiB/s hours=2 size=20GiB", VolumeSpec(), monthly_usd=10.0)
    created = found.course.created
    first_usd = usd_per_month(VolumeSpec(), 20 * GIB)
    assert 10 - first_usd - 0.08 < created[-1].usd_per_month <= 10 - first_usd
    assert as_json(found)["refused_by"] == "limits.monthly"
    assert found.course.full_at_seconds is not None


@pytest.mark.parametrize(
    ("words", "cooldown_seconds"),
    [("rate=1MiB/s hours=48", 45_000.0), ("rate=20KiB/s hours=2000", 2_300_000.0)],
)
def test_a_cooldown_delays_and_ends(words: str, cooldown_seconds: float) -> None:
    """A growth that the cooldown refused is made as soon as that ends, also after weeks."""
    course = run(f"{words} size=100GiB", cooldown_seconds=cooldown_seconds)
    first, second, *_ = (each.at_seconds for each in course.created)
    assert second - first == cooldown_seconds
    assert course.refused is not None
    assert course.full_at_seconds is None


def test_a_simulation_as_json() -> None:
    """The JSON has the same growths and the same costs."""
    found = reported("rate=100MiB/s hours=1 size=100GiB")
    values = json.loads(json.dumps(as_json(found)))
    created = found.course.created
    assert len(created) > 1
    assert values["growths"][0]["size_bytes"] == 50 * GIB
    assert values["created_bytes"] == sum(each.size_bytes for each in created)
    assert values["usd_per_month"] == pytest.approx(
        sum(usd_per_month(FAST, each.size_bytes) for each in created), abs=0.01
    )
    for key in ("full_at_seconds", "refused_by", "faster"):
        assert values[key] is None
    assert values["limited_to_bytes_per_second"] == []
    assert "sample" in values["assumed"]


@pytest.mark.parametrize(("rate_mib", "hours"), [(1, 30), (100, 3), (500, 1), (2000, 0.5)])
def test_no_steady_writer_gets_enospc_by_default(rate_mib: int, hours: float) -> None:
    """Within the limits the policy keeps ahead of every writer up to 2 GB/s."""
    course = run(f"rate={rate_mib}MiB/s hours={hours} size=100GiB", total_bytes=2**50)
    assert course.full_at_seconds is None
    assert course.refused is None
    assert course.written_bytes == pytest.approx(rate_mib * MIB * hours * 3600)
    assert course.created


@pytest.mark.parametrize("rate_mib", [1, 125, 126, 500, 10_000])
@pytest.mark.parametrize("size_gib", [20, 100, 3000])
def test_a_writer_is_no_faster_than_the_volumes(rate_mib: int, size_gib: int) -> None:
    """Between two growths the new volume takes the data alone until others have as much left."""
    course = run(f"rate={rate_mib}MiB/s hours=3 size={size_gib}GiB", VolumeSpec())
    rates = [rate / MIB for _, rate in course.rates]
    most = min(rate_mib, 125)
    assert min(rates) == most
    assert all(rate == rate_mib or rate % 125 == 0 for rate in rates)
    assert course.written_bytes >= most * MIB * 3 * 3600 * 0.999
    for each in course.created:
        after = [r for at, r in course.rates if at <= each.at_seconds + 21][-1]
        assert after / MIB == most


@pytest.mark.parametrize(
    ("unallocated_gib", "written_to"),
    [((50,), 1), ((20, 50), 1), ((60, 60), 2), ((59.5, 60), 2), ((5, 30, 30), 2)],
)
def test_data_goes_where_most_is_unallocated(
    unallocated_gib: tuple[float, ...], written_to: int
) -> None:
    """What was measured on BTRFS; whatever is written, all of it is gone from the right devices."""
    room = Room(0, tuple(Device(gib * GIB, 125 * MIB) for gib in unallocated_gib))
    assert room.bytes_per_second == written_to * 125 * MIB
    for written_gib in (1, 10, 30, 50):
        after = room.after(written_gib * GIB)
        assert after.available_bytes == pytest.approx(
            max(0, room.available_bytes - written_gib * GIB)
        )
        highest = max(each.unallocated_bytes for each in after.devices)
        for device, before in zip(after.devices, room.devices, strict=True):
            assert device.unallocated_bytes in {before.unallocated_bytes, highest}
    until = room.bytes_until_more
    if until < room.available_bytes:
        assert len(room.after(until + MIB).written_to) > written_to


@pytest.mark.parametrize(
    ("rate_mib", "volume", "cheapest_volume"),
    [
        (126, VolumeSpec(), VolumeSpec(throughput_mib_per_second=126)),
        (500, VolumeSpec(), VolumeSpec(throughput_mib_per_second=500)),
        (1000, VolumeSpec(), VolumeSpec(throughput_mib_per_second=1000, iops=4000)),
        (500, VolumeSpec(iops=6000), VolumeSpec(throughput_mib_per_second=500, iops=6000)),
        (300, VolumeSpec(type="gp2"), VolumeSpec(throughput_mib_per_second=300)),
        (4000, VolumeSpec(), VolumeSpec(type="io2", iops=16_000)),
        (5000, VolumeSpec(), None),
    ],
)
def test_the_cheapest_that_carries_the_writer(
    rate_mib: int, volume: VolumeSpec, cheapest_volume: VolumeSpec | None
) -> None:
    """It is what the configuration accepts, takes the rate, and costs least."""
    policy, sizes = GrowthPolicy(), [100 * GIB, 50 * GIB]
    assert cheapest(rate_mib * MIB, volume, policy, sizes) == cheapest_volume


def test_the_price_of_more_throughput() -> None:
    """A writer of 500 MiB/s needs a throughput that costs 15 USD a month for each volume."""
    found = reported("rate=500MiB/s hours=2 size=100GiB", VolumeSpec())
    assert "`volume.throughput: 500` adds 15 USD a month for each volume" in as_text(found)
    faster = as_json(found)["faster"]
    assert isinstance(faster, dict)
    assert faster["volume.throughput"] == 500
    scenario = found.scenario
    volume = VolumeSpec(throughput_mib_per_second=500)
    course = simulate(scenario, empty(100 * GIB), GrowthPolicy(), volume)
    assert faster["growths"] == len(course.created)
    assert course.written_bytes == pytest.approx(500 * MIB * 7200)


def test_volumes_that_are_too_large_for_every_other_type() -> None:
    """Where no type fits, that is said."""
    found = reported("rate=9GiB/s hours=1 size=100GiB", VolumeSpec())
    assert found.faster is None
    assert "no type of volume takes 9 GiB/s" in as_text(found)


def test_a_mounted_filesystem() -> None:
    """What is free in its chunks is written to first, at the rate of one device."""
    start = reading_of(200, 60, devices=2)
    scenario = Scenario(rate_bytes_per_second=GIB, seconds=7200)
    course = simulate(scenario, start, GrowthPolicy(), VolumeSpec())
    assert course.rates[0] == (0.0, 125 * MIB)
    assert course.created[0].total_bytes == 300 * GIB


def test_no_more_volumes_than_an_instance_takes() -> None:
    """Without a number in `limits.volumes`, the largest instance is the limit."""
    sizing = Sizing(method=GrowthMethod.ADD, fixed_bytes=10 * GIB, min_bytes=10 * GIB)
    policy = GrowthPolicy(sizing=sizing)
    scenario = Scenario(rate_bytes_per_second=100 * MIB, seconds=1e5)
    course = simulate(scenario, empty(100 * GIB), policy, VolumeSpec())
    assert course.refused is not None
    assert course.refused.limit is Cause.LIMIT_VOLUMES
    assert len(course.created) <= 126
    assert course.full_at_seconds is not None


def test_a_volume_is_enlarged_where_there_can_be_no_other() -> None:
    """Each volume takes its turn, at the price of what is added."""
    sizing = Sizing(fixed_bytes=50 * GIB, max_bytes=120 * GIB)
    policy = GrowthPolicy(sizing=sizing, limits=Limits(volumes=2))
    scenario = Scenario(rate_bytes_per_second=5 * MIB, seconds=2 * 86400)
    course = simulate(scenario, empty(50 * GIB), policy, VolumeSpec())
    assert [each.enlarges for each in course.created] == [None, 0, 1, 0]
    assert course.created[-1].total_bytes == 240 * GIB
    assert course.created[-1].usd_per_month == pytest.approx(190 * 0.08)
    assert course.refused is not None
    assert course.refused.limit is Cause.LIMIT_VOLUMES
    assert "cannot have more than 120 GiB" in course.refused.reason


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.EXT4])
def test_one_volume_is_enlarged(kind: FilesystemKind) -> None:
    """From the command line on; the only volume is known also where the filesystem is in use."""
    words = f"rate=100MiB/s hours=1 size=100GiB filesystem={kind}"
    scenario = parse_scenario(words.split())
    start = empty(100 * GIB, scenario.kind or FilesystemKind.BTRFS)
    for used in (0, 30 * GIB):
        begin = replace(start, used_bytes=used, available_bytes=100 * GIB - used)
        course = simulate(scenario, begin, GrowthPolicy(), VolumeSpec())
        assert [each.enlarges for each in course.created] == [0] * len(course.created)
        assert [each.total_bytes // GIB for each in course.created] == [200, 1000]
        assert course.full_at_seconds is None
        assert course.created[-1].usd_per_month == pytest.approx(900 * 0.08)
    told = report(scenario, start, GrowthPolicy(), VolumeSpec(), ("sample",))
    text = " ".join(as_text(told).split())
    assert f"on {kind} of 100 GiB, on one volume" in text
    assert "2 growths, 900 GiB added" in text
    assert "iam-policy --enlarge" in text
    assert "BTRFS" not in text
    json.dumps(as_json(told))


def test_one_volume_at_its_limit() -> None:
    """The limit is told, not that EC2 is not done with the last modification."""
    scenario = parse_scenario(["rate=100MiB/s", "hours=6", "filesystem=xfs"])
    course = simulate(scenario, empty(100 * GIB, FilesystemKind.XFS), GrowthPolicy(), VolumeSpec())
    assert course.full_at_seconds is not None
    assert course.refused is not None
    assert course.refused.limit is Cause.LIMIT_SIZE
    assert "raise growth.max" in course.refused.hint
    assert all(each.reason.count("capped by") <= 1 for each in course.created)
    # At first EC2 is not done with the last modification, which passes.
    policy = GrowthPolicy(limits=Limits(total_bytes=150 * GIB))
    course = simulate(scenario, empty(100 * GIB, FilesystemKind.XFS), policy, VolumeSpec())
    assert course.refused is not None
    assert course.refused.limit is Cause.LIMIT_TOTAL


@pytest.mark.parametrize(
    ("volume", "usd", "mib_per_second"),
    [
        (VolumeSpec(), 8.0, 125),
        (VolumeSpec(iops=4000, throughput_mib_per_second=225), 17.0, 225),
        (VolumeSpec(type="gp2"), 10.0, 75),
        (VolumeSpec(type="io2", iops=1000), 77.5, 256),
        (VolumeSpec(type="sc1"), 1.5, 12 * 100 / 1024),
    ],
)
def test_price_and_throughput(volume: VolumeSpec, usd: float, mib_per_second: float) -> None:
    """100 GiB cost and take what AWS' pages say, provisioned performance included."""
    assert usd_per_month(volume, 100 * GIB) == pytest.approx(usd)
    assert sustained_bytes_per_second(volume, 100 * GIB) == pytest.approx(mib_per_second * MIB)


BARE = """
import sys
for name in ("boto3", "botocore", "psutil", "daemon"):
    sys.modules[name] = None
from ebs_autoscale.cli.parser import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_laptop() -> None:
    """It needs no root, configuration, tools, boto3 or psutil, and says that it has defaults."""
    words = ["plan", "--config", NO_CONFIGURATION, "--simulate", "rate=100MiB/s", "hours=1"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words],
        env={"PATH": "/nowhere", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"there is no {NO_CONFIGURATION}" in done.stdout
    assert "20 GiB" in done.stdout


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        ("", "rate=1MiB hours=1 size=20GiB", 0),
        ("limits: {total: 30GiB}", "rate=100MiB hours=1 size=20GiB", 4),
        ("limits: {total: 30GiB}", "rate=1KiB hours=1 size=20GiB", 0),
        ("growth: {method: add}\nlimits: {volumes: 1}", "rate=1GiB hours=1 size=20GiB", 4),
        ("volume: {type: gp4}", "rate=1MiB hours=1 size=20GiB", 2),
        ("", "rate=1 hours=1 size=20GiB", 2),
        ("", "rate=1MiB hours=1 size=100MiB", 2),
        ("", "rate=1MiB hours=1 size=65TiB", 2),
        ("volume: {type: st1}\ngrowth: {min: 125GiB}", "rate=1MiB hours=1 size=20GiB", 2),
        ("", "rate=1MiB hours=1", 5),
    ],
)
@pytest.mark.parametrize("option", [(), ("--json",)])
def test_exit_codes(
    text: str,
    words: str,
    code: int,
    option: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """0 as long as there is space, 4 for ENOSPC, 2 for bad input, 5 without the filesystem."""
    path = tmp_path / "config.yaml"
    path.write_text(f"mountpoint: {tmp_path}/none\n{text}\n", "utf-8")
    argv = ["plan", "--config", str(path), *option, "--simulate", *words.split()]
    assert main(argv) == code
    said = capfd.readouterr()
    assert bool(said.err) == (code in {2, 5})
    if "size=" not in words or "size=65" in words or "size=100M" in words:
        assert "size" in said.err
    if option and not said.err:
        assert (json.loads(said.out)["full_at_seconds"] is not None) == (code == 4)


@pytest.mark.parametrize(
    "block", [part for part in README.split("```")[1::2] if "plan --simulate" in part]
)
def test_the_readme_shows_what_is_printed(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each example of a simulation in the README, to the letter."""
    command, _, shown = block.partition("$ ")[2].partition("\n")
    _, *argv = shlex.split(command)
    assert main([*argv, "--config", NO_CONFIGURATION]) == 0
    printed = capsys.readouterr().out
    assert printed.replace(NO_CONFIGURATION, "/etc/ebs-autoscale/config.yaml") == shown
