"""What the configuration can know about a volume is refused there, not by EC2."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ec2_sandbox.api import validation
from ec2_sandbox.api.create_request import shape_of
from ec2_sandbox.errors import ApiError
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.cli.parser import main
from ebs_autoscale.config.schema import Settings, parse
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES, bytes_per_second_max
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import GIB, MIB


def settings_of(volume: dict[str, Any], growth: dict[str, str]) -> Settings:
    """The settings of this text; raises ConfigInvalid."""
    document = {"mountpoint": "/scratch", "volume": volume, "growth": growth}
    text = yaml.safe_dump({**document, "limits": {"total": "65TiB"}})
    return parse(text, name="any")


def require_in_ec2(kind: str, iops: int | None, throughput: int | None, *sizes_gib: int) -> None:
    """Raise ApiError unless EC2 has volumes like this in each of these sizes."""
    for gib in sizes_gib:
        validation.size_gib(gib, type_name=kind)
        shape_of(kind, gib, iops, throughput)


EDGES = {
    "iops": [100, 199, 200, 201, 1000, 1001, 3000, 10_000, 10_001, 16_000, 64_000, 64_001],
    "more_iops": [80_000, 80_001, 256_000, 256_001],
    "throughput": [125, 126, 250, 251, 750, 751, 1000, 2000, 2001, 4000],
    "gib": [1, 3, 4, 5, 20, 32, 124, 125, 1024, 1025, 16_384, 16_385, 65_536],
}
SIZES = st.sampled_from(EDGES["gib"]) | st.integers(1, 65_537)


@given(
    kind=st.sampled_from([*VOLUME_TYPES]),
    iops=st.none() | st.sampled_from(EDGES["iops"] + EDGES["more_iops"]) | st.integers(100, 10**6),
    throughput=st.none() | st.sampled_from(EDGES["throughput"]) | st.integers(125, 5000),
    sizes=st.none() | st.tuples(SIZES, SIZES),
)
def test_ec2_has_every_volume_that_loads(
    kind: str, iops: int | None, throughput: int | None, sizes: tuple[int, int] | None
) -> None:
    """A configuration loads exactly if EC2 has all volumes that it allows a growth to create."""
    volume = {"type": kind, "iops": iops, "throughput": throughput}
    low, high = sorted(sizes) if sizes else (125, 1024)
    bounds = {"min": f"{low}GiB", "max": f"{high}GiB"}
    try:
        settings_of(volume, bounds)
    except ConfigInvalid:
        with pytest.raises(ApiError):
            require_in_ec2(kind, iops, throughput, low, high)
    else:
        require_in_ec2(kind, iops, throughput, low, high)


@pytest.mark.parametrize(
    ("volume", "growth", "named"),
    [
        ({"throughput": 1000}, {}, ["volume.throughput", "1000", "3000", "750", "4000"]),
        ({"throughput": 751}, {}, ["volume.throughput", "volume.iops to 3004"]),
        ({"throughput": 2001, "iops": 80_000}, {"min": "160GiB"}, ["volume.throughput", "2000"]),
        ({"iops": 80_001}, {"min": "1TiB"}, ["volume.iops", "80000"]),
        ({"iops": 16_000}, {}, ["volume.iops", "20 GiB", "10000", "growth.min to 32 GiB"]),
        ({"iops": 16_000}, {"size": "4GiB"}, ["volume.iops", "4 GiB", "growth.min to 32 GiB"]),
        ({"type": "io1", "iops": 64_001}, {"min": "16TiB", "max": "16TiB"}, ["64000"]),
        ({"type": "io2", "iops": 20_001}, {}, ["volume.iops", "growth.min to 21 GiB"]),
        ({"type": "st1"}, {}, ["growth.min", "125 GiB"]),
        ({"type": "standard"}, {"max": "2TiB"}, ["growth.max", "1 TiB"]),
    ],
)
def test_a_refusal_names_the_key_to_change(
    volume: dict[str, Any], growth: dict[str, str], named: list[str]
) -> None:
    """What EC2 would refuse at each growth is one mistake, with the values that would be right."""
    with pytest.raises(ConfigInvalid, match="1 mistake:") as refusal:
        settings_of(volume, growth)
    assert all(each in str(refusal.value) for each in named)


@pytest.mark.parametrize(
    ("volume", "size", "keys"),
    [
        ({"iops": 16_000}, "4GiB", "volume.iops or volume.type"),
        ({"iops": 16_000}, "31GiB", "volume.iops or volume.type"),
        ({"type": "io1", "iops": 500}, "9GiB", "volume.iops or volume.type"),
        ({"type": "st1"}, "124GiB", "volume.type"),
    ],
)
def test_init_refuses_a_size_that_ec2_does_not_have(
    volume: dict[str, Any],
    size: str,
    keys: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """`init --size` is held against the whole configuration before anything is asked or changed."""
    path = tmp_path / "config.yaml"
    document = {"mountpoint": str(tmp_path / "data"), "volume": volume, "growth": {"min": "125GiB"}}
    path.write_text(yaml.safe_dump(document), "utf-8")
    argv = ["init", str(tmp_path / "data"), "--size", size, "--config", str(path)]
    assert main(argv) == 2
    said = capfd.readouterr().err
    assert "--size" in said
    assert f"change {keys} in {path}" in said


@pytest.mark.parametrize(
    ("kind", "gib", "iops", "throughput", "mib_per_second"),
    [
        ("gp3", 20, 3000, 125, 125),
        ("gp3", 20, None, None, 125),
        ("gp3", 500, 8000, 2000, 2000),
        ("gp2", 170, 510, None, 128),
        ("gp2", 171, 513, None, 250),
        ("io1", 100, 1000, None, 256),
        ("io1", 4000, 64_000, None, 1000),
        ("io2", 100, None, None, 4000),
        ("st1", 1024, None, None, 250),
        ("st1", 16_384, None, None, 500),
        ("sc1", 1024, None, None, 80),
        ("standard", 1, None, None, 90),
        ("gp9", 20, 3000, 125, None),
    ],
)
def test_the_most_that_a_volume_takes(
    kind: str, gib: int, iops: int | None, throughput: int | None, mib_per_second: float | None
) -> None:
    """Bursts are included, and without the figures of the volume it is the most of its type."""
    found = bytes_per_second_max(kind, gib * GIB, iops=iops, mib_per_second=throughput)
    assert found == (None if mib_per_second is None else pytest.approx(mib_per_second * MIB))
