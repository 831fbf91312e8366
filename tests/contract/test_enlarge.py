"""What every implementation of the Cloud port guarantees where volumes are enlarged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.model import GIB, Volume
from tests.contract.clouds import CloudUnderTest, Conditions, Start
from tests.contract.test_cloud import NEXT_GROWTH, attached, available, refreshed, start

__all__ = ["start"]

DAY_SECONDS = 24 * 3600
Make = Callable[[CloudUnderTest], Volume]


@contextmanager
def refused(cause: Cause) -> Iterator[None]:
    """Expect an error of this cause."""
    with pytest.raises(EbsAutoscaleError) as caught:
        yield
    assert caught.value.cause is cause


def state_of(tested: CloudUnderTest, volume: Volume) -> tuple[str, int, int] | None:
    """The last modification: state and target; and what the volume has."""
    (seen,) = tested.cloud.with_modifications([refreshed(tested, volume)])
    if seen.modification is None:
        return None
    return seen.modification.state, seen.modification.target_bytes // GIB, seen.size_bytes // GIB


@pytest.mark.parametrize("make", [attached, available])
def test_a_volume_is_larger_once_it_is_optimizing(start: Start, make: Make) -> None:
    """One at a time: until EC2 has completed it, it refuses another one."""
    with start(Conditions()) as tested:
        volume = make(tested)
        assert state_of(tested, volume) is None
        begun = tested.cloud.enlarge(volume, 50 * GIB)
        assert (begun.state, begun.target_bytes) == ("modifying", 50 * GIB)
        for seconds, expected in ((0, ("modifying", 50, 20)), (4, ("optimizing", 50, 50))):
            tested.clock.sleep(seconds)
            assert state_of(tested, volume) == expected
            with refused(Cause.MODIFICATIONS):
                tested.cloud.enlarge(volume, 60 * GIB)
        tested.clock.sleep(600)
        assert state_of(tested, volume) == ("completed", 50, 50)
        (seen,) = tested.cloud.with_modifications([volume])
        assert seen.modification is not None
        assert seen.modification.age_seconds == pytest.approx(604, abs=2)
        tested.cloud.enlarge(volume, 60 * GIB)


def test_a_volume_is_never_made_smaller(start: Start) -> None:
    """A smaller size is refused, and nothing changes."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        with refused(Cause.REQUEST):
            tested.cloud.enlarge(volume, 19 * GIB)
        assert state_of(tested, volume) is None


def test_a_day_has_four_modifications(start: Start) -> None:
    """The fifth is possible a day after the first, also if the size is the one there is."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        for gib in (30, 30, 40, 50):
            tested.cloud.enlarge(volume, gib * GIB)
            tested.clock.sleep(700)
        with refused(Cause.MODIFICATIONS):
            tested.cloud.enlarge(volume, 60 * GIB)
        tested.clock.sleep(DAY_SECONDS - 4 * 700)
        tested.cloud.enlarge(volume, 60 * GIB)
        tested.clock.sleep(4)
        assert state_of(tested, volume) == ("optimizing", 60, 60)


def test_a_failed_modification_changes_nothing(start: Start) -> None:
    """The volume has its size, and the next modification is accepted at once."""
    with start(Conditions()) as tested:
        volume = attached(tested)
        with tested.failing_modification(volume.id):
            tested.cloud.enlarge(volume, 30 * GIB)
        tested.clock.sleep(4)
        assert state_of(tested, volume) == ("failed", 30, 20)
        tested.cloud.enlarge(volume, 30 * GIB)
        tested.clock.sleep(4)
        assert state_of(tested, volume) == ("optimizing", 30, 30)


def test_modifications_of_several_volumes_are_one_question(start: Start) -> None:
    """Also where some of them were never modified."""
    with start(Conditions()) as tested:
        volume, other = available(tested), available(tested, NEXT_GROWTH)
        tested.cloud.enlarge(volume, 30 * GIB)
        tested.clock.sleep(4)
        seen = tested.cloud.with_modifications([volume, other])
        assert [each.id for each in seen] == [volume.id, other.id]
        assert [each.modification is None for each in seen] == [False, True]
