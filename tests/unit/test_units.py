"""Sizes, percentages and durations: what is read, what is refused, and the round trip."""

import re

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
    parse_percentage,
    parse_size,
    quoted,
    wrapped,
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
    """A size is a number with a binary unit, in whole bytes."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("20GB", "20GiB"),
        ("20G", "20GiB"),
        ("20gib", "20GiB"),
        ("1.5 Tb", "1.5TiB"),
        ("20", "20GiB"),
        ("20%", "20GiB"),
        ("0GiB", "zero"),
        ("0.1B", "zero"),
        ("65537TiB", "65536 TiB"),
        ("9" * 20 + "TiB", "65536 TiB"),
        ("-5GiB", "20GiB"),
        ("nanGiB", "20GiB"),
        ("infGiB", "20GiB"),
        ("1e3GiB", "20GiB"),
        ("0x10GiB", "20GiB"),
        ("1_000GiB", "20GiB"),
        ("٢GiB", "20GiB"),
        ("", "20GiB"),
        ("GiB", "20GiB"),
        ("9" * 5000 + "GiB", "20GiB"),
    ],
)
def test_wrong_sizes(text: str, named: str) -> None:
    """A wrong size is refused in a short sentence with the value, and what is meant or allowed."""
    with pytest.raises(ValueError, match=re.escape(quoted(text))) as refusal:
        parse_size(text)
    assert named in str(refusal.value).replace(quoted(text), "")
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(("text", "percent"), [("20%", 20.0), ("0.5 %", 0.5), ("99.9%", 99.9)])
def test_percentages(text: str, percent: float) -> None:
    """A percentage is a number above 0 and below 100 with its sign."""
    assert parse_percentage(text) == percent


@pytest.mark.parametrize("text", ["0%", "100%", "120%", "20", "0.2", "20GiB", "%", "-1%", "nan%"])
def test_wrong_percentages(text: str) -> None:
    """What is no percentage is refused and quoted, and so are 0 % and 100 %."""
    with pytest.raises(ValueError, match=re.escape(quoted(text))):
        parse_percentage(text)


def test_percentages_may_have_another_bound() -> None:
    """The upper bound belongs to the key: a growth may double the filesystem."""
    assert parse_percentage("200%", below=1000) == 200
    with pytest.raises(ValueError, match="1000%"):
        parse_percentage("1000%", below=1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("90s", 90.0), ("5m", 300.0), ("5 min", 300.0), ("1.5h", 5400.0), ("0s", 0.0)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """A duration is a number with a unit, in seconds; zero is a duration."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "-1s", "nan s", "1S", "1:30", "99999h", "1e9s"])
def test_wrong_durations(text: str) -> None:
    """What is no duration, or longer than a year, is refused and quoted."""
    with pytest.raises(ValueError, match=re.escape(quoted(text))):
        parse_duration(text)


def test_durations_keep_to_the_bounds_of_their_key() -> None:
    """A duration outside the bounds of its key is refused, and the bounds are named."""
    with pytest.raises(ValueError, match=r"10 ms.*1 h"):
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
def test_formatted_sizes(size_bytes: int, text: str) -> None:
    """Sizes have three digits; whole GiB, the sizes of EBS volumes, are exact."""
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
def test_formatted_durations(seconds: float, text: str) -> None:
    """Durations have the unit that keeps them short."""
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
    """A formatted size of whole GiB is read back exactly."""
    assert parse_size(format_size(gib * GIB)) == gib * GIB


@given(st.integers(min_value=1, max_value=LARGEST_SIZE_BYTES))
def test_any_size_survives_the_round_trip(size_bytes: int) -> None:
    """A formatted size is readable, to half of its last digit or a byte, and then exact."""
    read_bytes = parse_size(format_size(size_bytes))
    assert read_bytes == pytest.approx(size_bytes, abs=0.0051 * size_bytes + 1)
    assert parse_size(format_size(read_bytes)) == read_bytes


@given(st.floats(min_value=0.01, max_value=LONGEST_DURATION_SECONDS))
def test_any_duration_survives_the_round_trip(seconds: float) -> None:
    """A formatted duration is readable, within half a tenth of its unit, and then exact."""
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
    """Any text yields a value or a ValueError of one line."""
    for parse in (parse_size, parse_percentage, parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError as refusal:
            assert str(refusal).isprintable()  # noqa: PT017 -- most texts are refused, some not


WORDS = st.text("abc-/:`", min_size=1, max_size=30)


@given(st.lists(WORDS, min_size=1), st.integers(min_value=1, max_value=120))
def test_no_word_is_broken(words: list[str], columns: int) -> None:
    """Wrapped text has all words whole and in order, and only a single word exceeds the width."""
    lines = wrapped(" ".join(words), columns, first="- ", indent="  ").split("\n")
    assert lines[0][:2] == "- "
    assert {line[:2] for line in lines[1:]} <= {"  "}
    assert [word for line in lines for word in line[2:].split()] == words
    assert all(len(line) <= columns or " " not in line[2:] for line in lines)


def test_what_is_not_wrapped() -> None:
    """Without a width each line of the text stays whole; its own lines are kept with any."""
    text = "one two\nthree  four\n"
    assert wrapped(text, None, first="> ", indent="  ") == "> one two\n  three  four\n"
    assert wrapped("one two\nthree", 6, indent=" ") == "one\n two\n three"


@pytest.mark.parametrize("unit", ["GiB", "%", "s", "ms", "min", "h"])
def test_a_number_stays_with_its_unit(unit: str) -> None:
    """No line ends between the two, however wide it is."""
    text = f"what is left: 36.9 {unit} of all"
    assert all(f"36.9 {unit}" in wrapped(text, width) for width in range(12, 40))
