"""What the loop does next: one pure function of a small state, a shortage and the moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf

from ebs_autoscale.errors import Cause
from ebs_autoscale.policy.backoff import retry_delay_seconds
from ebs_autoscale.policy.shortage import Resource, Shortage

# What waits for an operator is looked at again this often, and only while there is such a thing.
RECONCILE_EVERY_SECONDS = 3600.0

# A growth that looked and saw no need, against the loop's own reading, is not repeated at once.
DISAGREEMENT_SECONDS = 5.0

# A balance helps metadata that is short: a data chunk moves in 10 s at 125 MiB/s.
BALANCE_PATIENCE_SECONDS = 60.0


class Phase(Enum):
    """What the loop does besides looking."""

    WATCHING = "nothing runs"
    BACKING_OFF = "nothing runs, and the wait after the last growth is not over"
    GROWING = "a growth runs, and its space is not usable yet"
    BALANCING = "a growth runs, and all that is left is to balance metadata"


class Action(Enum):
    """What the loop does next."""

    LOOK_AGAIN = "look again"
    START_GROWTH = "start a growth"
    STOP_BALANCE = "stop the growth that balances, in favour of a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """What the loop remembers of growths; every method returns the state after something.

    `pending`: a growth may be unfinished or EC2 worth a look, so that one is started without a
    shortage, from `pending_from_seconds` on. `failures` counts tries in a row by cause.
    `usable_at_seconds` is when the running growth's space became usable, None until then.
    `reloaded` is whether an operator has asked for a new look since the last start. `unused` are
    the devices, by their sizes, whose space a growth was started for.
    """

    started_at_seconds: float
    pending_from_seconds: float
    pending: bool = True
    retry_at_seconds: float = -inf
    retry_cause: Cause | None = None
    failed_at_seconds: float = -inf
    failing_since_seconds: float = inf
    jitter: float = 0.0
    failures: Mapping[Cause, int] = field(default_factory=dict)
    reloaded: bool = False
    started_for_shortage: bool = False
    usable_at_seconds: float | None = None
    locked_since_seconds: float | None = None
    unused: Mapping[str, int] = field(default_factory=dict)

    def phase(self, now_seconds: float, *, running: bool, seconds_left: float = inf) -> Phase:
        """The phase at this moment; `running` is whether a growth runs."""
        if running:
            return Phase.GROWING if self.usable_at_seconds is None else Phase.BALANCING
        waits = self.retry_in_seconds(now_seconds, seconds_left=seconds_left)
        return Phase.BACKING_OFF if waits else Phase.WATCHING

    def retry_in_seconds(self, now_seconds: float, *, seconds_left: float = inf) -> float:
        """What is left of the wait, 0 when there is none; shorter with little time left.

        The time left counts as it is now, not as it was at the failure: a writer may come later.
        """
        retry_at = self.retry_at_seconds
        if self.retry_cause:
            delay = retry_delay_seconds(
                self.retry_cause,
                attempts=self.failures.get(self.retry_cause, 1),
                jitter=self.jitter,
                seconds_left=seconds_left,
                failing_seconds=self.failed_at_seconds - self.failing_since_seconds,
            )
            retry_at = min(retry_at, self.failed_at_seconds + delay)
        return max(0.0, retry_at - now_seconds)

    def starting(self, now_seconds: float, *, short: bool) -> "LoopState":
        """After the decision to start a growth, which may come to nothing; failures still count."""
        return replace(
            self,
            pending=True,
            started_at_seconds=now_seconds,
            started_for_shortage=short,
            usable_at_seconds=None,
            retry_at_seconds=-inf,
            retry_cause=None,
            reloaded=False,
        )

    def usable(self, now_seconds: float) -> "LoopState":
        """After the device was added: programs can use its space."""
        return replace(self, usable_at_seconds=now_seconds)

    def failed(self, cause: Cause, now_seconds: float, *, jitter: float) -> "LoopState":
        """After a growth that brought no space, or no balanced metadata.

        One that began before a reload says nothing about what an operator has changed since.
        """
        if self.reloaded:
            return self.without_backoff()
        attempts = self.failures.get(cause, 0) + 1
        delay = retry_delay_seconds(cause, attempts=attempts, jitter=jitter)
        return replace(
            self,
            retry_at_seconds=now_seconds + delay,
            retry_cause=cause,
            failed_at_seconds=now_seconds,
            failing_since_seconds=min(self.failing_since_seconds, now_seconds),
            jitter=jitter,
            failures={**self.failures, cause: attempts},
        )

    def locked(self, now_seconds: float, *, short: bool, jitter: float) -> "LoopState":
        """After finding that another process grows this filesystem."""
        since = self.locked_since_seconds
        if short and since is None:
            since = now_seconds
        return replace(
            self.failed(Cause.LOCKED, now_seconds, jitter=jitter), locked_since_seconds=since
        )

    def unlocked(self) -> "LoopState":
        """After a start, or when none is needed: reset the time spent waiting for the lock."""
        return replace(self, locked_since_seconds=None)

    def done(self, *, last: bool) -> "LoopState":
        """After a growth that was completed; `last` is whether no other can be unfinished."""
        if self.retry_cause is Cause.UNBALANCED:
            return self.unfinished()
        return replace(self.without_backoff(), pending=not last or self.reloaded)

    def held(self, now_seconds: float) -> "LoopState":
        """After a growth that saw no need."""
        state = replace(self.without_backoff(), pending=self.reloaded)
        if self.started_for_shortage and not self.reloaded:
            state = replace(state, retry_at_seconds=now_seconds + DISAGREEMENT_SECONDS)
        return state

    def unfinished(self) -> "LoopState":
        """After a growth that did not come to its end."""
        return replace(self, pending=True)

    def seeing(self, unused: Mapping[str, int], *, running: bool) -> "LoopState":
        """After a look at the devices: one growth for each that has become larger than it is used.

        It may not be ours to use. A running growth uses it, and no wait delays it: that was for a
        world without this space.
        """
        if unused.items() <= self.unused.items():
            return replace(self, unused=unused)
        if running:
            return self
        return replace(self.unfinished(), unused=unused, retry_at_seconds=-inf)

    def without_backoff(self) -> "LoopState":
        """Without a wait, and with failures counted from the beginning."""
        return replace(
            self,
            retry_at_seconds=-inf,
            retry_cause=None,
            failing_since_seconds=inf,
            failures={},
        )

    def after_reload(self, now_seconds: float, *, conditions: bool) -> "LoopState":
        """After an operator asked for another try, and for a look at whatever is still wrong."""
        state = replace(self.without_backoff(), reloaded=True)
        return (
            replace(state, pending=True, pending_from_seconds=now_seconds) if conditions else state
        )


def next_action(
    state: LoopState,
    shortage: Shortage | None,
    *,
    now_seconds: float,
    running: bool,
    conditions: bool,
    seconds_left: float = inf,
) -> Action:
    """What to do at this moment; `conditions` is whether a growth has told of something lasting.

    `seconds_left` is the time until the filesystem is full, infinite while nothing is written.

    Never two growths, and none before the last one's wait is over, with one exception: metadata
    that could not be balanced keeps no needed growth waiting.
    """
    match state.phase(now_seconds, running=running, seconds_left=seconds_left):
        case Phase.GROWING:
            return Action.LOOK_AGAIN
        case Phase.BALANCING:
            stops = shortage and _is_in_the_way(state, shortage, now_seconds)
            return Action.STOP_BALANCE if stops else Action.LOOK_AGAIN
        case Phase.BACKING_OFF if not (shortage and state.retry_cause is Cause.UNBALANCED):
            return Action.LOOK_AGAIN
    since_started = now_seconds - state.started_at_seconds
    pending = state.pending or (conditions and since_started >= RECONCILE_EVERY_SECONDS)
    if shortage or (pending and now_seconds >= state.pending_from_seconds):
        return Action.START_GROWTH
    return Action.LOOK_AGAIN


def _is_in_the_way(state: LoopState, shortage: Shortage, now_seconds: float) -> bool:
    """Whether the balance keeps a growth waiting; that growth balances again."""
    if state.retry_in_seconds(now_seconds):
        # It runs beside a refusal: no volume can be created anyway.
        return False
    if shortage.of is not Resource.METADATA:
        return True
    began = state.usable_at_seconds or state.started_at_seconds
    return now_seconds - began >= BALANCE_PATIENCE_SECONDS
