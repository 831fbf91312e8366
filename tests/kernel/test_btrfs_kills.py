"""A short run of random kills; `make measure` has the long one."""

import pytest

from tests.bench.kills import campaign

pytestmark = pytest.mark.kernel

# Any seed will do; with a fixed one a failure can be repeated.
SEED = 6


def test_killed_in_add_and_balance() -> None:
    """Whatever a kill -9 leaves, the next run finishes it: scrub clean, every byte right."""
    tally = campaign(12, SEED)
    assert not tally.wrongs, "\n".join(tally.wrongs)
    assert tally.killed == 12
    assert tally.files > 30
