"""Sizes, shares and durations: what is read, what is refused, and that both ways agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.units import (
    BYTES_OF,
    LARGEST_SIZE_BYTES,
    LONGEST_DURATION_SECONDS,
    counted,
    format_duration,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
    shown,
)

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1B", 1),
        ("512KiB", 512 * 1024),
        ("312MiB", 312 * 1024**2),
        ("20GiB", 20 * GIB),
        ("20 GiB", 20 * GIB),
        (" 20GiB\n", 20 * GIB),
        ("1.5TiB", 1536 * GIB),
        ("0.1GiB", 107374182),
        ("65536TiB", LARGEST_SIZE_BYTES),
    ],
)
def test_sizes_are_binary(text: str, size_bytes: int) -> None:
    """A size is a number and a binary unit, in whole bytes."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("20GB", "did you mean 20GiB"),
        ("20G", "did you mean 20GiB"),
        ("20gib", "did you mean 20GiB"),
        ("1.5 Tb", "did you mean 1.5TiB"),
        ("20", "did you mean 20GiB"),
        ("20%", "did you mean 20GiB"),
        ("0GiB", "more than zero"),
        ("0.1B", "more than zero"),
        ("65537TiB", "65536 TiB at most"),
        ("9" * 20 + "TiB", "65536 TiB at most"),
        ("-5GiB", "write for example 20GiB"),
        ("nanGiB", "write for example 20GiB"),
        ("infGiB", "write for example 20GiB"),
        ("1e3GiB", "write for example 20GiB"),
        ("0x10GiB", "write for example 20GiB"),
        ("1_000GiB", "write for example 20GiB"),
        ("٢GiB", "write for example 20GiB"),
        ("", "write for example 20GiB"),
        ("GiB", "write for example 20GiB"),
        ("9" * 5000 + "GiB", "write for example 20GiB"),
    ],
)
def test_wrong_sizes_are_explained(text: str, hint: str) -> None:
    """What is no size is refused in one short sentence that names the value and what is meant."""
    with pytest.raises(ValueError, match="is not") as refusal:
        parse_size(text)
    assert shown(text) in str(refusal.value)
    assert hint in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(("text", "percent"), [("20%", 20.0), ("0.5 %", 0.5), ("99.9%", 99.9)])
def test_shares_are_percentages(text: str, percent: float) -> None:
    """A share is a percentage above nothing and below everything."""
    assert parse_share(text) == percent


@pytest.mark.parametrize("text", ["0%", "100%", "120%", "20", "0.2", "20GiB", "%", "-1%", "nan%"])
def test_wrong_shares_are_explained(text: str) -> None:
    """What is no share is refused, and so is all or nothing."""
    with pytest.raises(ValueError, match="share"):
        parse_share(text)


def test_shares_may_exceed_the_whole_where_that_means_something() -> None:
    """The bound of a share belongs to the key: a growth may well double the filesystem."""
    assert parse_share("200%", below_percent=1000) == 200
    with pytest.raises(ValueError, match="below 1000%"):
        parse_share("1000%", below_percent=1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("90s", 90.0), ("5m", 300.0), ("5 min", 300.0), ("1.5h", 5400.0), ("0s", 0.0)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """A duration is a number and a unit, in seconds; zero is one."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "-1s", "nan s", "1S", "1:30", "99999h", "1e9s"])
def test_wrong_durations_are_explained(text: str) -> None:
    """What is no duration, or longer than a year, is refused with what is allowed."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_durations_keep_to_the_bounds_of_their_key() -> None:
    """A duration outside the bounds it was asked for is refused, naming them."""
    with pytest.raises(ValueError, match="10 ms to 1 h"):
        parse_duration("1ms", shortest_seconds=0.01, longest_seconds=3600)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (312 * 1024**2, "312 MiB"),
        (1024**2 - 1, "1 MiB"),
        (20 * GIB, "20 GiB"),
        (20 * GIB + 1, "20 GiB"),
        (1500 * GIB, "1500 GiB"),
        (1536 * GIB, "1.5 TiB"),
        (16384 * GIB, "16 TiB"),
        (100 * GIB // 3, "33.3 GiB"),
        (-20 * GIB, "-20 GiB"),
        (LARGEST_SIZE_BYTES, "65536 TiB"),
    ],
)
def test_sizes_read_well(size_bytes: int, text: str) -> None:
    """Sizes are said in three digits, and exactly where they are whole GiB as EBS sells them."""
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.1, "100 ms"),
        (4.23, "4.2 s"),
        (90, "90 s"),
        (119.97, "2 min"),
        (300, "5 min"),
        (3600, "1 h"),
        (5400, "1.5 h"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """Durations are said in the unit that keeps them short."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "noun", "plural", "text"),
    [
        (0, "device", "", "0 devices"),
        (1, "device", "", "1 device"),
        (2, "device", "", "2 devices"),
        (1, "entry", "entries", "1 entry"),
        (3, "entry", "entries", "3 entries"),
    ],
)
def test_counts_read_well(count: int, noun: str, plural: str, text: str) -> None:
    """A count has its noun in the singular for one, in the plural otherwise."""
    assert counted(count, noun, plural) == text


@given(st.integers(min_value=1, max_value=9_999))
def test_whole_gib_survive_the_round_trip(gib: int) -> None:
    """What EBS sells is read back exactly as it was shown."""
    assert parse_size(format_size(gib * GIB)) == gib * GIB


@given(st.integers(min_value=1, max_value=LARGEST_SIZE_BYTES))
def test_any_size_survives_the_round_trip(size_bytes: int) -> None:
    """A shown size is readable, to half of its last digit or a byte, and then shown exactly."""
    shown_bytes = parse_size(format_size(size_bytes))
    assert shown_bytes == pytest.approx(size_bytes, abs=0.0051 * size_bytes + 1)
    assert parse_size(format_size(shown_bytes)) == shown_bytes


@given(st.floats(min_value=0.01, max_value=LONGEST_DURATION_SECONDS))
def test_any_duration_survives_the_round_trip(seconds: float) -> None:
    """A shown duration is readable, within half a tenth of its unit, and shown the same again."""
    text = format_duration(seconds)
    assert parse_duration(text) == pytest.approx(seconds, rel=0.051)
    assert format_duration(parse_duration(text)) == text


@given(
    st.integers(min_value=1, max_value=10**6),
    st.integers(min_value=0, max_value=999),
    st.sampled_from(sorted(BYTES_OF)),
)
def test_decimals_lose_nothing(whole: int, thousandths: int, unit: str) -> None:
    """Decimals are exact arithmetic down to the byte, not floating point."""
    if whole * BYTES_OF[unit] <= LARGEST_SIZE_BYTES // 2:
        exact = (whole * 1000 + thousandths) * BYTES_OF[unit] // 1000
        assert parse_size(f"{whole}.{thousandths:03}{unit}") == exact


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is written yields a value or a ValueError of one line, nothing else."""
    for parse in (parse_size, parse_share, parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError as refusal:
            assert str(refusal).isprintable()  # noqa: PT017 -- most texts are refused, some not
