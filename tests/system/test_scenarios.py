"""Ways to use up a filesystem with default settings: a few of those that `make bench` plays."""

from pathlib import Path

import pytest

from tests.bench.scenarios import play

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("name", ["burst after rest", "fallocate"])
def test_as_many_growths_as_it_is_worth(tmp_path: Path, name: str) -> None:
    """No ENOSPC, and not one growth too few nor two too many."""
    outcome = play(tmp_path, name)
    assert outcome.good, outcome.told
    assert outcome.growths > 0, outcome.told
