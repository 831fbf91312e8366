"""Readings under a writer are compared with what could be written after them."""

from pathlib import Path

import pytest

from tests.bench.accuracy import OPTIMISTIC_MOST_BYTES, measure
from tests.bench.ground import GIB

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("sizes", "profile", "mode"),
    [
        ((GIB // 2,), "dup", "buffered"),
        ((GIB // 2, GIB // 4), "dup", "fsync"),
        ((GIB // 4, GIB // 2, GIB // 4), "raid1", "buffered"),
        ((GIB,), "single", "buffered"),
    ],
)
def test_readings_are_right_under_a_writer(
    tmp_path: Path, sizes: tuple[int, ...], profile: str, mode: str
) -> None:
    """At no moment of a fill is a reading off by more than 16 MiB up or 64 MiB down."""
    found = measure(tmp_path, sizes, profile, mode)
    assert found.samples > 5
    assert found.good, found


def test_single_metadata_is_never_read_as_more(tmp_path: Path) -> None:
    """Without the reserve its next chunk is up to chance: the worse case is read."""
    found = measure(tmp_path, (2 * GIB,), "single", "buffered", reserve=False)
    assert max(found.first_bytes, found.most_bytes) <= OPTIMISTIC_MOST_BYTES
