"""The clock and the timeline of the sandbox."""

import pytest
from ec2_sandbox.world.clock import SandboxClock, Timeline


def test_it_stands_still_until_advanced() -> None:
    """At speed 0 only `advance` moves the clock, and never backwards."""
    clock = SandboxClock(0.0)
    assert clock.seconds() == 0
    clock.advance(5)
    clock.advance(-3)
    assert clock.seconds() == 5
    assert (clock.real_seconds_until(6), clock.real_seconds_until(4)) == (None, 0)


def test_waits_are_shorter_where_time_is_faster() -> None:
    """Real waits are simulated ones divided by the speed."""
    clock = SandboxClock(100.0)
    wait = clock.real_seconds_until(clock.seconds() + 50)
    assert wait == pytest.approx(0.5, abs=0.2)


def test_what_follows_an_event_counts_from_its_own_moment() -> None:
    """One large step and many small ones have the same result."""
    timeline = Timeline(SandboxClock(0.0))
    story: list[tuple[str, float]] = []

    def tell(what: str) -> None:
        story.append((what, timeline.now))

    def first() -> None:
        tell("first")
        timeline.after(2, lambda: tell("third"))

    timeline.after(1, first)
    timeline.after(2, lambda: tell("second"))
    timeline.clock.advance(10)
    timeline.run_due()
    assert story == [("first", 1), ("second", 2), ("third", 3)]
    assert timeline.now == 10


def test_events_of_one_moment_keep_their_order() -> None:
    """Simultaneous events happen in the order in which they were scheduled."""
    timeline = Timeline(SandboxClock(0.0))
    story: list[int] = []
    for number in range(20):
        timeline.after(1, lambda number=number: story.append(number))  # type: ignore[misc] # a default
    timeline.clock.advance(1)
    timeline.run_due()
    assert story == list(range(20))
