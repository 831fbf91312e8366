"""The emergency reserve: how large, and never at the price of a growth."""

import pytest

from ebs_autoscale.errors import Cause, Transient
from ebs_autoscale.model import GIB
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.reserve import is_reserve_affordable, wanted_reserve_bytes
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.resize.growth import Outcome
from ebs_autoscale.telemetry.events import EventKind, Level
from tests.simulated.world import SimulatedWorld
from tests.unit.samples import reading_of

MIB = 1024**2


@pytest.mark.parametrize(
    ("configured", "size_gib", "wanted"),
    [
        (None, 2, 64 * MIB),
        (None, 20, 256 * MIB),
        (None, 50, 512 * MIB),
        (None, 10_000, GIB),
        (0, 50, 0),
        (300 * MIB, 2, 300 * MIB),
    ],
)
def test_how_large(configured: int | None, size_gib: int, wanted: int) -> None:
    """Configured, or a hundredth between 256 MiB and 1 GiB, and never much of a small one."""
    assert wanted_reserve_bytes(configured, reading_of(size_gib, size_gib / 2)) == wanted


def test_never_makes_space_low() -> None:
    """A reserve that would cross a threshold by itself is not taken; giving some up always is."""
    policy = GrowthPolicy()
    reading = reading_of(100, 20.1)
    assert is_reserve_affordable(50 * MIB, reading, policy, Forecast())
    assert not is_reserve_affordable(GIB, reading, policy, Forecast())
    assert is_reserve_affordable(0, reading, policy, Forecast())


def test_is_taken_when_a_look_finds_space_comfortable() -> None:
    """The first look of a new process takes it, and the next one changes nothing."""
    world = SimulatedWorld(reserve_bytes=None)
    assert world.grow() is Outcome.HELD
    assert world.filesystem.reserve_bytes == GIB
    world.grow()
    assert len(world.told(EventKind.TENDED)) == 1


def test_is_taken_back_after_a_growth() -> None:
    """What an emergency gave up is held again as soon as the new space allows it."""
    world = SimulatedWorld(reserve_bytes=None)
    world.fill(percent=85)
    assert world.grow() is Outcome.DONE
    assert world.filesystem.reserve_bytes > GIB / 2


def test_is_not_taken_while_space_is_low() -> None:
    """A growth that a limit refuses leaves what little there is to programs."""
    world = SimulatedWorld(reserve_bytes=None)
    world.fill(percent=85)
    assert world.grow(GrowthPolicy(limits=Limits(volumes=0))) is Outcome.REFUSED
    assert world.filesystem.reserve_bytes == 0


def test_off_gives_it_up() -> None:
    """Configured off, what an earlier configuration held is given back."""
    world = SimulatedWorld(reserve_bytes=None)
    world.grow()
    world.reserve_bytes = 0
    world.grow()
    assert world.filesystem.reserve_bytes == 0


def test_a_reserve_that_fails_is_told_and_no_more() -> None:
    """Without a reserve the growth is as done as with it, and nothing is left to be looked at."""
    world = SimulatedWorld(reserve_bytes=None)
    world.fill(percent=85)
    world.fail("keep_reserve", Transient("no", cause=Cause.RESERVE))
    assert world.grow() is Outcome.DONE
    (tended,) = [event for event in world.events if event.kind is EventKind.TENDED]
    assert tended.level is Level.WARNING
    assert world.causes(EventKind.WARNING) == []
