"""What the loop does next: the table of its phases, and how each of them is left."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause
from ebs_autoscale.policy.loop import (
    BALANCE_PATIENCE_SECONDS,
    DISAGREEMENT_SECONDS,
    RECONCILE_EVERY_SECONDS,
    Action,
    LoopState,
    Phase,
    next_action,
)
from ebs_autoscale.policy.shortage import Resource, Shortage

NOW = 10_000.0
DATA, METADATA, INODES = (Shortage(of, "short") for of in Resource)

FRESH = LoopState(started_at_seconds=NOW, pending_from_seconds=NOW + 5)
IDLE = replace(FRESH, pending=False)
BACKING_OFF = IDLE.failed(Cause.QUOTA, NOW, jitter=1.0)
UNBALANCED = IDLE.failed(Cause.UNBALANCED, NOW, jitter=1.0).unfinished()
GROWING = IDLE.starting(NOW, short=True)
BALANCING = GROWING.usable(NOW)
REFUSED_BALANCING = BALANCING.failed(Cause.LIMIT_TOTAL, NOW, jitter=1.0)

LOOK, START, STOP = Action.LOOK_AGAIN, Action.START_GROWTH, Action.STOP_BALANCE


@pytest.mark.parametrize(
    ("state", "after", "running", "phase", "actions"),
    [
        (FRESH, 0, False, Phase.WATCHING, (LOOK, START, START)),
        (FRESH, 5, False, Phase.WATCHING, (START, START, START)),
        (IDLE, 5, False, Phase.WATCHING, (LOOK, START, START)),
        (BACKING_OFF, 599, False, Phase.BACKING_OFF, (LOOK, LOOK, LOOK)),
        (BACKING_OFF, 600, False, Phase.WATCHING, (LOOK, START, START)),
        (UNBALANCED, 5, False, Phase.BACKING_OFF, (LOOK, START, START)),
        (UNBALANCED, 600, False, Phase.WATCHING, (START, START, START)),
        (GROWING, 5, True, Phase.GROWING, (LOOK, LOOK, LOOK)),
        (BALANCING, 5, True, Phase.BALANCING, (LOOK, STOP, LOOK)),
        (BALANCING, BALANCE_PATIENCE_SECONDS, True, Phase.BALANCING, (LOOK, STOP, STOP)),
        (REFUSED_BALANCING, 100, True, Phase.BALANCING, (LOOK, LOOK, LOOK)),
    ],
)
def test_the_table(
    state: LoopState, after: float, phase: Phase, actions: tuple[Action, ...], *, running: bool
) -> None:
    """In each phase: without a shortage, with one of data or inodes, with one of metadata."""
    now = NOW + after
    assert state.phase(now, running=running) is phase
    calm, data, metadata = actions
    wanted = ((None, calm), (DATA, data), (INODES, data), (METADATA, metadata))
    for shortage, action in wanted:
        asked = next_action(state, shortage, now_seconds=now, running=running, conditions=False)
        assert asked is action


@pytest.mark.parametrize(("conditions", "action"), [(False, LOOK), (True, START)])
def test_what_lasts_is_looked_at_hourly(action: Action, *, conditions: bool) -> None:
    """Only while a condition lasts does an idle loop start growths, and only every hour."""
    for after, expected in ((RECONCILE_EVERY_SECONDS - 1, LOOK), (RECONCILE_EVERY_SECONDS, action)):
        now = NOW + after
        asked = next_action(IDLE, None, now_seconds=now, running=False, conditions=conditions)
        assert asked is expected


@pytest.mark.parametrize(
    ("state", "pending", "retry_in_seconds"),
    [
        (GROWING.done(last=True), False, 0),
        (GROWING.done(last=False), True, 0),
        (BALANCING.failed(Cause.UNBALANCED, NOW, jitter=1.0).done(last=True), True, 600),
        (GROWING.held(NOW), False, DISAGREEMENT_SECONDS),
        (IDLE.starting(NOW, short=False).held(NOW), False, 0),
        (GROWING.unfinished(), True, 0),
        (BACKING_OFF.without_backoff(), False, 0),
        (BACKING_OFF.starting(NOW, short=True), True, 0),
    ],
)
def test_how_a_growth_ends(state: LoopState, retry_in_seconds: float, *, pending: bool) -> None:
    """Each end says whether something is left to finish, and how long the loop waits."""
    assert (state.pending, state.retry_in_seconds(NOW)) == (pending, retry_in_seconds)


def test_failures_are_counted_by_cause() -> None:
    """The wait doubles with the same cause only, is kept through a start, and ends with success."""
    state = IDLE
    for cause, seconds in (
        (Cause.THROTTLED, 5),
        (Cause.THROTTLED, 10),
        (Cause.CAPACITY, 60),
        (Cause.THROTTLED, 20),
    ):
        state = state.starting(NOW, short=True).failed(cause, NOW, jitter=1.0)
        assert state.retry_in_seconds(NOW) == seconds
    state = state.done(last=True).failed(Cause.THROTTLED, NOW, jitter=1.0)
    assert state.retry_in_seconds(NOW) == 5


def test_the_lock_is_timed_from_the_first_need() -> None:
    """How long a lock is in the way counts from the first shortage, until a start or comfort."""
    state = IDLE.locked(NOW, short=False, jitter=1.0)
    assert state.locked_since_seconds is None
    state = state.locked(NOW + 10, short=True, jitter=1.0).locked(NOW + 20, short=True, jitter=1.0)
    assert state.locked_since_seconds == NOW + 10
    assert state.unlocked().locked_since_seconds is None


@given(
    state=st.sampled_from([FRESH, IDLE, BACKING_OFF, UNBALANCED, GROWING, BALANCING]),
    after=st.floats(0, 1e6),
    shortage=st.sampled_from([None, DATA, METADATA, INODES]),
    conditions=st.booleans(),
)
def test_never_two_growths(
    state: LoopState, after: float, shortage: Shortage | None, *, conditions: bool
) -> None:
    """While a growth runs none is started, and a balance is stopped only for a shortage."""
    action = next_action(
        state, shortage, now_seconds=NOW + after, running=True, conditions=conditions
    )
    assert action is not START
    assert action is LOOK or shortage


@pytest.mark.parametrize(
    ("seconds_left", "after", "action"),
    [(inf, 599, LOOK), (3000, 299, LOOK), (3000, 300, START), (0, 29, LOOK), (0, 30, START)],
)
def test_a_wait_is_as_urgent_as_it_is_now(
    seconds_left: float, after: float, action: Action
) -> None:
    """A writer that comes during a long wait shortens it, and one that ends restores it."""
    asked = next_action(
        BACKING_OFF,
        DATA,
        now_seconds=NOW + after,
        running=False,
        conditions=True,
        seconds_left=seconds_left,
    )
    assert asked is action


def test_how_long_it_has_failed_counts_from_the_first_failure() -> None:
    """Tries become fewer the longer all of them fail, until one does not."""
    state = IDLE
    for after in range(0, 7201, 900):
        state = state.starting(NOW + after, short=True)
        state = state.failed(Cause.EC2_ERROR, NOW + after, jitter=1.0)
    assert state.retry_in_seconds(NOW + 7200) == 300
    assert state.retry_in_seconds(NOW + 7200, seconds_left=0) == 60
    state = state.done(last=True).failed(Cause.EC2_ERROR, NOW + 9000, jitter=1.0)
    assert state.failing_since_seconds == NOW + 9000


@pytest.mark.parametrize("conditions", [True, False])
def test_a_reload_looks_at_what_is_wrong(*, conditions: bool) -> None:
    """After a reload a growth starts at once, if a condition lasts: it may be over."""
    state = BACKING_OFF.after_reload(NOW, conditions=conditions)
    asked = next_action(state, None, now_seconds=NOW, running=False, conditions=conditions)
    assert asked is (START if conditions else LOOK)


def test_a_reload_counts_for_the_growth_that_runs() -> None:
    """However a growth ends that began before a reload, another one follows at once."""
    reloaded = GROWING.after_reload(NOW + 1, conditions=False)
    for state in (
        reloaded.failed(Cause.DENIED, NOW + 2, jitter=1.0).unfinished(),
        reloaded.done(last=True),
        reloaded.held(NOW + 2),
    ):
        asked = next_action(state, None, now_seconds=NOW + 6, running=False, conditions=False)
        assert asked is START
        after = state.starting(NOW + 6, short=True).failed(Cause.DENIED, NOW + 7, jitter=1.0)
        assert after.retry_in_seconds(NOW + 7) == 600


def test_new_space_is_used_without_a_wait() -> None:
    """Whatever the wait was for; once for each size of a device, and not beside a growth."""
    told = BACKING_OFF.seeing({"nvme1n1": 100}, running=False)
    for state, action in ((BACKING_OFF, LOOK), (told, START)):
        asked = next_action(state, None, now_seconds=NOW + 9, running=False, conditions=False)
        assert asked is action
    assert GROWING.seeing({"nvme1n1": 100}, running=True) == GROWING
    failed = told.failed(Cause.RESIZE, NOW, jitter=1.0)
    assert failed.seeing({"nvme1n1": 100}, running=False) == failed
    assert failed.seeing({"nvme1n1": 200}, running=False) != failed
