"""The figures of the demo, computed from what it observes."""

from typing import Any

import pytest
from ebs_autoscale_demo.filesystem import Space
from ebs_autoscale_demo.progress import GrowthTimer
from ebs_autoscale_demo.sizes import GIB, MIB, counted, format_size

WATCHING = {"state": "watching", "low": ""}
LOW = {"state": "watching", "low": "less than 50 % available"}
GROWING = {"state": "growing", "low": "less than 50 % available"}
GROWING_WITH_SPACE = {"state": "growing", "low": ""}


@pytest.mark.parametrize(
    ("observed", "seconds"),
    [
        ([(WATCHING, 1), (LOW, 1), (GROWING, 1), (GROWING, 1), (GROWING, 2), (WATCHING, 2)], [3]),
        ([(LOW, 1), (WATCHING, 1), (LOW, 1), (GROWING, 2), (WATCHING, 2)], [1]),
        ([(LOW, 1), (GROWING, 2), (GROWING, 2), (LOW, 2), (GROWING, 3), (WATCHING, 3)], [1, 1]),
        ([(LOW, 1), (GROWING_WITH_SPACE, 1), (GROWING_WITH_SPACE, 2), (WATCHING, 2)], [2]),
        ([(WATCHING, 1), (WATCHING, 1)], []),
    ],
)
def test_a_growth_lasts_from_low_space_to_a_larger_filesystem(
    observed: list[tuple[dict[str, Any], int]], seconds: list[float]
) -> None:
    """Time counts from the first report of low space; while a growth finishes, none counts."""
    timer = GrowthTimer()
    for second, (status, size_gib) in enumerate(observed, start=1):
        space = Space(size_bytes=size_gib * GIB, available_bytes=0, devices=())
        timer.observe(status, space, now_seconds=float(second))
    assert timer.growth_seconds == seconds


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (312 * MIB, "312 MiB"),
        (GIB, "1 GiB"),
        (5 * GIB // 4, "1.25 GiB"),
        (25 * GIB // 2, "12.5 GiB"),
    ],
)
def test_a_size_has_three_digits(size_bytes: int, text: str) -> None:
    """Sizes have a binary unit and three digits at most."""
    assert format_size(size_bytes) == text


def test_a_count_agrees_with_its_noun() -> None:
    """One is singular, everything else plural."""
    assert [counted(number, "device") for number in (0, 1, 2)] == [
        "0 devices",
        "1 device",
        "2 devices",
    ]
