"""Lasting conditions: told at the beginning, at intervals, at the end."""

import pytest

from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.telemetry.conditions import REMIND_AFTER_SECONDS, Conditions
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from tests.simulated.clock import SimulatedClock


class Told:
    """Conditions on a simulated clock, and what was told of them."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.events: list[Event] = []
        self.conditions = Conditions(self.clock, self.events.append)

    def sentences(self) -> list[tuple[EventKind, str]]:
        """Kind and sentence of each event since the last call."""
        told = [(event.kind, event.sentence) for event in self.events]
        self.events.clear()
        return told


@pytest.fixture
def told() -> Told:
    """No condition yet."""
    return Told()


def test_a_condition_is_told_once(told: Told) -> None:
    """However often it is raised within the interval, it is told once, with its cause."""
    for _ in range(100):
        told.conditions.raised(Problem(Cause.QUOTA, "the quota is reached"))
    assert [event.fields for event in told.events] == [{"cause": "quota"}]
    assert told.sentences() == [(EventKind.CONDITION_BEGAN, "the quota is reached")]


def test_reminders_keep_their_interval(told: Told) -> None:
    """It is told again after the interval with its age and its newest sentence, not before."""
    told.conditions.raised(Problem(Cause.QUOTA, "old"))
    told.clock.sleep(REMIND_AFTER_SECONDS - 1)
    told.conditions.raised(Problem(Cause.QUOTA, "newer"))
    assert len(told.sentences()) == 1
    told.clock.sleep(1)
    told.conditions.raised(Problem(Cause.QUOTA, "newest"))
    told.conditions.raised(Problem(Cause.QUOTA, "newest"))
    assert [event.seconds for event in told.events] == [REMIND_AFTER_SECONDS]
    assert told.sentences() == [(EventKind.CONDITION_LASTS, "still failing after 15 min: newest")]


def test_the_end_is_told_once(told: Told) -> None:
    """When it is over that is told once, with how long it lasted; then it can begin again."""
    told.conditions.raised(Problem(Cause.QUOTA, "the quota is reached"))
    told.clock.sleep(90)
    told.conditions.only(())
    told.conditions.only(())
    told.conditions.raised(Problem(Cause.QUOTA, "again"))
    assert [event.level for event in told.events] == [Level.ERROR, Level.INFO, Level.ERROR]
    assert [event.seconds for event in told.events] == [None, 90, None]
    assert told.sentences()[1:] == [
        (EventKind.CONDITION_ENDED, "resolved after 90 s: the quota is reached"),
        (EventKind.CONDITION_BEGAN, "again"),
    ]


def test_causes_are_apart(told: Told) -> None:
    """Each cause has its own beginning and end; `lines` has those that last."""
    told.conditions.raised(Problem(Cause.QUOTA, "q"))
    told.conditions.raised(Problem(Cause.KMS, "k"))
    told.conditions.only({"kms", "never raised"})
    assert [kind for kind, _ in told.sentences()] == [
        EventKind.CONDITION_BEGAN,
        EventKind.CONDITION_BEGAN,
        EventKind.CONDITION_ENDED,
    ]
    assert told.conditions.lines == {"kms": "k"}


def test_volumes_are_apart(told: Told) -> None:
    """The same cause about two volumes is two conditions, and hints stay beside their sentence."""
    for volume in ("vol-1", "vol-2"):
        told.conditions.raised(Problem(Cause.DENIED, "not deleted", "allow it", volume))
    told.conditions.only({"denied vol-2"})
    assert told.conditions.lines == {"denied vol-2": "not deleted; allow it"}
    assert [(e.volume, e.hint) for e in told.events] == [
        ("vol-1", "allow it"),
        ("vol-2", "allow it"),
        ("vol-1", ""),
    ]
