"""The loop and the judgement over long lives of a filesystem, on a simulated clock."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ebs_autoscale.model import GIB
from ebs_autoscale.policy.settings import GrowthPolicy, Limits, Polling
from ebs_autoscale.policy.shortage import ASSUMED_FILL_BYTES_PER_SECOND
from tests.simulated.life import Life

MIB = 1024**2
HOUR = 3600.0
# A minute between looks at a roomy filesystem, so that a thousand hours are few looks.
RARE = GrowthPolicy(polling=Polling(max_seconds=60.0), limits=Limits(total_bytes=2**60))


class Lives(RuleBasedStateMachine):
    """Writers that EC2 could keep up with, deletes, pauses, slow days: never one ENOSPC.

    What can be kept up with is 85 % of the physical limit: what is available when the
    writer begins, over the time that a growth takes; and nobody is faster than
    what the poll delay assumes of an unseen writer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.life = Life(RARE)
        self.life.live(120)

    @rule(share=st.floats(0.01, 0.85), seconds=st.floats(1, 100))
    def write(self, share: float, seconds: float) -> None:
        """Write at a share of the limit, a growth that runs already included."""
        life = self.life
        growths = 2 if life.growths.running else 1
        rate = share * life.available_bytes / (growths * life.growth_seconds)
        life.rate = min(rate, ASSUMED_FILL_BYTES_PER_SECOND)
        life.live(seconds)
        life.rate = 0.0

    @rule(minutes=st.floats(1, 30))
    def pause(self, minutes: float) -> None:
        """Nothing is written, and nothing is bought but what was needed when it began."""
        self.life.live(60)
        before = len(self.life.decided)
        self.life.live(minutes * 60)
        assert len(self.life.decided) == before

    @rule(share=st.floats(0, 1))
    def delete(self, share: float) -> None:
        """Some of the files go."""
        self.life.used_bytes *= 1 - share

    @rule(seconds=st.floats(3, 15))
    def change_of_weather(self, seconds: float) -> None:
        """EC2 becomes quicker or slower, within what is assumed of it at first."""
        self.life.growth_seconds = seconds

    @invariant()
    def nobody_got_enospc(self) -> None:
        """The promise of the product."""
        assert self.life.enospc_at == []

    @invariant()
    def every_growth_was_needed(self) -> None:
        """Each decision to buy has its numbers, and a size of whole GiB within its bounds."""
        for _, grow, _ in self.life.decided:
            assert "available" in grow.reason
            assert grow.size_bytes % GIB == 0
            assert RARE.sizing.min_bytes <= grow.size_bytes <= RARE.sizing.max_bytes


Lives.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestLives = Lives.TestCase


def test_a_thousand_hours_of_night_and_day() -> None:
    """A filesystem that is filled by day and emptied by night grows once and then never again."""
    life = Life(RARE, size_bytes=1024 * GIB)
    for _ in range(42):
        life.rate = 900 * GIB / (8 * HOUR)
        life.live(8 * HOUR)
        life.rate = 0.0
        life.live(8 * HOUR)
        life.used_bytes = 0.0
        life.live(8 * HOUR)
    assert life.enospc_at == []
    assert len(life.decided) == 1
    assert life.looks < 42 * 24 * 61 * 2


@pytest.mark.parametrize("rate_mib", [50, 500, 2000])
def test_a_steady_writer_needs_no_more_growths_than_its_bytes(rate_mib: int) -> None:
    """Growths follow what is written: at most one more than would do in hindsight."""
    life = Life(RARE)
    life.live(120)
    life.rate = rate_mib * MIB
    life.live(1024 * GIB / life.rate)
    assert life.enospc_at == []
    sizes = [grow.size_bytes for _, grow, _ in life.decided]
    hindsight = next(n for n in range(99) if 100 * GIB + sum(sizes[:n]) >= 1.25 * life.used_bytes)
    assert len(sizes) <= hindsight + 1


def test_an_hour_of_rest_makes_nobody_sleepy() -> None:
    """After an idle hour a writer at 85 % of the limit is seen in time."""
    life = Life(GrowthPolicy(), size_bytes=20 * GIB)
    life.live(HOUR)
    life.rate = 0.85 * life.available_bytes / life.growth_seconds
    life.live(20)
    assert life.enospc_at == []


def test_a_burst_of_the_page_cache_buys_nothing() -> None:
    """A GiB written in half a second, then nothing, is no reason to buy with 50 GiB left."""
    life = Life(GrowthPolicy())
    life.used_bytes = 50.0 * GIB
    life.live(60)
    for _ in range(10):
        life.rate = 2 * GIB
        life.live(0.5)
        life.rate = 0.0
        life.live(60)
    assert life.decided == []


def test_a_sawtooth_at_the_threshold_buys_once() -> None:
    """Files that come and go around the threshold are answered by one volume."""
    life = Life(GrowthPolicy())
    for _ in range(100):
        life.used_bytes = 79.5 * GIB
        life.live(30)
        life.rate = GIB / 10
        life.live(10)
        life.rate = 0.0
        life.live(20)
    assert len(life.decided) == 1


def test_a_delete_in_time_cancels() -> None:
    """What is freed before anything is bought makes the growth needless, and nothing is bought."""
    life = Life(GrowthPolicy())
    life.live(60)
    life.start_seconds = 10.0
    life.used_bytes = 85.0 * GIB
    life.live(6)
    assert life.growths.running
    life.used_bytes = 10.0 * GIB
    life.live(60)
    assert (life.held, life.decided) == (2, [])


def test_one_fallocate_is_no_trend() -> None:
    """What is booked at once is answered by one volume of the usual size, or by none."""
    life = Life(GrowthPolicy())
    life.live(60)
    life.used_bytes = 85.0 * GIB
    life.live(900)
    assert [grow.size_bytes // GIB for _, grow, _ in life.decided] == [50]


def test_a_growth_under_way_is_answer_enough() -> None:
    """While a volume is on its way no other is bought for the same shortage."""
    life = Life(GrowthPolicy())
    life.growth_seconds = 300.0
    life.used_bytes = 81.0 * GIB
    life.live(900)
    assert len(life.decided) == 1
