"""What volumes cost: list prices by type, performance and Region."""

from typing import Any

import pytest

from ebs_autoscale.config import parse
from ebs_autoscale.ec2.responses import volume_of
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES, list_price, price_of, usd_per_month
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import GIB, GrowthId, Identity, VolumeSpec

ELSEWHERE = Identity(
    instance_id="i-1",
    instance_type="m5.large",
    region="eu-central-1",
    availability_zone="eu-central-1a",
    account_id="1",
)


@pytest.mark.parametrize(
    ("kind", "gib", "performance", "usd"),
    [
        ("gp3", 20, {}, 1.60),
        ("gp3", 100, {"iops": 3000, "throughput": 125}, 8.0),
        ("gp3", 100, {"iops": 4000, "throughput": 225}, 17.0),
        ("gp2", 100, {"iops": 300}, 10.0),
        ("io1", 100, {"iops": 1000}, 77.5),
        ("io2", 100, {"iops": 32_000}, 12.5 + 2080),
        ("io2", 100, {"iops": 64_000}, 12.5 + 2080 + 1456),
        ("io2", 100, {"iops": 65_000}, 12.5 + 2080 + 1456 + 32),
        ("st1", 1000, {}, 45.0),
        ("sc1", 1000, {}, 15.0),
        ("standard", 100, {}, 5.0),
    ],
)
def test_list_prices(kind: str, gib: int, performance: dict[str, int], usd: float) -> None:
    """What the price page says of us-east-1, for what is configured and for what EC2 shows."""
    iops, throughput = performance.get("iops"), performance.get("throughput")
    price = list_price(kind, "us-east-1", iops=iops, mib_per_second=throughput)
    assert price
    assert price.usd_per_month(gib * GIB) == pytest.approx(usd)
    spec = VolumeSpec(type=kind, iops=iops, throughput_mib_per_second=throughput)
    assert usd_per_month(spec, gib * GIB) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("region", "factor", "usd", "basis"),
    [
        ("us-east-1", 1.0, 8.0, "at list price"),
        ("eu-central-1", 1.0, 9.52, "at list price"),
        ("sa-east-1", 1.0, 15.2, "at list price"),
        ("xx-new-9", 1.0, 8.0, "at the list price of us-east-1"),
        ("", 1.0, 8.0, "at the list price of us-east-1"),
        ("us-east-1", 0.9, 7.2, "at 0.9 times list price"),
        ("xx-new-9", 1.25, 10.0, "at 1.25 times the list price of us-east-1"),
    ],
)
def test_prices_of_a_region(region: str, factor: float, usd: float, basis: str) -> None:
    """Each Region has its own; where it is not known, those of us-east-1 are labelled so."""
    price = price_of(VolumeSpec(price_factor=factor), region)
    assert price.usd_per_month(100 * GIB) == pytest.approx(usd)
    assert price.basis == basis
    assert price.words(100 * GIB) == f"about {usd:.2f} USD a month {basis}"


def test_every_type_has_a_price_everywhere() -> None:
    """No Region and no type is left out of the estimate."""
    for kind, offer in VOLUME_TYPES.items():
        spec = VolumeSpec(type=kind, iops=offer.min_iops or None)
        assert price_of(spec, "sa-east-1").usd_per_gib > price_of(spec).usd_per_gib > 0


@pytest.mark.parametrize(
    ("shown", "usd"),
    [
        ({"VolumeType": "gp3", "Iops": 3000, "Throughput": 125}, 9.52),
        ({"VolumeType": "gp3", "Iops": 4000, "Throughput": 125}, 9.52 + 5.95),
        ({"VolumeType": "gp9"}, None),
        ({}, None),
    ],
)
def test_a_volume_costs_what_ec2_shows(shown: dict[str, Any], usd: float | None) -> None:
    """Not what is configured now: the volume may be older. An unknown type has no price."""
    answer: Any = {"VolumeId": "vol-1", "Size": 100, "State": "in-use", **shown}
    volume = volume_of(answer, GrowthId("f", 1), ELSEWHERE, 1.0)
    assert volume.usd_per_month == (None if usd is None else pytest.approx(usd))


@pytest.mark.parametrize("key", ["limits: {monthly: %s}", "prices: {factor: %s}"])
@pytest.mark.parametrize(
    "value",
    ["0", "-5", ".nan", "nan", ".inf", "1e3", "99999999", "0x10", "1_000", "[1]", "''", "yes"],
)
def test_what_is_no_amount_is_a_mistake(key: str, value: str) -> None:
    """Neither nothing, nor less, nor what a typing error makes of a number."""
    with pytest.raises(ConfigInvalid, match=r"number|single value"):
        parse(f"mountpoint: /scratch\n{key % value}\n", name="it")
