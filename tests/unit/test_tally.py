"""What is counted since the start of the daemon."""

import pytest

from ebs_autoscale.ec2.calls import CallResult, result_of
from ebs_autoscale.ec2.iam import STATEMENTS
from ebs_autoscale.errors import Cause
from ebs_autoscale.model import StepKind
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.tally import (
    EC2_ACTIONS,
    EC2_RESULTS,
    GROWTHS_KEPT,
    STEP_BUCKETS_SECONDS,
    Tally,
)


def event_of(kind: EventKind, **fields: object) -> Event:
    """An event of which only the fields matter."""
    return Event(kind=kind, sentence="x", **fields)  # type: ignore[arg-type] # whatever a test wants


def test_every_call_and_result_is_counted_from_the_start() -> None:
    """A series that appears with its first event has no increase that an alert could see."""
    allowed = {action for statement in STATEMENTS for action in statement.actions}
    assert {f"ec2:{action}" for action in EC2_ACTIONS} == {a for a in allowed if "ec2:" in a}
    assert set(EC2_RESULTS) == {result.value for result in CallResult}
    assert {cause for _, cause in Tally().growths} == {"", *(cause.value for cause in Cause)}


@pytest.mark.parametrize(
    ("kind", "cause", "key"),
    [
        (EventKind.GROWTH_DONE, None, ("done", "")),
        (EventKind.GROWTH_REFUSED, Cause.LIMIT_TOTAL, ("refused", "limits.total")),
        (EventKind.GROWTH_FAILED, Cause.CAPACITY, ("failed", "capacity")),
        (EventKind.GROWTH_FAILED, Cause.DIED, ("failed", "died")),
        (EventKind.GROWTH_STOPPED, Cause.DIED, ("stopped", "")),
        # A manual growth is refused by more than the limits; it is counted all the same.
        (EventKind.GROWTH_REFUSED, Cause.DENIED, ("refused", "denied")),
    ],
)
def test_each_end_of_a_growth_is_counted(
    kind: EventKind, cause: Cause | None, key: tuple[str, str]
) -> None:
    """By result and cause, and nothing else changes."""
    tally, before = Tally(), Tally()
    tally.add(event_of(kind, cause=cause), 0)
    assert tally.growths == {**before.growths, key: 1}


def test_durations_fall_into_the_bucket_that_they_do_not_exceed() -> None:
    """Each step has its own histogram; the last bucket has no bound."""
    tally = Tally()
    for seconds in (0.0, 0.25, 0.26, 10**6):
        step = StepKind.ATTACH_VOLUME
        tally.add(event_of(EventKind.STEP_DONE, step=step, seconds=seconds), 0)
    attach = tally.steps[StepKind.ATTACH_VOLUME]
    assert attach.counts == [2, 1, *[0] * (len(STEP_BUCKETS_SECONDS) - 2), 1]
    assert attach.sum_seconds == pytest.approx(10**6 + 0.51)
    assert not any(tally.steps[StepKind.CREATE_VOLUME].counts)


def test_the_latest_growths_are_kept() -> None:
    """The newest last, and only so many."""
    tally = Tally()
    for number in range(GROWTHS_KEPT + 2):
        done = event_of(
            EventKind.GROWTH_DONE,
            growth=f"abc-{number}",
            seconds=4.5,
            volume="vol-1",
            size_bytes=7,
        )
        tally.add(done, 1000.4 + number)
    assert [each.growth for each in tally.recent] == [f"abc-{n}" for n in range(2, 7)]
    assert tally.recent[-1].ended_at == 1006


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (200, "", CallResult.SUCCESS),
        (412, "DryRunOperation", CallResult.SUCCESS),
        (503, "RequestLimitExceeded", CallResult.THROTTLED),
        (403, "UnauthorizedOperation", CallResult.DENIED),
        (400, "InsufficientVolumeCapacity", CallResult.ERROR),
        (500, "", CallResult.ERROR),
    ],
)
def test_each_answer_is_of_one_kind(status: int, code: str, result: CallResult) -> None:
    """By its HTTP status and error code."""
    answer = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}
    assert result_of(answer) is result


def test_no_answer_is_a_kind_of_its_own() -> None:
    """A timeout and a refused connection are no error of EC2."""
    assert result_of(None) is CallResult.UNANSWERED
